"""People: registering, one-time links, logging in, passwords, roles and the first admin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from argon2 import PasswordHasher
from flask import Flask
from sqlalchemy import func, select

import config
from domain import clock
from domain.errors import DomainError, NotFound
from domain.people import accounts
from domain.security import (
    devices,
    fronts,
    logins,
    mailed_codes,
    one_time_links,
    passwords,
    rate_limits,
)
from extensions import connect_redis, db, network, queue
from models import LinkPurpose, Login, LoginCode, OneTimeLink, Role, User
from tests.support.people import PASSWORD, mails, make_member, token_in
from tests.support.shop import make_event, place
from tests.support.threads import at_once


@pytest.fixture
def limited(app: Flask) -> Flask:
    """The application with its limits on."""
    config.use(replace(config.get(), limits=True))
    return app


@pytest.fixture
def in_production(app: Flask) -> Flask:
    """Production, where ADMIN_EMAIL is set and nobody is an admin."""
    config.use(replace(config.get(), development=False, admin_email="boss@example.org"))
    return app


def refusal(code: str) -> pytest.RaisesExc[DomainError]:
    return pytest.raises(DomainError, check=lambda error: error.code == code)


def later(monkeypatch: pytest.MonkeyPatch, **how_much: float) -> None:
    moment = clock.now() + timedelta(**how_much)
    monkeypatch.setattr(clock, "now", lambda: moment)


def registered(email: str = "ann@example.org") -> User:
    accounts.register(email, PASSWORD, "Ann Example")
    found = accounts.find(email)
    assert found is not None
    return found


# --- Registering and confirming -------------------------------------------------------------------------


def test_registering_makes_an_account_that_waits_for_its_address(app: Flask) -> None:
    user = registered(" Ann@Example.ORG ")
    assert (user.email, user.role, user.confirmed_at) == ("ann@example.org", Role.BUYER, None)
    assert user.password_hash.startswith("$argon2id$")
    with refusal("unconfirmed"):
        accounts.authenticate("ann@example.org", PASSWORD)
    assert accounts.confirm(token_in("confirm_address"), PASSWORD).id == user.id
    assert accounts.authenticate("ANN@example.org", PASSWORD).id == user.id


@pytest.mark.parametrize("email", ["someone@shop.test", "someone@example.org", "o'neil+x@example.com"])
def test_addresses_that_are_good(app: Flask, email: str) -> None:
    assert registered(email).email == email


@pytest.mark.parametrize(
    "email", ["", "nobody", "a@b", "a b@example.org", "a@@example.org", "x@" + "y" * 300]
)
def test_addresses_that_are_refused_in_words(app: Flask, email: str) -> None:
    with refusal("email_invalid") as caught:
        accounts.register(email, PASSWORD, "Ann")
    assert "e-mail address" in caught.value.message


@pytest.mark.parametrize(
    ("password", "code"),
    [
        ("short", "password_short"),
        ("x" * 201, "password_long"),
        ("Password123", "password_common"),
        ("ababababab", "password_common"),
        ("Ann@Example.org", "password_is_address"),
        # Of lists that leaked, and what is made of them.
        *((password, "password_common") for password in ("dragon12", "P@ssw0rd!", "letmein!!", "1qaz@WSX")),
        *((password, "password_common") for password in ("qazwsxedc", "abcdefgh1", "19871987", "Monkey123!")),
        # The person's and the shop's own words.
        *((password, "password_common") for password in ("annexample1", "Ann.Example9", "kassa2026")),
        *((password, "password_common") for password in ("BoxOfficeKassa", "example-org-1")),
    ],
)
def test_passwords_that_are_refused(app: Flask, password: str, code: str) -> None:
    config.use(replace(config.get(), site_name="The Box Office"))
    with refusal(code):
        accounts.register("ann@example.org", password, "Ann Example")
    assert accounts.find("ann@example.org") is None


def test_passwords_that_are_good_enough(app: Flask) -> None:
    good = ("three green bottles", "tulpe&Hafen7", "x7Gh2kLp", "корабль под дождём", "~}]%$;:{?+<")
    # The longest that is taken is weighed in no time.
    for password in (*good, "4@8({[<69&#!1|0$5+7%2" * 9):
        passwords.check(password, "ann@example.org", words=["Ann Example"])


def test_an_admin_s_password_is_longer_and_nobody_has_to_change_theirs(app: Flask) -> None:
    boss = make_member("boss@example.org", Role.ADMIN, password="x7Gh2kLp")
    accounts.authenticate("boss@example.org", "x7Gh2kLp")
    with refusal("password_short") as caught:
        accounts.change_password(boss, "x7Gh2kLp", "y8Hj3mNq")
    assert "10 characters" in caught.value.message
    token = one_time_links.make(boss, LinkPurpose.RESET).rsplit("/", 1)[1]
    with refusal("password_short"):
        accounts.reset(token, "y8Hj3mNq")
    accounts.reset(token, "y8Hj3mNqwe")
    # The demo's own, whose passwords everybody knows.
    demo = make_member("admin@example.org", Role.ADMIN, password="kassa-demo")
    accounts.change_password(demo, "kassa-demo", "kassa")
    config.use(replace(config.get(), development=False))
    with refusal("password_common"):
        accounts.change_password(demo, "kassa", "kassa-demo")


@pytest.mark.parametrize("name", ["", "  ", "x" * 201, "Go to http://evil", "see evil.com", "<b>Ann</b>"])
def test_names_that_are_refused(app: Flask, name: str) -> None:
    with pytest.raises(DomainError, match="name"):
        accounts.register("ann@example.org", PASSWORD, name)


def test_a_name_with_initials_is_a_name(app: Flask) -> None:
    accounts.register("jrr@example.org", PASSWORD, "J.R.R.\0  Tolkien")
    assert accounts.find("jrr@example.org").name == "J.R.R. Tolkien"  # type: ignore[union-attr]


def test_registering_a_known_address_changes_nothing_and_mails_its_owner(app: Flask) -> None:
    before = make_member().password_hash
    accounts.register("ANN@example.org", "another password", "Somebody Else")
    user = accounts.find("ann@example.org")
    assert user is not None
    assert (user.password_hash, user.name) == (before, "Ann Example")
    assert [mail.to for mail in mails("already_registered")] == ["ann@example.org"]
    assert not mails("confirm_address")


def test_two_who_register_one_unconfirmed_address_both_lose_to_who_reads_its_mail(app: Flask) -> None:
    registered()
    first = token_in("confirm_address")
    accounts.register("ann@example.org", "the second password", "Second")
    with refusal("link_used"):
        accounts.confirm(first, PASSWORD)
    accounts.reset(token_in("already_registered"), "the owner's own choice")
    for password in (PASSWORD, "the second password"):
        with refusal("wrong_login"):
            accounts.authenticate("ann@example.org", password)
    assert accounts.authenticate("ann@example.org", "the owner's own choice").confirmed_at


def test_one_address_registered_at_once_is_one_account(app: Flask) -> None:
    done = at_once(app, 5, lambda n: accounts.register("ann@example.org", f"{PASSWORD} {n}", "Ann"))
    assert done == [None] * 5
    assert db.session.scalar(select(func.count()).select_from(User)) == 1
    assert len(mails("confirm_address")) == 1


def test_confirming_finds_the_orders_made_as_a_guest(app: Flask) -> None:
    order = place(make_event(), email="ann@example.org")
    other = place(make_event("other"), email="bob@example.org")
    user = registered()
    assert accounts.orders_of(user).orders == []
    accounts.confirm(token_in("confirm_address"), PASSWORD)
    assert [found.id for found in accounts.orders_of(user).orders] == [order.id]
    assert other.user_id is None
    again = place(make_event("third"), email="Ann@example.org")
    accounts.authenticate("ann@example.org", PASSWORD)
    assert [found.id for found in accounts.orders_of(user).orders] == [again.id, order.id]


def test_orders_come_in_pages(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "ORDERS_PER_PAGE", 2)
    user, event = make_member(), make_event()
    placed = [place(event, user=user).id for _ in range(3)]
    first = accounts.orders_of(user)
    assert ([order.id for order in first.orders], first.older) == ([placed[2], placed[1]], placed[1])
    second = accounts.orders_of(user, first.older)
    assert ([order.id for order in second.orders], second.older) == ([placed[0]], None)


# --- One-time links -------------------------------------------------------------------------------------


def test_only_the_hash_of_a_token_is_kept(app: Flask) -> None:
    registered()
    token = token_in("confirm_address")
    kept = db.session.scalars(select(OneTimeLink)).one()
    assert len(token) >= 43
    assert token not in kept.token_hash
    assert len(kept.token_hash) == 64


def test_looking_at_a_link_does_not_use_it(app: Flask) -> None:
    registered()
    token = token_in("confirm_address")
    for _ in range(3):
        one_time_links.look(token, one_time_links.TO_CONFIRM)
    assert accounts.confirm(token, PASSWORD).confirmed_at is not None


def test_a_link_works_once(app: Flask) -> None:
    registered()
    token = token_in("confirm_address")
    accounts.confirm(token, PASSWORD)
    with refusal("link_used"):
        accounts.confirm(token, PASSWORD)


def test_a_link_is_for_its_purpose(app: Flask) -> None:
    user = registered()
    accounts.request_reset(user.email)
    with pytest.raises(NotFound):
        accounts.confirm(token_in("reset_password"), PASSWORD)
    connecting = one_time_links.token(user, LinkPurpose.CONNECT)
    db.session.commit()
    for other in (connecting, "made-up"):
        with pytest.raises(NotFound):
            accounts.confirm(other, PASSWORD)
        with pytest.raises(NotFound):
            accounts.reset(other, "a new password")


@pytest.mark.parametrize(
    ("purpose", "good", "gone"),
    [
        (LinkPurpose.CONFIRM, {"days": 2.9}, {"days": 3}),
        (LinkPurpose.RESET, {"minutes": 59}, {"minutes": 60}),
        (LinkPurpose.FIRST_ADMIN, {"days": 6.9}, {"days": 7}),
    ],
)
def test_links_expire(
    app: Flask,
    monkeypatch: pytest.MonkeyPatch,
    purpose: LinkPurpose,
    good: dict[str, float],
    gone: dict[str, float],
) -> None:
    token = one_time_links.make(make_member(), purpose).rsplit("/", 1)[1]
    db.session.commit()
    with monkeypatch.context() as patch:
        later(patch, **good)
        assert one_time_links.look(token, {purpose}).purpose is purpose
    later(monkeypatch, **gone)
    with refusal("link_expired"):
        one_time_links.use(token, {purpose})


def test_of_many_uses_at_once_one_wins(app: Flask) -> None:
    make_member()
    accounts.request_reset("ann@example.org")
    token = token_in("reset_password")
    done = at_once(app, 6, lambda n: accounts.reset(token, f"a new password {n}"))
    won = [number for number, result in enumerate(done) if isinstance(result, User)]
    assert len(won) == 1
    assert {e.code for e in done if isinstance(e, DomainError)} == {"link_used"}
    accounts.authenticate("ann@example.org", f"a new password {won[0]}")


def test_of_a_reset_and_a_new_link_at_once_nothing_waits_for_ever(app: Flask) -> None:
    make_member()
    accounts.request_reset("ann@example.org")
    token = token_in("reset_password")

    def one(number: int) -> None:
        if number % 2:
            accounts.request_reset("ann@example.org")
        else:
            accounts.reset(token, f"a new password {number}")

    done = at_once(app, 6, one)
    assert all(not isinstance(e, Exception) or isinstance(e, DomainError) for e in done)


# --- Logging in -----------------------------------------------------------------------------------------


def test_unknown_addresses_and_wrong_passwords_are_told_the_same(app: Flask) -> None:
    make_member()
    told = []
    for email, password in (
        ("ann@example.org", "wrong password"),
        ("bob@example.org", PASSWORD),
        ("", ""),
        ("\0", "\0"),
    ):
        with refusal("wrong_login") as caught:
            accounts.authenticate(email, password)
        told.append(caught.value.message)
    assert len(set(told)) == 1


def test_an_unknown_address_costs_a_verification_too(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    verify = PasswordHasher.verify

    def counted(*given: Any) -> bool:
        calls.append(given)
        return verify(*given)

    monkeypatch.setattr(PasswordHasher, "verify", counted)
    with refusal("wrong_login"):
        accounts.authenticate("nobody@example.org", PASSWORD)
    assert len(calls) == 1


def test_an_account_without_a_password_has_no_right_one(app: Flask) -> None:
    accounts.admin_link("boss@example.org")
    for password in ("", " ", PASSWORD):
        with refusal("wrong_login"):
            accounts.authenticate("boss@example.org", password)


def test_a_disabled_member_cannot_log_in_or_go_on(app: Flask) -> None:
    user = make_member()
    cookie = logins.begin(user)
    assert logins.whose(cookie) == user
    accounts.request_reset("ann@example.org")
    assert len(mails("reset_password")) == 1
    accounts.disable(user.id)
    assert logins.whose(cookie) is None
    with refusal("disabled"):
        accounts.authenticate("ann@example.org", PASSWORD)
    with refusal("disabled"):
        accounts.reset(token_in("reset_password"), "a new password")
    db.session.rollback()
    accounts.request_reset("ann@example.org")
    accounts.register("ann@example.org", PASSWORD, "Ann")
    assert len(mails("reset_password")) == 1
    assert not mails("already_registered")
    accounts.enable(user.id)
    accounts.authenticate("ann@example.org", PASSWORD)


def test_a_password_kept_with_older_parameters_is_kept_anew(app: Flask) -> None:
    user = make_member()
    user.password_hash = PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1).hash(PASSWORD)
    db.session.commit()
    accounts.authenticate("ann@example.org", PASSWORD)
    assert not passwords.outdated(user.password_hash)
    assert passwords.right(user.password_hash, PASSWORD)


@pytest.mark.parametrize(
    "cookie", ["", ":", "1", "1:", ":1", "x:0", "1:0", "1:0:", "1:0:x", "99:0:{key}", "1:1:{key}", "{key}"]
)
def test_cookies_that_name_nobody(app: Flask, cookie: str) -> None:
    good = logins.begin(make_member())
    assert good.startswith("1:0:")
    assert logins.whose(good) is not None
    assert logins.whose(cookie.format(key=good.rpartition(":")[2])) is None


def test_a_login_ends_by_itself_and_is_forgotten(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    user = make_member()
    old, unused = logins.begin(user), logins.begin(user)
    # One that nobody uses is over before: that browser is somewhere else by now.
    later(monkeypatch, days=13.9)
    found = logins.look(old)
    assert found is not None and logins.whose(unused) == user
    logins.note_seen(found[0], logins.Browser())
    later(monkeypatch, days=0.2)
    assert (logins.whose(old), logins.whose(unused)) == (user, None)
    assert [kept.id for kept in logins.of(user)] == [found[0].id]
    later(monkeypatch, days=13)
    logins.note_seen(found[0], logins.Browser())
    later(monkeypatch, days=2.8)
    assert logins.whose(old) == user
    later(monkeypatch, days=0.2)
    assert logins.whose(old) is None
    new = logins.begin(user)
    assert logins.whose(new) == user
    assert [kept.key_hash in new for kept in db.session.scalars(select(Login))] == [False]


# --- Limits ---------------------------------------------------------------------------------------------


def fail(times: int, email: str = "ann@example.org", client_address: str = "192.0.2.1") -> None:
    for _ in range(times):
        with refusal("wrong_login"):
            accounts.authenticate(email, "wrong password", client_address=client_address)


def test_ten_wrong_passwords_stop_a_place_and_nobody_else(limited: Flask) -> None:
    """Anybody could lock the admin out with ten guesses."""
    user = make_member()
    make_member("bob@example.org")
    known = devices.dated(devices.LIVES)
    logins.begin(user, logins.Browser("Firefox", "192.0.2.1", known))
    fail(10)
    with refusal("too_many_attempts"):
        accounts.authenticate("ANN@example.org", PASSWORD, client_address="192.0.2.1")
    accounts.authenticate("bob@example.org", PASSWORD, client_address="192.0.2.1")
    accounts.authenticate("ann@example.org", PASSWORD, client_address="198.51.100.7")
    # Where the guesses came from there sits Ann, too, at the browser that she always uses.
    accounts.authenticate("ann@example.org", PASSWORD, client_address="192.0.2.1", device=known)
    # A cookie that is not hers is worth nothing.
    with refusal("too_many_attempts"):
        accounts.authenticate(
            "ann@example.org",
            PASSWORD,
            client_address="192.0.2.1",
            device=devices.dated(devices.LIVES),
        )


def test_a_hundred_guesses_from_everywhere_refuse_nobody(
    limited: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (rate_limits.LOGIN_EVERYWHERE.amount, rate_limits.LOGIN_EVERYWHERE.get_expiry()) == (100, 3600)
    monkeypatch.setattr(rate_limits.LOGIN_EVERYWHERE, "amount", 6)
    user = make_member()
    known = devices.dated(devices.LIVES)
    logins.begin(user, logins.Browser("Firefox", "192.0.2.1", known))
    # Who knows the password is no guess, however often.
    for number in range(8):
        accounts.authenticate("ann@example.org", PASSWORD, client_address=f"203.0.113.{number}")
    for number in range(6):
        fail(1, client_address=f"198.51.100.{number}")
        fail(1, "nobody@example.org", f"198.51.100.{number}")
    assert not mails("login_code")
    # From everywhere else a right guess opens nothing; a wrong one is told as ever, also of nobody.
    with refusal("code_needed"):
        accounts.authenticate("ann@example.org", PASSWORD, client_address="203.0.113.99")
    fail(1, client_address="203.0.113.99")
    fail(1, "nobody@example.org", "203.0.113.99")
    accounts.authenticate("ann@example.org", PASSWORD, client_address="203.0.113.1", device=known)
    [mail] = mails("login_code")
    assert mail.to == "ann@example.org"
    code = str(mail.context["code"])
    with refusal("wrong_code"):
        accounts.authenticate("ann@example.org", PASSWORD, code="00000000" if code != "00000000" else "1")
    # A code is for who knows the password, and works once.
    with refusal("wrong_login"):
        accounts.authenticate("ann@example.org", "wrong password", code=code)
    accounts.authenticate("ann@example.org", PASSWORD, code=f"{code[:4]} {code[4:]}")
    with refusal("wrong_code"):
        accounts.authenticate("ann@example.org", PASSWORD, code=code)


def test_mailed_codes_bear_few_tries_and_end_soon(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    user = make_member()
    made = [mailed_codes.make(user) for _ in range(mailed_codes.PER_HOUR + 1)]
    assert made[-1] is None
    code = str(made[0])
    assert len(code) == 8
    assert code not in str([kept.code_hash for kept in db.session.scalars(select(LoginCode))])
    assert not any(mailed_codes.take(user, "x") for _ in range(5))
    assert not mailed_codes.take(user, code)
    later(monkeypatch, hours=1)
    code = str(mailed_codes.make(user))
    assert not mailed_codes.take(make_member("bob@example.org"), code)
    with monkeypatch.context() as patch:
        later(patch, minutes=10)
        assert not mailed_codes.take(user, code)
    db.session.commit()
    whose = user.id
    done = at_once(app, 4, lambda _: mailed_codes.take(db.session.get_one(User, whose), code))
    assert sorted(str(one) for one in done) == ["False"] * 3 + ["True"]


@pytest.mark.parametrize(
    "written",
    [
        lambda n: " " * n + "ann@example.org",
        lambda n: "ann@example.org" + "\u00a0" * n + "\t",
        lambda n: "\n" * n + "Ann@Example.ORG" + " " * (3 * n),
        lambda n: "".join(c.upper() if n >> i & 1 else c for i, c in enumerate("ann@example.org")),
    ],
)
def test_an_address_has_one_count_however_it_is_written(
    limited: Flask, written: Callable[[int], str]
) -> None:
    user = make_member()
    for number in range(10):
        fail(1, written(number))
    with refusal("too_many_attempts"):
        accounts.authenticate(written(11), PASSWORD, client_address="192.0.2.1")
    # Guesses of the old password elsewhere are counted with them.
    with refusal("too_many_attempts"):
        accounts.change_password(user, PASSWORD, "a new password", client_address="192.0.2.1")


def test_an_address_that_is_too_long_is_nobody_s(limited: Flask) -> None:
    make_member()
    for blanks in (250, 5_000):
        with refusal("wrong_login"):
            accounts.authenticate(" " * blanks + "ann@example.org", PASSWORD)
    # Guesses at nobody are counted, too, so that the limit tells nothing.
    fail(10, "nobody@example.org")
    with refusal("too_many_attempts"):
        accounts.authenticate(" NOBODY@example.org", PASSWORD, client_address="192.0.2.1")


def test_the_right_password_begins_the_count_again(limited: Flask) -> None:
    make_member()
    for _ in range(3):
        fail(9)
        accounts.authenticate("ann@example.org", PASSWORD, client_address="192.0.2.1")


def test_a_reset_opens_a_stopped_account(limited: Flask) -> None:
    make_member()
    fail(10)
    accounts.request_reset("ann@example.org")
    accounts.reset(token_in("reset_password"), "a new password", client_address="192.0.2.1")
    accounts.authenticate("ann@example.org", "a new password", client_address="192.0.2.1")


def test_a_network_is_stopped_by_its_failures_alone(limited: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits.LOGIN_NETWORK, "amount", 5)
    make_member()
    for _ in range(8):
        accounts.authenticate("ann@example.org", PASSWORD, client_address="2001:db8::1")
    for number in range(5):
        fail(1, f"{number}@example.org", f"2001:db8::{number}")
    with refusal("too_many_attempts"):
        accounts.authenticate("ann@example.org", PASSWORD, client_address="2001:db8::9")
    accounts.authenticate("ann@example.org", PASSWORD, client_address="2001:db8:0:1::9")
    # As a front writes it that tells the port, too, and as IPv4 looks in IPv6.
    assert {network("192.0.2.7:4711"), network("::ffff:192.0.2.7"), network(" 192.0.2.7")} == {"192.0.2.7"}
    assert network("[2001:db8::9]:4711") == network("2001:db8::1") != network("2001:db8:0:1::1")
    # Where one address is most of the shop, a right password needs the code besides, and is not refused.
    monkeypatch.setattr(fronts, "is_shared", lambda place: place == network("2001:db8::1"))
    with refusal("code_needed"):
        accounts.authenticate("ann@example.org", PASSWORD, client_address="2001:db8::9")


def test_wrong_old_passwords_are_counted_too(limited: Flask) -> None:
    user = make_member()
    for _ in range(10):
        with refusal("wrong_password"):
            accounts.change_password(user, "wrong password", "a new password")
    with refusal("too_many_attempts"):
        accounts.change_password(user, PASSWORD, "a new password")


def test_limits_go_on_without_redis(limited: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "_redis", connect_redis("redis://127.0.0.1:1/0", timeout=1))
    user = make_member()
    fail(10)
    with refusal("too_many_attempts"):
        accounts.authenticate("ann@example.org", PASSWORD, client_address="192.0.2.1")
    accounts.reset(one_time_links.make(user, LinkPurpose.RESET).rsplit("/", 1)[1], "a new password")


def test_resets_are_three_an_hour(limited: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    make_member()
    seen = []
    for _ in range(5):
        accounts.request_reset("ann@example.org")
        seen.append(len(mails("reset_password")))
    assert seen == [1, 2, 3, 3, 3]
    # Those above it are answered by one, with a link that works then.
    later(monkeypatch, minutes=61)
    assert len(mails("reset_password")) == 4
    accounts.reset(token_in("reset_password"), "a new password")


def test_without_limits_nothing_is_counted(app: Flask) -> None:
    make_member()
    fail(12)
    accounts.authenticate("ann@example.org", PASSWORD)
    assert not queue.redis.keys("*kassa_login*")


# --- Passwords ------------------------------------------------------------------------------------------


def test_a_reset_sets_the_password_and_ends_other_sessions(app: Flask) -> None:
    user = make_member()
    cookie = logins.begin(user)
    accounts.request_reset("ANN@example.org")
    accounts.reset(token_in("reset_password"), "a new password")
    assert logins.whose(cookie) is None
    accounts.authenticate("ann@example.org", "a new password")
    with refusal("wrong_login"):
        accounts.authenticate("ann@example.org", PASSWORD)
    assert [mail.to for mail in mails("password_changed")] == ["ann@example.org"]


def test_a_refused_password_leaves_the_link_good(app: Flask) -> None:
    make_member()
    accounts.request_reset("ann@example.org")
    with refusal("password_short"):
        accounts.reset(token_in("reset_password"), "short")
    accounts.reset(token_in("reset_password"), "a new password")


def test_a_newer_reset_link_takes_the_place_of_older_ones(app: Flask) -> None:
    make_member()
    accounts.request_reset("ann@example.org")
    older = token_in("reset_password")
    accounts.request_reset("ann@example.org")
    assert len(mails("reset_password")) == 2
    with refusal("link_used"):
        accounts.reset(older, "a new password")
    accounts.reset(token_in("reset_password"), "a new password")


def test_an_unknown_address_gets_no_mail_and_no_other_answer(app: Flask) -> None:
    accounts.request_reset("nobody@example.org")
    assert not mails("reset_password")


def test_changing_a_password_needs_the_old_one_and_voids_links(app: Flask) -> None:
    user = make_member()
    accounts.request_reset("ann@example.org")
    link = token_in("reset_password")
    with refusal("wrong_password"):
        accounts.change_password(user, "wrong password", "a new password")
    cookie = logins.begin(user)
    accounts.change_password(user, PASSWORD, "a new password")
    assert logins.whose(cookie) is None
    assert len(mails("password_changed")) == 1
    with refusal("link_used"):
        accounts.reset(link, "yet another one")


def test_composed_and_decomposed_letters_are_one_password(app: Flask) -> None:
    make_member(password="gar\u00e7on caf\u00e9")
    accounts.authenticate("ann@example.org", "garc\u0327on cafe\u0301")


# --- Roles and admins -----------------------------------------------------------------------------------


def test_a_taken_address_is_not_made_again(app: Flask) -> None:
    make_member()
    with refusal("address_taken"):
        make_member("Ann@example.org")


def test_the_last_admin_stays(app: Flask) -> None:
    first = make_member("one@example.org", Role.ADMIN)
    with refusal("last_admin"):
        accounts.change_role(first.id, Role.BUYER)
    with refusal("last_admin"):
        accounts.disable(first.id)
    second = make_member("two@example.org", Role.ADMIN)
    accounts.change_role(first.id, Role.DOOR)
    assert first.role is Role.DOOR
    with refusal("last_admin"):
        accounts.disable(second.id)


def test_two_admins_cannot_both_demote_each_other(app: Flask) -> None:
    ids = [make_member(f"{n}@example.org", Role.ADMIN).id for n in range(2)]
    done = at_once(app, 2, lambda n: accounts.change_role(ids[n], Role.BUYER))
    assert sorted(isinstance(result, DomainError) for result in done) == [False, True]


def test_the_first_admin_gets_one_link_however_many_processes_start(in_production: Flask) -> None:
    printed = at_once(in_production, 5, lambda _: accounts.ensure_first_admin())
    given = [link for link in printed if link is not None]
    assert len(given) == 1
    assert isinstance(given[0], str)
    assert accounts.ensure_first_admin() is None
    boss = accounts.reset(given[0].rsplit("/", 1)[1], "the boss's password")
    assert (boss.email, boss.role) == ("boss@example.org", Role.ADMIN)
    assert boss.confirmed_at
    assert not mails("password_changed")
    assert accounts.ensure_first_admin() is None


def test_an_unused_first_link_is_followed_by_another_when_it_is_too_old(
    in_production: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert accounts.ensure_first_admin()
    later(monkeypatch, days=8)
    assert accounts.ensure_first_admin()


def test_no_first_admin_where_there_is_one_or_none_is_named(in_production: Flask) -> None:
    config.use(replace(config.get(), admin_email=""))
    assert accounts.ensure_first_admin() is None
    config.use(replace(config.get(), admin_email="boss@example.org"))
    make_member("other@example.org", Role.ADMIN)
    assert accounts.ensure_first_admin() is None
    assert accounts.find("boss@example.org") is None


def test_development_has_no_first_admin(app: Flask) -> None:
    config.use(replace(config.get(), admin_email="boss@example.org"))
    assert accounts.ensure_first_admin() is None


def test_an_admin_link_promotes_who_is_there_and_voids_the_one_before(app: Flask) -> None:
    user = make_member()
    accounts.disable(user.id)
    before = accounts.admin_link("Ann@example.org")
    after = accounts.admin_link("ann@example.org")
    assert (user.role, user.is_active) == (Role.ADMIN, True)
    with refusal("link_used"):
        accounts.reset(before.rsplit("/", 1)[1], "a new password")
    assert accounts.reset(after.rsplit("/", 1)[1], "a new password") == user


def test_a_member_is_found_by_an_address_only_when_it_is_confirmed(app: Flask) -> None:
    user = make_member(confirmed=False)
    assert accounts.by_confirmed_email("ann@example.org") is None
    user.confirmed_at = clock.now()
    assert accounts.by_confirmed_email("Ann@Example.org") == user
