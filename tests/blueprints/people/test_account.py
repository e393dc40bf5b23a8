"""The account's pages, as a browser without JavaScript sees them."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta

import pytest
from flask import Flask
from flask.testing import FlaskClient

import config
from blueprints import access, visitor
from domain import clock
from domain.people import accounts
from domain.security import api_tokens, devices, logins, rate_limits
from extensions import db
from models import Role
from tests.support.people import PASSWORD, log_in, mailed_link, mails, make_member, post
from tests.support.queries import recorded
from tests.support.shop import make_event, place
from tests.support.threads import at_once


def new_account(client: FlaskClient, email: str = "ann@example.org") -> None:
    answer = post(client, "/account/register", name="Ann Example", email=email, password=PASSWORD)
    assert answer.status_code == 303


def test_from_registering_to_logging_out(client: FlaskClient) -> None:
    new_account(client)
    link = mailed_link("confirm_address")
    assert "ann@example.org" in client.get(link).text
    assert client.get("/account/").status_code == 303
    assert post(client, link, password=PASSWORD).location == "/account/"
    assert "Nothing here yet" in client.get("/account/").text
    assert post(client, "/account/logout", page="/account/").location == "/"
    assert client.get("/account/").status_code == 303
    assert log_in(client).location == "/account/"
    assert "Ann Example" in client.get("/account/").text


def test_registering_answers_the_same_for_a_known_address(app: Flask) -> None:
    make_member("known@example.org")
    pages = []
    for email in ("known@example.org", "unknown@example.org"):
        client = app.test_client()
        new_account(client, email)
        page = client.get("/account/mailed").text.replace(email, "...")
        pages.append(re.sub(r'nonce="[^"]+"|value="[^"]+"', "", page))
    assert pages[0] == pages[1]
    assert "We have sent a mail to ..." in pages[0]


def test_a_refused_form_comes_back_with_what_was_typed_but_no_password(client: FlaskClient) -> None:
    answer = post(client, "/account/register", name="Ann", email="not an address", password=PASSWORD)
    assert answer.status_code == 400
    assert 'value="not an address"' in answer.text
    assert 'aria-describedby="email-problem email-help"' in answer.text
    assert PASSWORD not in answer.text


def test_forms_without_their_token_are_refused(client: FlaskClient) -> None:
    make_member()
    for path in ("/account/login", "/account/register", "/account/forgot", "/account/logout"):
        assert client.post(path, data={"email": "ann@example.org", "password": PASSWORD}).status_code == 400
    assert client.get("/account/logout").status_code == 405


def test_scanners_that_open_links_use_nothing_up(client: FlaskClient) -> None:
    new_account(client)
    link = mailed_link("confirm_address")
    for _ in range(2):
        assert client.get(link).status_code == 200
        assert client.head(link).status_code == 200
    assert post(client, link, password=PASSWORD).status_code == 303


def test_a_link_that_is_gone_says_what_to_do(client: FlaskClient) -> None:
    new_account(client)
    link = mailed_link("confirm_address")
    post(client, link, password=PASSWORD)
    again = client.get(link)
    assert again.status_code == 410
    assert "used already" in again.text
    assert config.get().support_email in again.text
    assert client.get("/account/reset/made-up").status_code == 404


def test_confirming_asks_for_the_password_or_sets_a_new_one(app: Flask, client: FlaskClient) -> None:
    """Somebody registers with Ann's address, and Ann presses the button in our mail."""
    order = place(make_event(), email="ann@example.org")
    new_account(app.test_client())
    link = mailed_link("confirm_address")
    for guess in ("", "ann's guess"):
        refused = post(client, link, password=guess)
        assert (refused.status_code, "That password is not right" in refused.text) == (400, True)
        assert "ann@example.org" in refused.text
    assert log_in(app.test_client()).status_code == 400
    assert order.user_id is None
    other = re.search(r'href="(/account/reset/[^"]+)"', client.get(link).text)
    assert other is not None
    assert post(client, other[1], password="ann's own choice").location == "/account/"
    assert order.code in client.get("/account/").text
    assert log_in(app.test_client()).status_code == 400
    assert log_in(app.test_client(), password="ann's own choice").status_code == 303
    # Of a password that was never hers, nothing is told; and the link is used up.
    assert not mails("password_changed")
    assert client.get(link).status_code == 410


