"""Access tokens and refresh tokens: what opens, for how long, and what a thief gets."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import timedelta

import jwt
import pytest
from flask import Flask
from sqlalchemy import func, select

import config
from domain import clock
from domain.office import retention
from domain.people import accounts
from domain.security import api_tokens
from domain.security.api_tokens import BadToken
from extensions import db
from models import ApiRefreshToken, ApiSession, User
from tests.support.people import PASSWORD, make_member
from tests.support.threads import at_once


def later(monkeypatch: pytest.MonkeyPatch, **how_much: float) -> None:
    moment = clock.now() + timedelta(**how_much)
    monkeypatch.setattr(clock, "now", lambda: moment)


def opens(token: str) -> User:
    return api_tokens.whose(api_tokens.session_of(token))


def code_of(token: str) -> str:
    with pytest.raises(BadToken) as refused:
        opens(token)
    return refused.value.code


@pytest.fixture
def member(app: Flask) -> User:
    return make_member()


# --- Access tokens --------------------------------------------------------------------------------------


def test_it_opens_for_ten_minutes(member: User, monkeypatch: pytest.MonkeyPatch) -> None:
    token = api_tokens.begin(member).access
    assert opens(token).id == member.id
    later(monkeypatch, minutes=9, seconds=58)
    assert opens(token).id == member.id
    later(monkeypatch, seconds=2)
    assert code_of(token) == "token_expired"


def test_what_it_says(member: User) -> None:
    token = api_tokens.begin(member).access
    header = jwt.get_unverified_header(token)
    claims = jwt.decode(token, options={"verify_signature": False})
    assert (header["alg"], header["typ"]) == ("HS256", "at+jwt")
    assert header["kid"]
    assert (claims["iss"], claims["aud"]) == ("http://localhost", "http://localhost/api/v1")
    assert claims["exp"] - claims["iat"] == 600
    # Nothing of the member: neither who they are, nor the number of their row.
    assert set(claims) == {"iss", "aud", "sub", "iat", "exp"}
    assert claims["sub"].startswith("session_")


def test_whatever_ends_the_login_ends_its_tokens(member: User) -> None:
    by_password, by_revocation, by_all = (api_tokens.begin(member) for _ in range(3))
    api_tokens.revoke(by_revocation.refresh)
    assert code_of(by_revocation.access) == "token_revoked"
    assert opens(by_password.access).id == member.id
    accounts.change_password(member, PASSWORD, "four green bottles")
    for pair in (by_password, by_all):
        assert code_of(pair.access) == "token_revoked"
        with pytest.raises(BadToken):
            api_tokens.refresh(pair.refresh)
    again, other = api_tokens.begin(member), api_tokens.begin(member)
    api_tokens.end_all(member)
    assert {code_of(again.access), code_of(other.access)} == {"token_revoked"}
    last = api_tokens.begin(member)
    accounts.disable(member.id)
    assert code_of(last.access) == "token_revoked"


def forged(
    token: str, *, key: bytes | str = b"", header: dict[str, object] | None = None, **claims: object
) -> str:
    """A token like this one, with other claims and another header, signed with `key`."""
    said = jwt.decode(token, options={"verify_signature": False}) | claims
    kept = {name: value for name, value in said.items() if value is not None}
    head = {**jwt.get_unverified_header(token), **(header or {})}
    head = {name: value for name, value in head.items() if value is not None}
    return jwt.encode(kept, key or _key(), algorithm=str(head.pop("alg", "HS256")), headers=head)


def _key() -> bytes:
    return next(iter(api_tokens._ring().values()))


def without_signature(token: str, alg: str) -> str:
    header = {**jwt.get_unverified_header(token), "alg": alg}
    said = base64.urlsafe_b64encode(json.dumps(header).encode()).decode().rstrip("=")
    return f"{said}.{token.split('.')[1]}."


def test_forged_ones_open_nothing(member: User) -> None:
    token = api_tokens.begin(member).access
    assert opens(forged(token)).id == member.id, "the forgery is well made"
    header, claims, signature = token.split(".")
    wrong = {
        "alg none": without_signature(token, "none"),
        "alg None": without_signature(token, "None"),
        "alg none, signed": forged(token).replace(header, without_signature(token, "none").split(".")[0]),
        "another algorithm of the same key": forged(token, header={"alg": "HS512"}),
        "another key": forged(token, key=b"x" * 32),
        "the SECRET_KEY itself": forged(token, key=config.get().secret_key.encode().ljust(32, b"\0")),
        "a key of another purpose": forged(token, key=config.get().derived_key("tokens")),
        "no kid": forged(token, header={"kid": None}),
        "a kid that is a path": forged(token, header={"kid": "../../dev/null"}),
        "an unknown kid": forged(token, header={"kid": "0" * 12}),
        "another typ": forged(token, header={"typ": "JWT"}),
        "another site's": forged(token, iss="https://evil.example"),
        "for another audience": forged(token, aud="http://localhost"),
        "no audience": forged(token, aud=None),
        "no end": forged(token, exp=None),
        "an end in words": forged(token, exp="2099"),
        "no subject": forged(token, sub=None),
        "a number as subject": forged(token, sub=1),
        "another's claims under this signature": f"{header}.{claims[:-2]}AA.{signature}",
        "no signature": f"{header}.{claims}.",
        "half of it": f"{header}.{claims}",
        "nothing": "",
        "no token": "a.b.c",
        "five parts": f"{token}.x.y",
        "a header without an end": f"{base64.urlsafe_b64encode(b'[' * 9000).decode()}.x.y",
        "a header that is a list": f"{base64.urlsafe_b64encode(b'[]').decode()}.x.y",
        "a refresh token": api_tokens.begin(member).refresh,
    }
    assert {name: code_of(text) for name, text in wrong.items()} == dict.fromkeys(wrong, "token_invalid")
    assert code_of(forged(token, sub="session_" + "0" * 32)) == "token_revoked"


def test_keys_are_changed_in_a_ring(app: Flask, member: User) -> None:
    before, settings = api_tokens.begin(member).access, config.get()
    config.use(replace(settings, token_keys=("new key " * 5,)))
    middle = api_tokens.begin(member).access
    assert jwt.get_unverified_header(before)["kid"] != jwt.get_unverified_header(middle)["kid"]
    config.use(replace(settings, token_keys=("newest key " * 5, "new key " * 5)))
    assert {opens(before).id, opens(middle).id, opens(api_tokens.begin(member).access).id} == {member.id}
    config.use(replace(settings, token_keys=("newest key " * 5,)))
    assert code_of(middle) == "token_invalid"


# --- Refresh tokens -------------------------------------------------------------------------------------


def test_each_is_used_once_and_makes_the_next(member: User, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = api_tokens.begin(member)
    for _ in range(3):
        later(monkeypatch, minutes=20)
        following = api_tokens.refresh(pair.refresh)
        assert following.refresh != pair.refresh
        assert following.expires_at == pair.expires_at
        assert opens(following.access).id == member.id
        pair = following
    later(monkeypatch, days=30)
    with pytest.raises(BadToken, match="ended"):
        api_tokens.refresh(pair.refresh)


def test_only_hashes_are_kept(member: User) -> None:
    pair = api_tokens.begin(member)
    second = api_tokens.refresh(pair.refresh)
    kept = set(db.session.scalars(select(ApiRefreshToken.token_hash)))
    assert len(kept) == 2
    assert not kept & {pair.refresh, second.refresh}


def test_reuse_ends_the_whole_login(member: User, monkeypatch: pytest.MonkeyPatch) -> None:
    other = api_tokens.begin(member)
    first = api_tokens.begin(member)
    second = api_tokens.refresh(first.refresh)
    later(monkeypatch, seconds=11)
    with pytest.raises(BadToken) as refused:
        api_tokens.refresh(first.refresh)
    assert refused.value.code == "refresh_reused"
    assert code_of(second.access) == "token_revoked"
    with pytest.raises(BadToken):
        api_tokens.refresh(second.refresh)
    # Another login of the same member goes on.
    assert opens(api_tokens.refresh(other.refresh).access).id == member.id


def test_a_repeat_within_seconds_gets_a_token_that_works(
    member: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = api_tokens.begin(member)
    second = api_tokens.refresh(first.refresh)
    later(monkeypatch, seconds=9)
    again = api_tokens.refresh(first.refresh)
    assert again.refresh == second.refresh
    # Even where somebody has gone on with it meanwhile.
    third = api_tokens.refresh(second.refresh)
    assert api_tokens.refresh(first.refresh).refresh == third.refresh
    later(monkeypatch, minutes=5)
    assert opens(api_tokens.refresh(third.refresh).access).id == member.id


@pytest.mark.parametrize("token", ["", "refresh_", "x" * 200, "refresh_\ud800"])
def test_what_was_never_a_refresh_token(member: User, token: str) -> None:
    pair = api_tokens.begin(member)
    with pytest.raises(BadToken) as refused:
        api_tokens.refresh(token)
    assert refused.value.code == "refresh_unknown"
    with pytest.raises(BadToken):
        api_tokens.refresh(pair.access)
    api_tokens.revoke(token)
    assert opens(pair.access).id == member.id


def test_many_at_once_turn_it_once(app: Flask, member: User) -> None:
    """Without the lock two of them find the token unused, and both make the next one."""
    first = api_tokens.begin(member)
    pairs = at_once(app, 6, lambda number: api_tokens.refresh(first.refresh))
    assert not [pair for pair in pairs if isinstance(pair, BaseException)], pairs
    assert len({pair.refresh for pair in pairs if not isinstance(pair, BaseException)}) == 1
    assert db.session.scalar(select(func.count()).select_from(ApiRefreshToken)) == 2


def test_what_is_over_is_forgotten(member: User, monkeypatch: pytest.MonkeyPatch) -> None:
    old = api_tokens.begin(member)
    api_tokens.refresh(old.refresh)
    later(monkeypatch, days=4)
    young = api_tokens.begin(member)
    retention.forget()
    assert db.session.scalar(select(func.count()).select_from(ApiRefreshToken)) == 2
    assert len(api_tokens.of(member)) == 2
    later(monkeypatch, days=27)
    retention.forget()
    assert db.session.scalars(select(ApiSession.expires_at)).all() == [young.expires_at]
