"""API keys: what they may do, and never more than their owner may now."""

from __future__ import annotations

from datetime import timedelta

import pytest
from flask import Flask
from sqlalchemy import select

from domain import clock
from domain.errors import DomainError, NotFound
from domain.people import accounts, api_access
from domain.security import api_keys, scopes
from domain.security.api_tokens import BadToken
from domain.security.scopes import Scope
from extensions import db
from models import ApiKey, Role, User
from tests.support.people import mails, make_member
from tests.support.threads import at_once


@pytest.fixture
def member(app: Flask) -> User:
    return make_member(role=Role.ADMIN)


def made(user: User, *wanted: str, days: int = 30) -> tuple[ApiKey, str]:
    return api_access.make_key(user, "Box office", wanted or [Scope.WALLET_READ], days)


def test_it_is_shown_once_and_kept_as_a_hash(member: User) -> None:
    key, text = made(member)
    assert text.startswith(f"{key.prefix}_")
    assert text not in str(db.session.execute(select(ApiKey.__table__)).mappings().all())
    assert api_keys.whose(text).id == key.id
    [mail] = mails("api_key_made")
    assert (mail.to, mail.context["prefix"]) == (member.email, key.prefix)
    assert text not in str(mail.context)


def test_it_may_do_what_it_was_given_as_far_as_its_owner_may(member: User) -> None:
    make_member("boss@example.org", Role.ADMIN)
    key, text = made(member, "admin:payments", "payments:read")
    assert api_keys.allows(key, Scope.ADMIN_PAYMENTS)
    assert not api_keys.allows(key, Scope.PAYMENTS_WRITE)
    _, own = made(member, "payments:read")
    accounts.change_role(member.id, Role.BUYER)
    db.session.expire_all()
    # What it was given goes with the role, and does not come back with it. A key for one's own things stays.
    assert refused_with(text) == "key_revoked"
    assert api_keys.allows(api_keys.whose(own), Scope.PAYMENTS_READ)
    accounts.change_role(member.id, Role.ADMIN)
    assert refused_with(text) == "key_revoked"


def test_every_scope_has_its_words_and_an_admin_has_them_all() -> None:
    assert set(scopes.WORDS) == set(Scope) == scopes.of_role(Role.ADMIN)
    assert Scope.TICKETS_CHECK_IN in scopes.of_role(Role.DOOR)
    assert not {Scope.TICKETS_CHECK_IN, Scope.ADMIN_PAYMENTS, Scope.ADMIN_STATISTICS} & scopes.of_role(
        Role.BUYER
    )


def refused_with(text: str) -> str:
    with pytest.raises(BadToken) as refused:
        api_keys.whose(text)
    return refused.value.code


def test_it_ends(member: User, monkeypatch: pytest.MonkeyPatch) -> None:
    make_member("boss@example.org", Role.ADMIN)
    codes = {}
    key, text = made(member)
    api_keys.revoke(member, key.public_id)
    codes["key_revoked"] = refused_with(text)
    codes["key_unknown"] = refused_with(text[:-1])
    key, text = made(member, days=1)
    moment = clock.now() + timedelta(days=1)
    monkeypatch.setattr(clock, "now", lambda: moment)
    codes["key_expired"] = refused_with(text)
    assert codes == {name: name for name in codes}
    _, text = made(member)
    accounts.disable(member.id)
    assert refused_with(text) == "key_revoked"


@pytest.mark.parametrize(
    ("name", "wanted", "days", "code"),
    [
        ("", ["wallet:read"], 30, "name_missing"),
        ("x" * 101, ["wallet:read"], 30, "name_too_long"),
        ("Server", [], 30, "scopes_missing"),
        ("Server", ["everything"], 30, "scope_unknown"),
        ("Server", ["admin:payments"], 30, "scope_unknown"),
        ("Server", ["wallet:read"], 0, "days"),
        ("Server", ["wallet:read"], 367, "days"),
    ],
)
def test_refused(app: Flask, name: str, wanted: list[str], days: int, code: str) -> None:
    with pytest.raises(DomainError) as refused:
        api_access.make_key(make_member(), name, wanted, days)
    assert refused.value.code == code


def test_there_are_not_too_many_even_at_once(app: Flask, member: User) -> None:
    for _ in range(api_keys.MOST_KEYS - 1):
        api_keys.make(member, "Server", ["wallet:read"], 30)
    db.session.commit()
    mine = member.id
    got = at_once(app, 4, lambda number: made(db.session.get_one(User, mine)))
    assert sum(not isinstance(each, BaseException) for each in got) == 1
    assert len(api_keys.living(member)) == api_keys.MOST_KEYS


def test_use_is_noted_once_a_minute(member: User, monkeypatch: pytest.MonkeyPatch) -> None:
    key, text = made(member)
    for seconds, noted in ((0, 0), (59, 0), (61, 61), (100, 61)):
        start = key.created_at
        monkeypatch.setattr(clock, "now", lambda at=start + timedelta(seconds=seconds): at)
        api_keys.note_use(api_keys.whose(text))
        db.session.expire_all()
        assert key.last_used_at == start + timedelta(seconds=noted)


def test_anothers_key_is_not_there(member: User) -> None:
    key, text = made(member)
    with pytest.raises(NotFound):
        api_keys.revoke(make_member("other@example.org"), key.public_id)
    assert api_keys.whose(text).id == key.id
