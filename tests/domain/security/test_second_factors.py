"""Second factors by their rules: a code works once, guesses are few, and secrets follow the ring of keys."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from flask import Flask
from sqlalchemy import select

import config
from domain.errors import DomainError
from domain.people import factors
from domain.security import devices, logins, rate_limits, second_factors
from domain.security.guesses import Place
from extensions import db
from models import RecoveryCode, Role, SecondFactor, User
from tests.support.factors import Time, set_up
from tests.support.people import make_member
from tests.support.threads import at_once


@pytest.fixture
def time(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Time:
    config.use(replace(config.get(), development=False, limits=True))
    return Time(monkeypatch)


def refused(user: User, typed: str, address: str = "192.0.2.1", device: str = "") -> str:
    with pytest.raises(DomainError) as caught:
        factors.prove(user, typed, client_address=address, device=device)
    return caught.value.code


def test_of_one_code_shown_at_once_one_is_taken(app: Flask, time: Time) -> None:
    user = make_member("boss@example.org", Role.ADMIN)
    app_of = set_up(user)
    time.move(seconds=30)
    code, user_id = app_of.code, user.id
    db.session.commit()

    def one(number: int) -> bool:
        return second_factors.prove(db.session.get_one(User, user_id), code, Place(f"192.0.2.{number}"))

    done = at_once(app, 5, one)
    assert [outcome for outcome in done if outcome is False] == [False]
    # An earlier code, that nobody has used, is none any more either.
    time.move(seconds=-30)
    assert refused(user, app_of.code) == "wrong_code"


def test_guesses_have_limits_of_their_own_and_keep_nobody_out(
    app: Flask, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limits.CODE_EVERYWHERE, "amount", 12)
    user = make_member("boss@example.org", Role.ADMIN)
    app_of = set_up(user)
    known = devices.dated(devices.LIVES)
    logins.begin(user, logins.Browser("Firefox", "203.0.113.1", known))
    time.move(seconds=30)
    assert [refused(user, "000000") for _ in range(10)] == ["wrong_code"] * 10
    assert refused(user, app_of.code) == "too_many_codes"
    factors.prove(user, app_of.code, client_address="198.51.100.7")
    time.move(seconds=30)
    for number in range(3):
        refused(user, "000000", f"198.51.100.{number}")
    # Six digits are too few now for a browser that was never here; paper and the owner's own browser are not.
    assert refused(user, app_of.code, "203.0.113.9") == "too_many_codes"
    factors.prove(user, app_of.sheet[1], client_address="203.0.113.9")
    factors.prove(user, app_of.code, client_address="203.0.113.1", device=known)


def test_secrets_are_sealed_anew_under_another_key(app: Flask, time: Time) -> None:
    user = make_member("boss@example.org", Role.ADMIN)
    app_of = set_up(user)
    before = db.session.scalars(select(SecondFactor.sealed)).one()
    old, new = "an old key that is long enough", "a new key that is long enough"
    config.use(replace(config.get(), token_keys=(new, old)))
    assert second_factors.reseal() == (1, 0)
    assert db.session.scalars(select(SecondFactor.sealed)).one() != before
    config.use(replace(config.get(), token_keys=(new,), secret_key="another secret key altogether"))
    time.move(seconds=30)
    factors.prove(user, app_of.code)
    # Without the key nothing is guessed at: it is said, and the paper still opens.
    config.use(replace(config.get(), token_keys=("a third key that is long enough",)))
    time.move(seconds=30)
    assert refused(user, app_of.code) == "factor_unreadable"
    assert second_factors.reseal() == (0, 1)
    factors.prove(user, app_of.sheet[1])


def test_another_app_takes_the_place_of_the_old_one_only_with_a_new_sheet(app: Flask, time: Time) -> None:
    user = make_member("boss@example.org", Role.ADMIN)
    old = set_up(user)
    time.move(seconds=30)
    second_factors.begin_app(user)
    factors.prove(user, old.code)
    time.move(seconds=30)
    new = set_up(user)
    time.move(seconds=30)
    assert refused(user, old.code) == "wrong_code"
    assert refused(user, old.sheet[2]) == "wrong_code"
    factors.prove(user, new.code)
    factors.prove(user, new.sheet[0])
    assert second_factors.codes_left(user) == 9


def test_a_sheet_of_the_version_before_still_works_once(app: Flask, time: Time) -> None:
    user = make_member(role=Role.ADMIN)
    set_up(user)
    printed = "ABCD-EFGH-JKLM-NPQR"
    kept = hashlib.sha256(b"recovery:ABCDEFGHJKLMNPQR").hexdigest()
    db.session.add(
        RecoveryCode(user_id=user.id, code_hash=kept, created_at=time.now(), confirmed_at=time.now())
    )
    db.session.commit()
    other = make_member("bob@example.org", Role.ADMIN)
    set_up(other)
    assert refused(other, printed) == "wrong_code"
    factors.prove(user, printed.lower().replace("-", " "), client_address="192.0.2.1")
    assert refused(user, printed) == "wrong_code"
