"""A second factor: set up, asked for, and lost, as a browser without JavaScript sees it."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from html import unescape

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select
from werkzeug.test import TestResponse

import config
from domain import clock
from domain.door import staff
from domain.people import accounts
from domain.security import logins, second_factors
from extensions import db
from models import ApiKey, AuditEntry, RecoveryCode, Role, SecondFactor, User
from tests.support.factors import PROVE, App, SoftKey, Time, answer, set_up
from tests.support.people import PASSWORD, log_in, mailed_link, mails, make_member, post
from tests.support.shop import make_event

HOME, STEP = "/account/second-factor/", "/account/login/second-factor"
BOSS = "boss@example.org"


@pytest.fixture
def time(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Time:
    """Production, where it is asked of staff, and a time that can be moved."""
    config.use(replace(config.get(), development=False))
    return Time(monkeypatch)


def entered(app: Flask, factor: App, time: Time, email: str = BOSS) -> FlaskClient:
    """A browser of somebody who has just shown both factors."""
    client = app.test_client()
    assert log_in(client, email).location == STEP
    time.move(seconds=30)
    assert post(client, STEP, second_factor_code=factor.code).status_code == 303
    return client


def test_from_the_grace_to_the_printed_sheet(
    app: Flask, time: Time, capfd: pytest.CaptureFixture[str]
) -> None:
    boss = make_member(BOSS, Role.ADMIN)
    client = app.test_client()
    assert log_in(client, BOSS).location == f"{HOME}?next=/account/"
    page = client.get(f"{HOME}?next=/account/").text
    assert "Please set it up before" in page
    assert ">Not now, go on</a>" in page
    assert client.get("/admin/").status_code == 200
    # A stolen session does not set up a factor of its own, nor sees the secret of one that is being set up.
    assert post(client, HOME + "begin", page=HOME, password="a guess").status_code == 400
    assert post(client, HOME + "begin", page=HOME, password=PASSWORD).location == f"{HOME}app"
    other = app.test_client()
    log_in(other, BOSS)
    assert other.get(f"{HOME}app").status_code == 303
    shown = re.search(r'factor-secret">([A-Z2-7 ]+)<', client.get(f"{HOME}app").text)
    assert shown is not None
    factor = App(shown[1].replace(" ", ""))
    kept = db.session.scalars(select(SecondFactor)).one()
    assert factor.secret not in kept.sealed
    wrong = post(client, HOME + "app", code="000000")
    assert (wrong.status_code, "clock" in wrong.text) == (400, True)
    used = factor.code
    assert post(client, HOME + "app", code=used).location == f"{HOME}codes"
    sheet = re.findall(r"<code>([A-Z0-9-]{19})</code>", client.get(f"{HOME}codes").text)
    assert len(set(sheet)) == 10
    hashes = {code.code_hash for code in db.session.scalars(select(RecoveryCode))}
    assert len(hashes) == 10 and not hashes & set(sheet)
    # As passwords are: with a salt, and slowly. One salt a sheet, so that a guess costs one hash.
    assert len({kept.partition(":")[0] for kept in hashes}) == 1 and all(len(kept) == 63 for kept in hashes)
    # Before the sheet is at hand nothing counts.
    assert log_in(app.test_client(), BOSS).location != STEP
    assert post(client, HOME + "codes", code="ABCD-EFGH").status_code == 400
    assert post(client, HOME + "codes", code=sheet[9].lower()).location == "/account/"
    assert client.get("/admin/").status_code == 200
    assert [mail.to for mail in mails("second_factor_changed")] == [BOSS]
    noted = db.session.scalars(select(AuditEntry.subject)).all()
    assert "second factor" in noted

    # From now on the password alone, and the code that was used, open nothing.
    new = app.test_client()
    assert log_in(new, BOSS).location == STEP
    assert new.get("/account/").status_code == 303
    assert post(new, STEP, second_factor_code=used).status_code == 400
    time.move(seconds=30)
    code = factor.code
    assert post(new, STEP, second_factor_code=code).location == "/account/"
    assert new.get("/admin/").status_code == 200
    again = app.test_client()
    log_in(again, BOSS)
    assert post(again, STEP, second_factor_code=code).status_code == 400
    # A code of the sheet stands in, once, and its owner hears of it.
    assert post(again, STEP, second_factor_code=sheet[3]).location == "/account/"
    assert "9 are left" in str(mails("second_factor_changed")[-1].context["what"])
    third = app.test_client()
    log_in(third, BOSS)
    assert post(third, STEP, second_factor_code=sheet[3]).status_code == 400
    # A mailed link takes the place of the password, and of nothing else.
    accounts.request_reset(BOSS)
    reset = app.test_client()
    link = mailed_link("reset_password")
    assert post(reset, link, password="four blue bottles").location == STEP
    assert reset.get("/account/").status_code == 303
    time.move(seconds=60)
    assert post(reset, STEP, second_factor_code=factor.code).location == "/account/"
    written = "".join(capfd.readouterr())
    assert factor.secret not in written and not any(code in written for code in sheet)
    assert boss.second_factor_at is not None


def test_it_is_asked_again_after_twelve_hours_and_before_deeds(app: Flask, time: Time) -> None:
    factor = set_up(make_member(BOSS, Role.ADMIN))
    buyer = make_member("bob@example.org")
    client = entered(app, factor, time)
    time.move(hours=11.9)
    assert client.get("/admin/orders").status_code == 200
    time.move(hours=0.2)
    assert client.get("/account/").status_code == 200
    assert client.get("/door/").status_code == 200
    asked = client.get("/admin/orders?q=x")
    assert asked.location == f"{PROVE}?next=/admin/orders?q%3Dx"
    assert client.get("/admin/", headers={"Accept": "application/json"}).status_code == 401
    wrong = post(client, PROVE, page=asked.location, second_factor_code="123456")
    assert wrong.status_code == 400
    form = {"second_factor_code": factor.code, "second_factor_onward": "/admin/orders?q=x"}
    before = client.get_cookie("session")
    assert post(client, PROVE, **form).location == "/admin/orders?q=x"
    # Whoever took a copy of the cookie before is not in with the proof: the browser has another name now.
    thief = app.test_client()
    assert before is not None
    thief.set_cookie("session", before.value)
    assert thief.get("/account/").status_code == 303
    assert client.get("/admin/orders").status_code == 200
    # Just now is five minutes: what opens doors asks again then, and takes the form along.
    time.move(minutes=6)
    page = post(
        client, "/account/api/keys", page="/account/api/", name="till", scope="wallet:read", days="30"
    )
    assert "Your second factor" in page.text
    assert not db.session.scalars(select(ApiKey)).all()
    refused = answer(client, page, "000000")
    done = answer(client, refused, factor.code)
    assert "till: copy the key now" in done.text
    assert [key.name for key in db.session.scalars(select(ApiKey))] == ["till"]
    # Roles, by Flask-Admin's form, whose button sends nothing but its fields.
    time.move(minutes=6)
    edit = f"/admin/records/users/edit/?id={buyer.id}"
    page = post(client, edit, role="organiser")
    assert db.session.get_one(User, buyer.id, populate_existing=True).role is Role.BUYER
    answer(client, page, factor.code)
    assert db.session.get_one(User, buyer.id, populate_existing=True).role is Role.ORGANISER
    # And a form without fields of its own.
    time.move(minutes=6)
    page = post(client, f"{HOME}codes/new", page=HOME)
    printed = answer(client, page, factor.code)
    assert "Print these codes" in printed.text
    # Whoever finds the browser later is shown no sheet, and makes none count.
    token = re.findall(r'name="csrf_token" value="([^"]+)"', printed.text)[0]
    code = re.findall(r"<code>([A-Z0-9-]{19})</code>", printed.text)[0]
    time.move(minutes=31)
    assert client.get(f"{HOME}codes").location == HOME
    assert client.post(f"{HOME}codes", data={"csrf_token": token, "code": code}).location == HOME
    assert code not in client.get(HOME).text


def test_whoever_is_late_sets_it_up_first_but_not_at_a_door(app: Flask, time: Time) -> None:
    user = make_member("ann@example.org", Role.ORGANISER)
    event = make_event(organiser_id=user.id)
    client = app.test_client()
    path = f"/door/events/{event.slug}/"
    form = {"email": user.email, "password": PASSWORD, "next": path}
    assert post(client, "/account/login", **form).location == path
    time.move(days=13.9)
    assert client.get("/organiser/").status_code == 200
    time.move(days=0.2)
    assert client.get(path).status_code == 200
    assert client.get("/account/").status_code == 200
    led = client.get("/organiser/")
    assert led.location == f"{HOME}?next=/organiser/"
    assert "It is needed now" in client.get(led.location).text
    # Nobody is asked who gives nothing back, and nobody in development.
    make_member("bob@example.org")
    assert log_in(app.test_client(), "bob@example.org").location == "/account/"
    bob = app.test_client()
    log_in(bob, "bob@example.org")
    assert bob.get(HOME).status_code == 404
    config.use(replace(config.get(), development=True))
    assert client.get("/organiser/").status_code == 200
    assert log_in(app.test_client()).location == "/account/"
    made, _ = staff.make_pass(event, "North", user)
    assert client.get(f"/door/{made.token}/").status_code == 200


def test_a_lost_factor_is_taken_away_on_the_server_and_every_admin_hears(app: Flask, time: Time) -> None:
    boss = make_member(BOSS, Role.ADMIN)
    make_member("other@example.org", Role.ADMIN)
    factor = set_up(boss)
    client = entered(app, factor, time)
    said = app.test_cli_runner().invoke(args=["users", "admin", BOSS])
    assert said.exit_code == 0, said.output
    told = mails("second_factor_reset")
    assert [mail.to for mail in told] == [BOSS, "other@example.org"]
    assert "flask users admin" in str(told[0].context["who"])
    assert client.get("/account/").status_code == 303
    link = re.findall(r"http://localhost(/account/reset/\S+)", said.output)[0]
    new = app.test_client()
    assert post(new, link, password="four blue bottles").location == f"{HOME}?next=/admin/setup"
    assert new.get("/admin/").status_code == 200
    assert not db.session.scalars(select(SecondFactor)).all()


def test_an_admin_takes_an_organiser_s_lost_factor_away(app: Flask, time: Time) -> None:
    factor = set_up(make_member(BOSS, Role.ADMIN))
    lost = set_up(make_member("ann@example.org", Role.ORGANISER))
    ann = accounts.find("ann@example.org")
    assert ann is not None
    client = entered(app, factor, time)
    edit = f"/admin/records/users/edit/?id={ann.id}"
    assert "Second factor is lost" in client.get(edit).text
    post(client, edit, role="organiser", lost="y")
    assert not second_factors.counts_for(db.session.get_one(User, ann.id, populate_existing=True))
    assert [mail.to for mail in mails("second_factor_reset")] == [BOSS]
    assert mails("second_factor_changed")[-1].to == "ann@example.org"
    assert log_in(app.test_client()).location == f"{HOME}?next=/account/"
    assert lost.code
    # One's own is no way around the factor.
    own = accounts.find(BOSS)
    assert own is not None
    post(client, f"/admin/records/users/edit/?id={own.id}", role="admin", lost="y")
    assert second_factors.counts_for(db.session.get_one(User, own.id, populate_existing=True))


def options_of(page: TestResponse) -> str:
    found = re.search(r'data-options="([^"]+)"', page.text)
    assert found is not None
    return unescape(found[1])


def test_passkeys_are_an_addition(app: Flask, time: Time) -> None:
    boss = make_member(BOSS, Role.ADMIN)
    factor = set_up(boss)
    client = entered(app, factor, time)
    key, phished = SoftKey(), SoftKey("https://kassa.example.com")
    new = f"{HOME}passkeys/new"
    wrong = post(client, new, passkey=phished.make(options_of(client.get(new))))
    assert (wrong.status_code, "could not be used" in wrong.text) == (400, True)
    form = {"csrf_token": re.findall(r'name="csrf_token" value="([^"]+)"', wrong.text)[0], "name": "My phone"}
    assert client.post(new, data={**form, "passkey": key.make(options_of(wrong))}).location == HOME
    assert "My phone" in client.get(HOME).text
    time.move(minutes=1)

    other = app.test_client()
    log_in(other, BOSS)
    page = other.get(STEP)
    form = {"csrf_token": re.findall(r'name="csrf_token" value="([^"]+)"', page.text)[0]}
    # Another key, another site, an old question: none is taken, and each asks anew.
    for bad in (SoftKey().show(options_of(page)), "{}", "[]", "no json"):
        page = other.post(STEP, data={**form, "passkey": bad, "second_factor_passkey": bad})
        assert page.status_code == 400
    shown = key.show(options_of(page))
    cookies = other.get_cookie("session")
    assert cookies is not None
    assert other.post(STEP, data={**form, "second_factor_passkey": shown}).location == "/account/"
    # The same answer again, with a copy of the cookie that holds the question.
    thief = app.test_client()
    thief.set_cookie("session", cookies.value)
    assert thief.post(STEP, data={**form, "second_factor_passkey": shown}).status_code == 400
    assert thief.get("/account/").status_code == 303
    # Another PUBLIC_URL ends it; the app goes on.
    config.use(replace(config.get(), public_url="https://new.example.org"))
    assert options_gone(app, factor, time)


def options_gone(app: Flask, factor: App, time: Time) -> bool:
    """Whether a login shows no button for a passkey any more, and the app's code still opens it."""
    client = app.test_client()
    base = "https://new.example.org"
    page = client.get("/account/forgot", base_url=base).text
    token = re.findall(r'name="csrf_token" value="([^"]+)"', page)[0]
    form = {"email": BOSS, "password": PASSWORD, "csrf_token": token}
    assert client.post("/account/login", data=form, base_url=base).location == STEP
    time.move(minutes=1)
    page = client.get(STEP, base_url=base).text
    token = re.findall(r'name="csrf_token" value="([^"]+)"', page)[0]
    form = {"csrf_token": token, "second_factor_code": factor.code}
    opened = client.post(STEP, data=form, base_url=base).location == "/account/"
    return "data-options" not in page and opened


def test_a_login_that_waits_ends_by_itself_and_with_a_new_password(app: Flask, time: Time) -> None:
    boss = make_member(BOSS, Role.ADMIN)
    factor = set_up(boss)
    client = app.test_client()
    log_in(client, BOSS)
    assert client.get(STEP).status_code == 200
    time.move(minutes=16)
    assert client.get(STEP).location == "/account/login"
    log_in(client, BOSS)
    user = db.session.get_one(User, boss.id)
    user.login_epoch += 1
    db.session.commit()
    assert (
        post(client, STEP, page="/account/forgot", second_factor_code=factor.code).location
        == "/account/login"
    )
    assert client.get("/account/").status_code == 303
    assert not logins.of(user)
    assert clock.now() - boss.created_at > timedelta(minutes=15)
