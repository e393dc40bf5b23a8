"""What asks for the second factor again, by page and by program, and that nothing leads round it."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func, select

import config
from domain import clock
from domain.payments import reconciling, starting
from domain.people import accounts, desks, factors, organisers
from domain.security.scopes import Scope
from extensions import db
from models import ApiKey, DeskGrant, Incident, Organiser, Refund, Role, Transfer, User
from tests.support import api
from tests.support.factors import PROVE, App, Time, set_up
from tests.support.people import PASSWORD, log_in, make_member, post
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, place

BOSS, SECOND = "boss@example.org", "/account/second-factor/"


@pytest.fixture
def time(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Time:
    """Production, where it is asked of staff, and a time that can be moved."""
    config.use(replace(config.get(), development=False))
    return Time(monkeypatch)


def entered(app: Flask, time: Time, email: str, factor: App) -> FlaskClient:
    """A browser of somebody who has shown both factors six minutes ago."""
    client = app.test_client()
    assert log_in(client, email).location == "/account/login/second-factor"
    time.move(seconds=30)
    assert post(client, "/account/login/second-factor", second_factor_code=factor.code).status_code == 303
    time.move(minutes=6)
    return client


def test_every_deed_that_opens_a_door_asks_again(app: Flask, time: Time) -> None:
    boss = make_member(BOSS, Role.ADMIN)
    client = entered(app, time, BOSS, set_up(boss))
    ann = make_member("ann@example.org")
    config.use(replace(config.get(), house_account_for_organisers=False))
    applied = organisers.apply(ann, {"name": "Ann", "contact_email": "ann@example.org"})
    organiser = f"/admin/organisers/{applied.id}"
    event = make_event()
    deeds = [
        (organiser, organiser, {"do": "approve"}),
        (f"{organiser}/house", organiser, {"allowed": "yes"}),
        (f"/admin/records/users/edit/?id={ann.id}", "", {"role": "admin"}),
        ("/organiser/desk", "", {"email": "tel@example.org"}),
        ("/organiser/connect/sumup", "", {}),
        ("/organiser/connect/sumup/end", "/organiser/connect/sumup", {}),
        ("/account/api/keys", "/account/api/", {"name": "till", "scope": "wallet:read", "days": "30"}),
        (f"{SECOND}codes/new", SECOND, {}),
        (f"/organiser/events/{event.slug}/cancel", "", {"refund": "yes"}),
        (f"/admin/wallets/{ann.id}", "", {"amount": "100.01", "do": "add", "reason": "Gift"}),
    ]
    for path, page, fields in deeds:
        asked = post(client, path, page=page or path, **fields)
        assert "Your second factor" in asked.text, (path, asked.status_code)
    for table in (ApiKey, DeskGrant, Transfer):
        assert db.session.scalar(select(func.count()).select_from(table)) == 0
    assert {ann.role, db.session.scalars(select(Organiser.state)).one()} == {Role.BUYER, "pending"}
    # Small sums are one where they are many.
    for number, asked_now in enumerate((False, True)):
        form = {"amount": "60", "do": "add", "reason": "Gift", "form_token": str(number)}
        done = post(client, f"/admin/wallets/{ann.id}", **form)
        assert ("Your second factor" in done.text) is asked_now


def test_who_is_late_makes_no_keys_either_and_old_ones_are_shut(app: Flask, time: Time) -> None:
    """A key that was made in time went on for a year without a second factor."""
    boss = make_member(BOSS, Role.ADMIN)
    client = app.test_client()
    program = api.as_nobody(client)
    # Whoever comes by a program alone has their time from then on, too.
    pair = program.post("/auth/token", {"email": BOSS, "password": PASSWORD})
    assert boss.second_factor_due is not None
    token = api.Api(client, pair["access_token"])
    key = api.as_key(client, boss, Scope.ADMIN_PAYMENTS, Scope.TICKETS_CHECK_IN)
    assert key.get("/payments/admin/payments")["items"] == []
    time.move(days=15)
    log_in(client, BOSS)
    form = {"name": "till", "scope": "wallet:read", "days": "30"}
    assert post(client, "/account/api/keys", page="/account/api/", **form).location.startswith(SECOND)
    assert key.get("/payments/admin/payments", status=403)["code"] == "second_factor_unset"
    token = api.as_member(client, boss)
    made = {"name": "till", "scopes": ["wallet:read"], "days": 30}
    assert token.post("/keys", made, status=403)["code"] == "second_factor_unset"
    # Doors are never shut, and a role that comes and goes brings no new time.
    assert key.post("/check-in", {"event": "concert", "code": "x"}, status=404)["code"] == "no_event"
    due = boss.second_factor_due
    factors.begin_grace(boss)
    assert boss.second_factor_due == due


def test_a_program_sends_a_large_sum_back_only_with_the_factor_from_just_now(
    app: Flask, time: Time, sandbox: Sandbox
) -> None:
    boss = make_member(BOSS, Role.ADMIN)
    factor = set_up(boss)
    config.use(replace(config.get(), second_factor_above=Decimal(20)))
    payment = starting.open_at_provider(place(make_event(price_minor=4000)))
    assert payment is not None and payment.provider_id is not None
    sandbox.do(payment.provider_id, "pay")
    reconciling.reconcile(payment.id, door="test")
    path = f"/payments/{payment.public_id}/refund"
    client = app.test_client()
    key = api.as_key(client, boss, Scope.ADMIN_REFUNDS)
    old = api.as_member(client, boss)

    def sent(program: api.Api, amount: str, status: int) -> str:
        body = {"amount": Decimal(amount), "reason": "Ill"}
        return str(program.post(path, body, status=status, idempotency_key=f"ill {amount}").get("code"))

    assert sent(key, "20.01", 403) == sent(old, "20.01", 403) == "second_factor_needed"
    sent(key, "20.00", 201)
    # In pieces it is one sum.
    assert sent(key, "0.01", 403) == "second_factor_needed"
    time.move(seconds=30)
    login = {"email": BOSS, "password": PASSWORD, "second_factor": factor.code}
    new = api.Api(client, api.as_nobody(client).post("/auth/token", login)["access_token"])
    sent(new, "0.01", 201)
    assert sorted(db.session.scalars(select(Refund.amount_minor))) == [1, 2000]
    time.move(minutes=6)
    pair = api.as_nobody(client).post("/auth/token", {**login, "second_factor": factor.code})
    new = api.Api(client, pair["access_token"])
    made = {"name": "till", "scopes": ["wallet:read"], "days": 30}
    new.post("/keys", made, status=201)
    time.move(minutes=6)
    assert new.post("/keys", made, status=403)["code"] == "second_factor_needed"
    # What an admin alone may is asked for as the pages for staff are: a login lives for a month.
    assert new.get("/payments/admin/payments")["items"]
    time.move(hours=12)
    pair = api.as_nobody(client).post("/auth/refresh", {"refresh_token": pair["refresh_token"]})
    new = api.Api(client, pair["access_token"])
    assert new.get("/payments/admin/payments", status=403)["code"] == "second_factor_needed"
    assert new.get("/keys")["items"]


def test_an_organiser_s_desk_shows_one_where_it_sends_money_back(app: Flask, time: Time) -> None:
    ann = make_member("ann@example.org", Role.ORGANISER)
    make_member("tel@example.org")
    desks.give(ann, "Tel@example.org")
    client = app.test_client()
    assert log_in(client, "tel@example.org").location == "/account/"
    config.use(replace(config.get(), desk_refund_per_order=Decimal(50), desk_refund_per_day=Decimal(100)))
    client = app.test_client()
    assert log_in(client, "tel@example.org").location == f"{SECOND}?next=/account/"
    assert client.get(SECOND).status_code == 200
    assert client.get("/desk/").status_code == 200
    time.move(days=14.1)
    log_in(client, "tel@example.org")
    assert client.get("/desk/").location == f"{SECOND}?next=/desk/"
    tel = db.session.scalars(select(User).where(User.email == "tel@example.org")).one()
    factor = set_up(tel)
    client = entered(app, time, tel.email, factor)
    assert client.get("/desk/").status_code == 200
    time.move(hours=12)
    assert client.get("/desk/").location == f"{PROVE}?next=/desk/"
    assert clock.now() > tel.created_at


def test_who_becomes_an_admin_with_a_short_password_chooses_a_longer_one(app: Flask, time: Time) -> None:
    make_member(BOSS, Role.ADMIN)
    short = "x7Gh2kLp"
    ann = make_member("ann@example.org", password=short)
    before = app.test_client()
    log_in(before, password=short)
    accounts.change_role(ann.id, Role.ADMIN)
    # Who was logged in shows the password again, now that it is an admin's.
    assert before.get("/admin/").location.startswith("/account/login")
    client = app.test_client()
    form = {"email": "ann@example.org", "password": short, "remember": "yes"}
    assert post(client, "/account/login", **form).location == f"{SECOND}?next=/account/"
    assert client.get_cookie("remember_token") is None
    assert client.get("/door/").status_code == 200
    led = client.get("/admin/")
    assert led.location == "/account/password"
    assert "too weak for an admin" in client.get(led.location).text
    program = api.as_nobody(client)
    login = {"email": "ann@example.org", "password": short}
    assert program.post("/auth/token", login, status=403)["code"] == "password_weak"
    new = "five grey herons"
    assert post(client, "/account/password", old_password=short, password=new).status_code == 303
    assert client.get("/admin/").status_code == 200
    assert program.post("/auth/token", {**login, "password": new})["token_type"] == "Bearer"


def test_no_small_incident_and_no_word_of_ours_pays_a_large_sum_out(
    app: Flask, time: Time, sandbox: Sandbox
) -> None:
    boss = make_member(BOSS, Role.ADMIN)
    config.use(replace(config.get(), second_factor_above=Decimal(20)))
    payment = starting.open_at_provider(place(make_event(price_minor=4000)))
    assert payment is not None and payment.provider_id is not None
    client = entered(app, time, BOSS, set_up(boss))
    order = f"/admin/orders/{payment.order.code}"
    form = {"payment_id": str(payment.id), "note": "Seen at the bank"}
    said = post(client, f"{order}/decide", page=order, state="paid", **form)
    assert "Your second factor" in said.text
    sandbox.do(payment.provider_id, "pay")
    reconciling.reconcile(payment.id, door="test")
    small = Incident(key="x", kind="late_money", payment_id=payment.id, order_id=payment.order_id)
    small.amount_minor, small.currency, small.created_at = 100, "EUR", clock.now()
    db.session.add(small)
    db.session.commit()
    page = f"/admin/incidents/{small.id}"
    for how, asked in (("refund", True), ("wallet", True), ("dismiss", False)):
        done = post(client, f"{page}/resolve", page=page, how=how, reason="Looked at")
        assert ("Your second factor" in done.text) is asked, how
    assert db.session.scalars(select(Incident.resolution)).one() == "dismiss"
    assert not db.session.scalars(select(Refund)).all()
