"""Mailed links: each works once, for its purpose, until its time is over."""

from __future__ import annotations

import pytest
from flask import Flask
from sqlalchemy import select

from domain.errors import DomainError, NotFound
from domain.people import accounts
from domain.security import (
    one_time_links,
)
from extensions import db
from models import LinkPurpose, OneTimeLink, User
from tests.support.people import PASSWORD, later, make_member, refusal, registered, token_in
from tests.support.threads import at_once


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