def test_guesses_at_the_confirming_page_are_counted(client: FlaskClient) -> None:
    config.use(replace(config.get(), limits=True))
    new_account(client)
    link = mailed_link("confirm_address")
    answers = [post(client, link, password=f"guess {n}").status_code for n in range(10)]
    assert answers == [400] * 10
    last = client.get(link)
    assert last.status_code == 200
    assert post(client, link, password=PASSWORD).status_code == 429


def test_a_reset_from_the_form_to_the_account(app: Flask, client: FlaskClient) -> None:
    make_member()
    elsewhere = app.test_client()
    log_in(elsewhere)
    assert elsewhere.get("/account/").status_code == 200
    post(client, "/account/forgot", email="Ann@Example.org")
    assert "If Ann@Example.org has an account" in client.get("/account/mailed").text
    link = mailed_link("reset_password")
    refused = post(client, link, password="short")
    assert (refused.status_code, "at least 8" in refused.text) == (400, True)
    assert post(client, link, password="a new password").location == "/account/"
    assert "your new password is set" in client.get("/account/").text.lower()
    assert elsewhere.get("/account/").status_code == 303
    assert post(client, link, page="/account/forgot", password="once more please").status_code == 410


def test_changing_the_password_keeps_this_session_and_ends_the_others(app: Flask) -> None:
    make_member()
    here, there = app.test_client(), app.test_client()
    log_in(here)
    log_in(there)
    wrong = post(here, "/account/password", old_password="not this", password="a new password")
    assert (wrong.status_code, "That password is not right" in wrong.text) == (400, True)
    assert (
        post(here, "/account/password", old_password=PASSWORD, password="a new password").status_code == 303
    )
    assert here.get("/account/").status_code == 200
    assert there.get("/account/").status_code == 303


def test_a_login_begins_an_empty_session(client: FlaskClient) -> None:
    make_member()
    with client.session_transaction() as planted:
        planted["planted"] = "by somebody else"
    log_in(client)
    with client.session_transaction() as now:
        assert "planted" not in now
        assert logins.whose(now["_user_id"]) is not None


def test_a_remembered_login_outlives_the_session_until_the_password_changes(client: FlaskClient) -> None:
    make_member()
    form = {"email": "ann@example.org", "password": PASSWORD, "remember": "yes"}
    post(client, "/account/login", **form)
    client.delete_cookie("session")
    assert client.get("/account/").status_code == 200
    accounts.request_reset("ann@example.org")
    accounts.reset(mailed_link("reset_password").rsplit("/", 1)[1], "a new password")
    client.delete_cookie("session")
    assert client.get("/account/").status_code == 303


def test_logging_out_forgets_a_remembered_login(client: FlaskClient) -> None:
    make_member()
    post(client, "/account/login", email="ann@example.org", password=PASSWORD, remember="yes")
    post(client, "/account/logout", page="/account/")
    assert client.get_cookie("remember_token") is None
    assert client.get("/account/").status_code == 303


COOKIES = ("session", "remember_token")


def copied(client: FlaskClient) -> dict[str, str]:
    """What somebody takes who has this browser in their hands for a moment."""
    found = {name: client.get_cookie(name) for name in COOKIES}
    return {name: cookie.value for name, cookie in found.items() if cookie is not None}


def with_cookies(app: Flask, cookies: dict[str, str], *names: str) -> FlaskClient:
    thief = app.test_client()
    for name in names:
        thief.set_cookie(name, cookies[name])
    return thief


def remembered_login(app: Flask) -> FlaskClient:
    client = app.test_client()
    form = {"email": "ann@example.org", "password": PASSWORD, "remember": "yes"}
    assert post(client, "/account/login", **form).status_code == 303
    return client


