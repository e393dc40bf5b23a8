"""Logging in: who is told what, and until when a login lasts."""

from __future__ import annotations

from typing import Any

import pytest
from argon2 import PasswordHasher
from flask import Flask
from sqlalchemy import select

from domain.people import accounts
from domain.security import (
    logins,
)
from extensions import db
from models import Login
from tests.support.people import PASSWORD, later, mails, make_member, refusal, token_in


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
