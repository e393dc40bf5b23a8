"""A second factor: what a member shows beside the password, and the printed codes for the day it is lost.

An app that counts codes (TOTP) comes first; passkeys are an addition to it (passkeys.py). It counts from the
moment at which its owner has shown a code of the app and one from the printed sheet: before that nobody is
asked for it. The app's secret is sealed as other secrets here are; of codes on paper only hashes are kept.

A code of the app works once: of all that were shown the latest half minute is kept, and an earlier one, or
the same, is none. Guesses are counted at an account from one place, and from everywhere. Above the latter the
app's six digits are too few for a browser that was never here; a printed code and a passkey never are.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import pyotp
from pyotp.utils import strings_equal
from sqlalchemy import ColumnElement, delete, func, or_, select, update

import config
from domain import addresses, clock
from domain.errors import DomainError
from domain.security import keyring, one_time_links, passwords, rate_limits
from domain.security.guesses import Place
from extensions import db
from models import FactorKind, RecoveryCode, SecondFactor, User

# A proof is good for so long where somebody only goes on working; a deed that opens doors needs one from now.
GOOD_FOR = timedelta(hours=12)
JUST_NOW = timedelta(minutes=5)
RECOVERY_CODES = 10
_STEP_SECONDS = 30
# A phone's clock may be so many half minutes away from ours.
_DRIFT = 1
_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
_CODE_LETTERS = 16


@dataclass(frozen=True)
class App:
    """An app that is being set up: its secret, as one types it, and as its picture says it."""

    secret: str
    uri: str


# --- Who shows one --------------------------------------------------------------------------------------


def counts_for(user: User) -> bool:
    """Whether this member is asked for one. Of whom it is wanted, domain/people/factors.py says."""
    return user.second_factor_at is not None


def is_good(proved_at: datetime | None, age: timedelta) -> bool:
    """Whether a proof is no older than this."""
    return proved_at is not None and clock.now() - proved_at <= age


# --- Setting up -----------------------------------------------------------------------------------------


def begin_app(user: User) -> None:
    """A new app for this member, which does not count yet; it takes the place of another such. Commits."""
    one_time_links.lock(user.id)
    _drop(user, SecondFactor.kind == FactorKind.TOTP, SecondFactor.confirmed_at.is_(None))
    db.session.add(
        SecondFactor(
            user_id=user.id,
            kind=FactorKind.TOTP,
            name="App",
            sealed=keyring.seal(pyotp.random_base32()),
            public_key="",
            sign_count=0,
            host="",
            created_at=clock.now(),
        )
    )
    db.session.commit()


def new_app(user: User) -> App | None:
    """The app that is being set up, if one is."""
    row = _app(user, confirmed=False)
    if row is None:
        return None
    counter = _counter(row)
    issuer = config.get().site_name.replace(":", " ")
    uri = counter.provisioning_uri(name=addresses.shown(user.email), issuer_name=issuer)
    return App(counter.secret, uri)


def try_new_app(user: User, typed: str) -> None:
    """A code of the app that is being set up shows that it counts as we do. Commits. DomainError."""
    row = _app(user, confirmed=False)
    if row is None:
        raise DomainError("no_app", "Begin again: nothing is being set up.")
    if not _use_step(row, typed):
        db.session.rollback()
        raise DomainError(
            "wrong_code",
            "That is not the app's code of this moment. Wait for the next one; if that is wrong, too, see "
            "that the phone's clock is set by itself.",
        )
    db.session.commit()


def print_codes(user: User) -> list[str]:
    """Ten new codes for the sheet, which count once one of them was typed: `finish`. Commits."""
    codes, salt = [_code() for _ in range(RECOVERY_CODES)], secrets.token_hex(8)
    # A sheet has one salt, so that what is typed is hashed once to be looked for. It takes its time: before
    # the lock.
    hashes = [_hashed(_signs(code), salt) for code in codes]
    one_time_links.lock(user.id)
    _drop_codes(user, confirmed=False)
    now = clock.now()
    db.session.add_all(RecoveryCode(user_id=user.id, code_hash=kept, created_at=now) for kept in hashes)
    db.session.commit()
    return codes


def finish(user: User, typed: str) -> bool:
    """A code from the new sheet shows that it was printed: it counts, and so does the new app. No commit.

    Whether something began to count that did not before: the first factor, or another app. DomainError.
    """
    user = one_time_links.lock(user.id)
    if _printed(user, typed, RecoveryCode.confirmed_at.is_(None)) is None:
        raise DomainError("wrong_code", "That is no code of the sheet above. Copy one from the paper.")
    app = _app(user, confirmed=False)
    tried = app is not None and app.last_step is not None
    if user.second_factor_at is None and not tried:
        raise DomainError("no_app", "Set up the app first.")
    now = clock.now()
    _drop_codes(user, confirmed=True)
    db.session.execute(
        update(RecoveryCode)
        .where(RecoveryCode.user_id == user.id)
        .values(confirmed_at=now)
        .execution_options(synchronize_session=False)
    )
    if app is None or not tried:
        return False
    _drop(user, SecondFactor.kind == FactorKind.TOTP, SecondFactor.confirmed_at.is_not(None))
    app.confirmed_at = now
    user.second_factor_at = user.second_factor_at or now
    user.second_factor_due = None
    db.session.flush()
    return True


def reset(user: User) -> bool:
    """Take every factor and sheet of a member away: they are lost. Whether any counted. No commit.

    Who had none that counted keeps what is left of their time to set one up.
    """
    counted = user.second_factor_at is not None
    _drop(user)
    db.session.execute(
        delete(RecoveryCode)
        .where(RecoveryCode.user_id == user.id)
        .execution_options(synchronize_session=False)
    )
    if counted:
        user.second_factor_at = user.second_factor_due = None
    return counted


# --- Showing it -----------------------------------------------------------------------------------------


def prove(user: User, typed: str, place: Place) -> bool:
    """Take a code of the app, or one from the sheet, which is used up. Commits. True for one from the sheet.

    DomainError `wrong_code`, and `too_many_codes` where no guess is taken.
    """
    at, everywhere = f"{user.id}@{place.counted}", str(user.id)
    if not rate_limits.count(rate_limits.CODE_ACCOUNT, f"factor:{at}"):
        raise DomainError("too_many_codes", "Too many wrong codes. Wait 15 minutes, then try again.")
    if _use_printed(user, typed):
        rate_limits.forget(rate_limits.CODE_ACCOUNT, f"factor:{at}")
        return True
    few = not rate_limits.count(rate_limits.CODE_EVERYWHERE, everywhere) and not place.device
    if few:
        raise DomainError(
            "too_many_codes",
            "Too many wrong codes were tried for this account today, so the app's code is not enough here: "
            "use a passkey, a code of your printed sheet, or a device that you have logged in with before.",
        )
    row = _app(user, confirmed=True)
    if row is None or not _use_step(row, typed):
        db.session.rollback()
        raise DomainError(
            "wrong_code",
            "That code is not right. Each works once, for half a minute: type the one shown now.",
        )
    db.session.commit()
    rate_limits.forget(rate_limits.CODE_ACCOUNT, f"factor:{at}")
    rate_limits.give_back(rate_limits.CODE_EVERYWHERE, everywhere)
    return False


def _use_step(row: SecondFactor, typed: str) -> bool:
    """Whether this is the app's code of now, and later than any shown: then it is used up. No commit."""
    digits = "".join(sign for sign in typed if sign.isdecimal() and sign.isascii())
    counter, now = _counter(row), int(clock.now().timestamp()) // _STEP_SECONDS
    steps = range(now - _DRIFT, now + _DRIFT + 1)
    # All are compared, so that the time tells nothing.
    right = [step for step in steps if strings_equal(digits, counter.generate_otp(step))]
    if not right:
        return False
    used = db.session.execute(
        update(SecondFactor)
        .where(
            SecondFactor.id == row.id,
            or_(SecondFactor.last_step.is_(None), SecondFactor.last_step < right[-1]),
        )
        .values(last_step=right[-1], last_used_at=clock.now())
        .returning(SecondFactor.id)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    return used is not None


def _use_printed(user: User, typed: str) -> bool:
    """Whether this is a code of the sheet that was not used yet; then it is. Commits where it is."""
    unused = (RecoveryCode.confirmed_at.is_not(None), RecoveryCode.used_at.is_(None))
    found = _printed(user, typed, *unused)
    if found is None:
        return False
    used = db.session.execute(
        update(RecoveryCode)
        .where(RecoveryCode.id == found, *unused)
        .values(used_at=clock.now())
        .returning(RecoveryCode.id)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if used is not None:
        db.session.commit()
    return used is not None


# --- What there is --------------------------------------------------------------------------------------


def of(user: User) -> Sequence[SecondFactor]:
    """What counts for this member, the app first."""
    query = select(SecondFactor).where(
        SecondFactor.user_id == user.id, SecondFactor.confirmed_at.is_not(None)
    )
    return db.session.scalars(query.order_by(SecondFactor.kind.desc(), SecondFactor.id)).all()


def codes_left(user: User) -> int:
    """How many codes of the sheet were not used yet."""
    query = select(func.count()).where(
        RecoveryCode.user_id == user.id,
        RecoveryCode.confirmed_at.is_not(None),
        RecoveryCode.used_at.is_(None),
    )
    return db.session.scalar(query) or 0


def reseal() -> tuple[int, int]:
    """Every app's secret under the first key of the ring: how many, and how many no key opens. Commits."""
    done = unread = 0
    for row in db.session.scalars(select(SecondFactor).where(SecondFactor.sealed != "").with_for_update()):
        try:
            row.sealed = keyring.reseal(row.sealed)
            done += 1
        except keyring.Unreadable:
            unread += 1
    db.session.commit()
    return done, unread


def _app(user: User, *, confirmed: bool) -> SecondFactor | None:
    query = select(SecondFactor).where(SecondFactor.user_id == user.id, SecondFactor.kind == FactorKind.TOTP)
    counts = SecondFactor.confirmed_at
    query = query.where(counts.is_not(None) if confirmed else counts.is_(None))
    return db.session.scalar(query.execution_options(populate_existing=True))


def _counter(row: SecondFactor) -> pyotp.TOTP:
    try:
        return pyotp.TOTP(keyring.unseal(row.sealed), interval=_STEP_SECONDS)
    except keyring.Unreadable as error:
        raise DomainError(
            "factor_unreadable",
            "This app's secret cannot be read any more (a key was taken out of TOKEN_KEYS). Use a code from "
            "your printed sheet, then set the app up anew.",
        ) from error


def _drop(user: User, *which: object) -> None:
    statement = delete(SecondFactor).where(SecondFactor.user_id == user.id, *which)  # type: ignore[arg-type]
    db.session.execute(statement.execution_options(synchronize_session="fetch"))


def _drop_codes(user: User, *, confirmed: bool) -> None:
    counts = RecoveryCode.confirmed_at
    db.session.execute(
        delete(RecoveryCode)
        .where(RecoveryCode.user_id == user.id, counts.is_not(None) if confirmed else counts.is_(None))
        .execution_options(synchronize_session=False)
    )


def _code() -> str:
    """Sixteen letters and digits that look like no others, in fours: 80 bits."""
    signs = "".join(secrets.choice(_LETTERS) for _ in range(_CODE_LETTERS))
    return "-".join(signs[place : place + 4] for place in range(0, _CODE_LETTERS, 4))


def _printed(user: User, typed: str, *which: ColumnElement[bool]) -> int | None:
    """The id of the printed code that this is, among those of theirs."""
    signs = _signs(typed)
    if len(signs) != _CODE_LETTERS:
        return None
    query = select(RecoveryCode.id, RecoveryCode.code_hash).where(RecoveryCode.user_id == user.id, *which)
    rows = db.session.execute(query).all()
    made = {salt: _hashed(signs, salt) for salt in {row.code_hash.rpartition(":")[0] for row in rows}}
    right = [
        row.id for row in rows if hmac.compare_digest(row.code_hash, made[row.code_hash.rpartition(":")[0]])
    ]
    return right[0] if right else None


def _signs(typed: str) -> str:
    return "".join(sign for sign in typed.upper() if sign in _LETTERS)


def _hashed(signs: str, salt: str) -> str:
    """What is kept of a code. Sheets that were printed by the version before have no salt."""
    if not salt:
        return hashlib.sha256(f"recovery:{signs}".encode()).hexdigest()
    return f"{salt}:{passwords.stretched(signs, salt)}"