def test_logging_out_ends_this_browser_s_cookies_wherever_they_are(app: Flask) -> None:
    make_member()
    here, other = remembered_login(app), remembered_login(app)
    cookies = copied(here)
    assert set(cookies) == set(COOKIES)
    for name in COOKIES:
        assert with_cookies(app, cookies, name).get("/account/").status_code == 200
    post(here, "/account/logout", page="/account/")
    for names in (*((name,) for name in COOKIES), COOKIES):
        assert with_cookies(app, cookies, *names).get("/account/").status_code == 303
    # The other browser is another login.
    assert other.get("/account/").status_code == 200
    assert with_cookies(app, copied(other), "remember_token").get("/account/").status_code == 200


def test_logging_out_ends_what_is_remembered_beside_another_login(app: Flask) -> None:
    """The browser was remembered as Ann, then Bob logged in and out."""
    make_member()
    make_member("bob@example.org")
    here = remembered_login(app)
    cookies = copied(here)
    here.delete_cookie("session")
    assert log_in(here, "bob@example.org").status_code == 303
    assert "remember_token" not in copied(here)
    assert with_cookies(app, cookies, "remember_token").get("/account/").status_code == 303


def test_a_new_password_ends_every_login_and_a_new_login_the_one_before(app: Flask) -> None:
    make_member()
    here, other = remembered_login(app), remembered_login(app)
    before, elsewhere = copied(here), copied(other)
    post(here, "/account/password", old_password=PASSWORD, password="a new password")
    assert here.get("/account/").status_code == 200
    for stolen in (before, elsewhere):
        for name in COOKIES:
            assert with_cookies(app, stolen, name).get("/account/").status_code == 303
    again = copied(here)
    assert log_in(here, password="a new password").status_code == 303
    assert with_cookies(app, again, "session").get("/account/").status_code == 303


