"""Who answers the telephone: what they see and do, whose orders, and how much they may send back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from functools import partial
from threading import Barrier, BrokenBarrierError

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select

import config
from domain.errors import DomainError
from domain.orders import managing
from domain.payments import desk_refunds, reconciling, refunds, starting
from domain.people import accounts, desks, organisers
from domain.security import api_keys
from extensions import db
from models import ApiKey, AuditEntry, DeskGrant, Order, Refund, Role, Ticket, User
from tests.support.people import log_in, mails, make_member, post
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, place
from tests.support.threads import at_once
from tests.support.web import press


def browser(app: Flask, email: str, role: Role = Role.BUYER) -> FlaskClient:
    make_member(email, role)
    made = app.test_client()
    log_in(made, email)
    return made


def paid(sandbox: Sandbox, slug: str = "concert", *, organiser_id: int | None = None) -> Order:
    """Two tickets of 12.00, paid."""
    order = place(make_event(slug, price_minor=1200, organiser_id=organiser_id), 2)
    payment = starting.open_at_provider(order)
    assert payment is not None and payment.provider_id is not None
    sandbox.do(payment.provider_id, "pay")
    reconciling.reconcile(payment.id, door="test")
    return db.session.get_one(Order, order.id, populate_existing=True)


def allow(per_order: str, per_day: str) -> None:
    config.use(
        replace(config.get(), desk_refund_per_order=Decimal(per_order), desk_refund_per_day=Decimal(per_day))
    )


def ask(client: FlaskClient, order: Order, amount: str) -> str:
    """The refund form, and its second page where there is one; what the desk reads afterwards."""
    page = f"/desk/orders/{order.code}"
    payment_id = str(order.payments[0].id)
    shown = post(client, f"{page}/refund", page=page, payment_id=payment_id, amount=amount, reason="Ill")
    if shown.status_code == 200:
        press(client, shown, f"{page}/refund")
    return client.get(page).text


def test_the_house_s_desk_answers_a_buyer(app: Flask, sandbox: Sandbox) -> None:
    order = paid(sandbox)
    desk = browser(app, "desk@example.org", Role.DESK)
    assert 'href="/desk/"' in desk.get("/").text
    menu = desk.get("/desk/").text
    assert not [link for link in ("/admin/", "/organiser/", "/door/") if f'href="{link}' in menu]
    assert order.code in desk.get("/desk/?q=ada@example").text
    assert "No order matches" in desk.get("/desk/?q=nobody@here").text
    page = f"/desk/orders/{order.code}"
    assert "Refund</summary>" not in desk.get(page).text
    post(desk, f"{page}/note", page=page, text=" ")
    assert "Type what is to be noted" in desk.get(page).text
    post(desk, f"{page}/note", page=page, text="Rang at nine:\nwants a <b>refund</b>")
    assert "Rang at nine: wants a &lt;b&gt;refund&lt;/b&gt;" in desk.get(page).text
    before = len(mails("tickets"))
    post(desk, f"{page}/resend", page=page)
    assert len(mails("tickets")) == before + 1
    for _ in range(managing.MOST_RESENT - 1):
        managing.resend(order, door="desk")
    post(desk, f"{page}/resend", page=page)
    assert "were sent 10 times within a day" in desk.get(page).text
    assert len(mails("tickets")) == before + managing.MOST_RESENT
    managing.resend(order, door="admin")
    assert "Refunds are not made at the desk here" in ask(desk, order, "1")
    assert db.session.query(Refund).count() == 0
    entry = next(entry for entry in order.timeline if entry.what == "noted")
    assert (entry.what, entry.door, entry.actor.email) == ("noted", "desk", "desk@example.org")  # type: ignore[union-attr]


def test_a_desk_has_no_keys(app: Flask) -> None:
    """Nor has it those of the role before, be it a lesser one: what a desk does, a person does."""
    ann = browser(app, "ann@example.org")
    form = {"name": "Mine", "scope": "wallet:read", "days": "30"}
    assert "copy the key now" in post(ann, "/account/api/keys", page="/account/api/", **form).text
    user = accounts.find("ann@example.org")
    assert user is not None
    accounts.change_role(user.id, Role.DESK)
    assert db.session.query(ApiKey).one().revoked_at is not None
    page = ann.get("/account/api/").text
    assert "has no API keys" in page and 'name="scope"' not in page
    with pytest.raises(DomainError, match="may not do all of that itself"):
        api_keys.make(user, "Mine", ["wallet:read"], 30)


def test_an_organiser_s_desk_sees_that_organiser_s_orders_alone(app: Flask, sandbox: Sandbox) -> None:
    """Given by an address that has no account yet; ended at once, and with its organiser."""
    owner = browser(app, "owner@example.org", Role.ORGANISER)
    boss = browser(app, "boss@example.org", Role.ADMIN)
    owner_id = accounts.find("owner@example.org").id  # type: ignore[union-attr]
    post(owner, "/organiser/profile", name="The Barn", contact_email="owner@example.org")
    theirs = paid(sandbox, "theirs", organiser_id=owner_id)
    others = paid(sandbox, "others")
    for typed in ("Helper@Example.org", "nonsense"):
        assert post(owner, "/organiser/desk", email=typed).location == "/organiser/desk"
    assert "does not look right" in owner.get("/organiser/desk").text
    post(owner, "/organiser/desk", email="helper@example.org")
    # Once, however often it is given.
    assert [mail.to for mail in mails("desk_given")] == ["helper@example.org"]
    [noted] = db.session.scalars(select(AuditEntry).where(AuditEntry.subject == "desk"))
    assert (noted.area, noted.actor_id, noted.changes[0][2]) == ("role", owner_id, "helper@example.org")
    assert browser(app, "stranger@example.org").get("/desk/").status_code == 403
    make_member("helper@example.org", confirmed=False)
    user = accounts.find("helper@example.org")
    assert user is not None and desks.of(user) is None, "not before they have proven the address"
    user.confirmed_at = user.created_at
    db.session.commit()
    helper = app.test_client()
    log_in(helper, "helper@example.org")
    assert "/desk/" in helper.get("/account/").text
    listed = helper.get("/desk/").text
    assert theirs.code in listed and others.code not in listed
    assert others.code not in helper.get(f"/desk/?q={others.code}").text.split("<table")[1]
    page = f"/desk/orders/{theirs.code}"
    house = browser(app, "house@example.org", Role.DESK)
    post(house, f"{page}/note", page=page, text="He is a nuisance")
    post(helper, f"{page}/note", page=page, text="Wants the front row")
    assert "Wants the front row" in owner.get(f"/organiser/events/theirs/orders/{theirs.code}").text
    for reader in (helper, owner):
        read = reader.get(page if reader is helper else f"/organiser/events/theirs/orders/{theirs.code}").text
        assert "nuisance" not in read and "Wants the front row" in read
    for what in ("note", "resend", "refund"):
        answer = post(helper, f"/desk/orders/{others.code}/{what}", page=page, text="x")
        assert answer.status_code == 404
    assert helper.get(f"/desk/orders/{others.code}").status_code == 404
    profile = organisers.of(db.session.get_one(User, owner_id))
    assert profile is not None
    boss_id = accounts.find("boss@example.org").id  # type: ignore[union-attr]
    organisers.suspend(profile.id, reason="Fraud", actor_id=boss_id)
    assert helper.get(page).status_code == 403
    organisers.approve(profile.id, actor_id=boss_id)
    # The suspension has ended the organiser's own sessions.
    log_in(owner, "owner@example.org")
    assert helper.get(page).status_code == 200
    grant = db.session.query(DeskGrant).one()
    assert post(boss, f"/organiser/desk/{grant.id}/end", page="/organiser/desk").status_code == 303
    assert helper.get(page).status_code == 200, "another organiser, be it an admin, ends their own alone"
    post(owner, f"/organiser/desk/{grant.id}/end", page="/organiser/desk")
    assert helper.get(page).status_code == 403
    assert "helper@example.org" not in owner.get("/organiser/desk").text.split("<table")[-1].split("<form")[0]
    assert boss.get("/desk/").status_code == 200


def test_refunds_at_a_desk_add_up(app: Flask, sandbox: Sandbox) -> None:
    """By order, whoever asked; by day, each person; what failed counts for nothing, and an admin is free."""
    first, second, third = paid(sandbox), paid(sandbox, "second"), paid(sandbox, "third")
    one = browser(app, "one@example.org", Role.DESK)
    two = browser(app, "two@example.org", Role.DESK)
    allow("10", "15")
    assert "At the desk at most €10.00 of one order may be sent back, and €10.00 of that is left" in ask(
        one, first, "10.01"
    )
    assert "The refund of €6.00 went through" in ask(one, first, "6")
    assert "€4.00 of that is left" in ask(two, first, "4.01")
    assert "went through" in ask(two, first, "4")
    assert "and €0.00 of that is left" in ask(two, first, "0.50")
    assert "in 24 hours may be sent back, and €9.00 of that is left" in ask(one, second, "9.50")
    assert "went through" in ask(one, second, "9")
    assert [refund.at_desk for refund in db.session.query(Refund)] == [True] * 3
    assert "went through" in ask(two, third, "1"), "money alone, of an order whose tickets stay"
    page = f"/desk/orders/{third.code}"
    form = {"payment_id": str(third.payments[0].id), "amount": "0.01", "reason": "Ill"}
    post(two, f"{page}/refund", page=page, tickets=[str(ticket.id) for ticket in third.tickets], **form)
    assert "a ticket stops only when all of its price goes back" in two.get(page).text
    assert {ticket.state for ticket in db.session.query(Ticket)} == {"valid"}
    boss = browser(app, "boss@example.org", Role.ADMIN)
    page = f"/admin/orders/{first.code}"
    paid_by = str(first.payments[0].id)
    shown = post(boss, f"{page}/refund", page=page, payment_id=paid_by, amount="12", reason="Ill")
    press(boss, shown, f"{page}/refund")
    assert "The refund of €12.00 went through" in boss.get(page).text
    allow("10", "0")
    assert "not made at the desk" in ask(two, second, "1")
    assert db.session.scalars(select(Ticket.state).where(Ticket.order_id == second.id)).all() == ["valid"] * 2


@pytest.mark.parametrize("turns", [True, False], ids=["in turns", "without turns"])
def test_two_refunds_at_once_are_one_day_s(
    app: Flask, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, turns: bool
) -> None:
    """Of two orders, so that no order's lock stands between them; without the turns both would pass."""
    payments = [paid(sandbox, slug).payments[0].id for slug in ("first", "second")]
    desk_id = make_member("desk@example.org", Role.DESK).id
    allow("10", "10")
    both_read, of_day = Barrier(2), desk_refunds._of_day

    def slowly(actor_id: int, currency: str) -> int:
        found = of_day(actor_id, currency)
        with suppress(BrokenBarrierError):
            both_read.wait(1)
        return found

    monkeypatch.setattr(desk_refunds, "_of_day", slowly)
    if not turns:
        monkeypatch.setattr(desk_refunds, "_take_turn", lambda actor_id: None)

    def send(number: int) -> Refund:
        bound: Callable[[Order, int], None] = partial(desk_refunds.check, actor_id=desk_id)
        return refunds.request(
            payments[number], 800, actor_id=desk_id, reason="Ill", door="desk", bound=bound
        )

    results = at_once(app, 2, send)
    refused = [result for result in results if isinstance(result, DomainError)]
    assert [error.code for error in refused] == (["desk_limit"] if turns else [])
    assert db.session.query(Refund).count() == (1 if turns else 2)
