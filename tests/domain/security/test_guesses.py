"""Guesses at passwords: counted by account, place and network, and nobody is refused for what others did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from flask import Flask
from sqlalchemy import select

import config
from domain.people import accounts
from domain.security import (
    devices,
    fronts,
    logins,
    mailed_codes,
    one_time_links,
    rate_limits,
)
from extensions import connect_redis, db, network, queue
from models import LinkPurpose, LoginCode, User
from tests.support.people import PASSWORD, later, mails, make_member, refusal, token_in
from tests.support.threads import at_once


@pytest.fixture
def limited(app: Flask) -> Flask:
    """The application with its limits on."""
    config.use(replace(config.get(), limits=True))
    return app


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
    made = [mailed_codes.make(user, "here", "192.0.2.1") for _ in range(mailed_codes.PER_HOUR + 1)]
    assert made[-1] is None
    code = str(made[0])
    assert len(code) == 8
    assert code not in str([kept.code_hash for kept in db.session.scalars(select(LoginCode))])
    assert not any(mailed_codes.take(user, "x", "here") for _ in range(5))
    assert not mailed_codes.take(user, code, "here")
    later(monkeypatch, hours=1)
    code = str(mailed_codes.make(user, "here", "192.0.2.1"))
    assert not mailed_codes.take(make_member("bob@example.org"), code, "here")
    with monkeypatch.context() as patch:
        later(patch, minutes=10)
        assert not mailed_codes.take(user, code, "here")
    db.session.commit()
    whose = user.id
    done = at_once(app, 4, lambda _: mailed_codes.take(db.session.get_one(User, whose), code, "here"))
    assert sorted(str(one) for one in done) == ["False"] * 3 + ["True"]


def test_a_stranger_who_knows_the_password_uses_up_neither_codes_nor_tries(limited: Flask) -> None:
    """Five wrong codes, or five codes asked for, kept the owner waiting for an hour."""
    user = make_member()
    code = str(mailed_codes.make(user, "the owner's browser", "203.0.113.1"))
    asked = [mailed_codes.make(user, f"a thief's browser {n}", "198.51.100.7") for n in range(7)]
    assert [one is not None for one in asked] == [True] * 5 + [False] * 2
    db.session.commit()
    for number in range(5):
        assert not any(mailed_codes.take(user, "x", f"a thief's browser {number}") for _ in range(6))
    # Told on the telephone it opens no other browser.
    assert not mailed_codes.take(user, code, "a thief's browser 6")
    assert mailed_codes.make(user, "the owner's browser", "203.0.113.1") is not None
    assert mailed_codes.take(user, code, "the owner's browser")


def test_ten_guesses_through_a_proxy_that_nobody_told_us_of_lock_nobody_out(
    limited: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then all of the internet is one place, and anybody could."""
    monkeypatch.setattr(fronts, "is_shared", lambda place: place == "10.0.0.1")
    make_member()
    fail(11, client_address="10.0.0.1")
    with refusal("code_needed"):
        accounts.authenticate("ann@example.org", PASSWORD, client_address="10.0.0.1", asked_in="here")
    # The same again, by who has no code: a right password wipes nothing out.
    with refusal("code_needed"):
        accounts.authenticate("ann@example.org", PASSWORD, client_address="10.0.0.1", asked_in="elsewhere")
    code = str(mails("login_code")[0].context["code"])
    with refusal("wrong_code"):
        accounts.authenticate(
            "ann@example.org", PASSWORD, client_address="10.0.0.1", code=code, asked_in="elsewhere"
        )
    accounts.authenticate("ann@example.org", PASSWORD, client_address="10.0.0.1", code=code, asked_in="here")


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