def test_a_remembered_login_ends_after_30_days_here_too(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    make_member()
    cookies = copied(remembered_login(app))
    real = clock.now
    monkeypatch.setattr(clock, "now", lambda: real() + timedelta(days=30, minutes=1))
    assert with_cookies(app, cookies, "remember_token").get("/account/").status_code == 303


def test_a_login_anew_is_no_new_count_of_a_member_s_limits(app: Flask) -> None:
    user = make_member()
    keys = set()
    for _ in range(2):
        user.login_epoch += 1
        with app.test_request_context("/wallet/topup/"):
            access.begin_session(user)
            keys.add(visitor.member_key())
    assert keys == {f"member:{user.id}"}


def test_an_unconfirmed_login_is_told_to_look_in_the_mail(client: FlaskClient) -> None:
    new_account(client)
    answer = log_in(client)
    assert (answer.status_code, "Confirm your e-mail address first" in answer.text) == (400, True)
    assert len(mails("confirm_address")) == 2


def test_too_many_wrong_passwords_are_a_429(app: Flask, client: FlaskClient) -> None:
    config.use(replace(config.get(), limits=True))
    make_member()
    answers = [log_in(client, password="wrong password") for _ in range(11)]
    assert [answer.status_code for answer in answers] == [400] * 10 + [429]
    assert "Wait 15 minutes" in answers[-1].text


def test_side_by_side_logins_are_counted_one_by_one(app: Flask) -> None:
    config.use(replace(config.get(), limits=True))
    make_member()
    done = at_once(app, 14, lambda _: log_in(app.test_client(), password="wrong password").status_code)
    assert sorted(done) == [400] * 10 + [429] * 4  # type: ignore[type-var]


def at(app: Flask, address: str) -> FlaskClient:
    """A browser at this address, behind the one proxy that is believed. It tries to tell another."""
    client = app.test_client()
    client.environ_base["HTTP_X_FORWARDED_FOR"] = f"203.0.113.200, {address}"
    return client


def test_the_owner_gets_in_while_others_guess(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    config.use(replace(config.get(), limits=True))
    monkeypatch.setattr(rate_limits.LOGIN_EVERYWHERE, "amount", 12)
    make_member()
    own = at(app, "192.0.2.1")
    assert log_in(own).status_code == 303
    post(own, "/account/logout", page="/account/")
    for address in ("198.51.100.1", "198.51.100.2"):
        guesser = at(app, address)
        assert [log_in(guesser, password="a guess").status_code for _ in range(6)] == [400] * 6
    # The owner's own browser needs nothing more; a new one needs the code from the mail.
    assert log_in(own).location == "/account/"
    new = at(app, "192.0.2.1")
    form = {"email": "ann@example.org", "password": PASSWORD, "remember": "yes", "next": "/wallet/"}
    assert post(new, "/account/login", **form).location == "/account/login/code"
    assert new.get("/account/").status_code == 303
    page = new.get("/account/login/code").text
    assert 'autocomplete="one-time-code"' in page
    assert "not enough by itself just now" in page
    code = str(mails("login_code")[-1].context["code"])
    wrong = post(new, "/account/login/code", code="1234")
    assert (wrong.status_code, "not right, or too old" in wrong.text) == (400, True)
    # Nor in another browser, even with the password: each asks for its own.
    thief = at(app, "198.51.100.9")
    assert post(thief, "/account/login", **form).location == "/account/login/code"
    assert post(thief, "/account/login/code", code=code).status_code == 400
    assert thief.get("/account/").status_code == 303
    # Of no use to who has not shown the password.
    stranger = at(app, "198.51.100.1")
    assert stranger.get("/account/login/code").location == "/account/login"
    assert post(stranger, "/account/login/code", page="/account/forgot", code=code).status_code == 303
    assert stranger.get("/account/").status_code == 303
    assert post(new, "/account/login/code", code=code).location == "/wallet/"
    assert new.get("/account/").status_code == 200
    assert new.get_cookie("remember_token") is not None
    # From now on this browser is known, too.
    post(new, "/account/logout", page="/account/")
    assert log_in(new).location == "/account/"


def test_devices_are_listed_and_ended(app: Flask) -> None:
    user = make_member()
    here, there = app.test_client(), app.test_client()
    there.environ_base["HTTP_USER_AGENT"] = "Mozilla/5.0 (Windows NT 10.0; rv:130.0) Gecko Firefox/130.0"
    log_in(here)
    post(there, "/account/login", email="ann@example.org", password=PASSWORD, remember="yes")
    pair = api_tokens.begin(user, "till/2.0")
    page = here.get("/account/devices/").text
    assert all(word in page for word in ("this one", "Firefox on Windows", "127.0.0.1", "till/2.0"))
    other = next(login for login in logins.of(user) if login.label == "Firefox on Windows")
    program = api_tokens.of(user)[0]
    # Another member ends nothing of hers.
    make_member("bob@example.org")
    bob = app.test_client()
    log_in(bob, "bob@example.org")
    ends = (f"/account/devices/{other.id}/end", f"/account/devices/programs/{program.public_id}/end")
    known = devices.of(user)
    for path in (*ends, f"/account/devices/known/{known[0].id}/forget"):
        post(bob, path, page="/account/devices/")
    assert there.get("/account/").status_code == 200
    assert len(devices.of(user)) == 2
    for path in ends:
        assert post(here, path, page="/account/devices/").status_code == 303
    assert there.get("/account/").status_code == 303
    with pytest.raises(api_tokens.BadToken):
        api_tokens.refresh(pair.refresh)
    assert [device.label for device in devices.of(user)] == ["A browser"]
    # All the others at once; this one stays.
    for client in (there, app.test_client()):
        log_in(client)
    pair = api_tokens.begin(user, "till/2.0")
    post(here, "/account/devices/others/end", page="/account/devices/")
    with pytest.raises(api_tokens.BadToken):
        api_tokens.refresh(pair.refresh)
    assert (here.get("/account/").status_code, len(logins.of(user))) == (200, 1)
    assert there.get("/account/").status_code == 303


def test_what_browsers_keep_ends_by_its_own_date(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that an old copy of the database brings back lets nobody in."""
    user = make_member()
    cookies = copied(remembered_login(app))
    for login in logins.of(user):
        login.expires_at += timedelta(days=365)
    db.session.commit()
    real = clock.now
    monkeypatch.setattr(clock, "now", lambda: real() + timedelta(days=31))
    for name in COOKIES:
        assert with_cookies(app, cookies, name).get("/account/").status_code == 303


def test_when_a_browser_was_last_here_is_noted_once_an_hour(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = make_member()
    client = app.test_client()
    log_in(client)
    before = logins.of(user)[0].last_seen_at
    assert before is not None
    real = clock.now
    monkeypatch.setattr(clock, "now", lambda: real() + timedelta(minutes=59))
    client.get("/account/")
    assert logins.of(user)[0].last_seen_at == before
    monkeypatch.setattr(clock, "now", lambda: real() + timedelta(minutes=61))
    client.environ_base["HTTP_X_FORWARDED_FOR"] = "198.51.100.7"
    client.get("/")
    seen = logins.of(user)[0]
    assert (seen.last_seen_at, seen.network) != (before, "127.0.0.1")
    assert seen.network == "198.51.100.7"


# --- Where a login leads --------------------------------------------------------------------------------


def test_a_login_leads_back_to_where_it_was_asked_for(client: FlaskClient) -> None:
    make_member()
    asked = client.get("/account/password?from=mail")
    assert asked.location == "/account/login?next=/account/password?from%3Dmail"
    assert 'name="next" value="/account/password?from=mail"' in client.get(asked.location).text
    answer = post(
        client,
        "/account/login",
        email="ann@example.org",
        password=PASSWORD,
        next="/account/password?from=mail",
    )
    assert answer.location == "/account/password?from=mail"


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/\t/evil.example",
        "/\n/evil.example",
        " //evil.example",
        "javascript:alert(1)",
        "evil",
        "",
        None,
    ],
)
def test_a_login_never_leads_away(target: str | None) -> None:
    assert access.safe_next(target, "/account/") == "/account/"


@pytest.mark.parametrize("target", ["/", "/events/concert?x=1#top", "/o/ORD-1/secret", "/a//b"])
def test_a_login_leads_anywhere_here(target: str) -> None:
    assert access.safe_next(target, "/account/") == target


def test_programs_are_told_with_a_401(client: FlaskClient) -> None:
    answer = client.get("/account/", headers={"Accept": "application/json"})
    assert (answer.status_code, answer.get_json()["error"]) == (401, "login_required")


@pytest.mark.parametrize(
    ("role", "status"), [(Role.BUYER, 403), (Role.ORGANISER, 403), (Role.DOOR, 200), (Role.ADMIN, 200)]
)
def test_a_page_for_a_role(app: Flask, role: Role, status: int) -> None:
    page = access.role_required(Role.DOOR)(lambda: "the door")
    user = make_member(role=role)
    with app.test_request_context("/door"):
        access.begin_session(user)
        if status == 200:
            assert page() == "the door"
        else:
            with pytest.raises(Exception, match="403"):
                page()


# --- My orders ------------------------------------------------------------------------------------------


def test_guest_orders_appear_once_the_address_is_confirmed(client: FlaskClient) -> None:
    order = place(make_event(title="The Grand Concert"), email="ann@example.org")
    new_account(client)
    post(client, mailed_link("confirm_address"), password=PASSWORD)
    page = client.get("/account/").text
    assert "The Grand Concert" in page
    assert f"/o/{order.code}/{order.secret}" in page
    assert "€25.00" in page


def test_the_queries_of_the_account_page_do_not_grow_with_its_orders(app: Flask, client: FlaskClient) -> None:
    user, concert = make_member(), make_event(capacity=100)
    place(concert, user=user)
    log_in(client)
    counts = []
    for more in (0, 12):
        for _ in range(more):
            place(concert, user=user)
        with recorded() as statements:
            client.get("/account/")
        counts.append(len(statements))
    assert counts[0] == counts[1]


def test_account_pages_are_kept_by_no_cache(client: FlaskClient) -> None:
    assert client.get("/account/login").headers["Cache-Control"] == "no-store"
