"""Codes that are mailed for a login that a password alone does not open: eight digits, for ten minutes.

Whoever asks for one has shown the right password already. A code is good in the browser alone that it was
asked in: who is told one on the telephone has no use for it, and a stranger who knows the password, too, does
not use up its owner's tries. It bears five wrong ones, and so many are made in an hour from one network, and
in all. Above that the owner chooses a new password by a mailed link, which is the right answer then.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import timedelta

from sqlalchemy import delete, func, select, update

import config
from domain import clock
from domain.security import rate_limits
from extensions import db
from models import LoginCode, User

LIVES = timedelta(minutes=10)
DIGITS = 8
PER_HOUR = 20
_TRIES = 5
_PURPOSE = "login-codes"
_KEPT = timedelta(hours=1)


def make(user: User, asked_in: str, network: str) -> str | None:
    """A new code, or None where enough were made in this hour from this network, or in all.

    `asked_in` is a secret of the browser's, or a program's name. The user's row is locked by the caller. No
    commit.
    """
    now = clock.now()
    if not rate_limits.count(rate_limits.CODES_MAILED, f"{user.id}@{network}"):
        return None
    db.session.execute(
        delete(LoginCode)
        .where(LoginCode.user_id == user.id, LoginCode.created_at <= now - _KEPT)
        .execution_options(synchronize_session=False)
    )
    made = db.session.scalar(select(func.count()).where(LoginCode.user_id == user.id)) or 0
    if made >= PER_HOUR:
        return None
    code = f"{secrets.randbelow(10**DIGITS):0{DIGITS}d}"
    db.session.add(
        LoginCode(
            user_id=user.id,
            code_hash=_hashed(user, code, config.get().derived_key(_PURPOSE)),
            asked_in=_named(asked_in),
            tries=0,
            created_at=now,
            expires_at=now + LIVES,
        )
    )
    return code


def take(user: User, typed: str, asked_in: str) -> bool:
    """Whether this is a code of theirs that was asked for here and is still good; then all are used up.

    Commits: a try is counted.
    """
    now = clock.now()
    digits = "".join(sign for sign in typed if sign.isdecimal())[: 2 * DIGITS]
    alive = (
        *(LoginCode.user_id == user.id, LoginCode.used_at.is_(None), LoginCode.asked_in == _named(asked_in)),
        *(LoginCode.expires_at > now, LoginCode.tries < _TRIES),
    )
    tried = db.session.execute(
        update(LoginCode)
        .where(*alive)
        .values(tries=LoginCode.tries + 1)
        .returning(LoginCode.id, LoginCode.code_hash)
        .execution_options(synchronize_session=False)
    ).all()
    # One that was mailed a moment before the key was rotated is good still.
    said = [_hashed(user, digits, key) for key in config.get().derived_keys(_PURPOSE)]
    right = [row.id for row in tried if any(hmac.compare_digest(row.code_hash, one) for one in said)]
    if right:
        db.session.execute(
            update(LoginCode)
            .where(LoginCode.user_id == user.id, LoginCode.used_at.is_(None))
            .values(used_at=now)
            .execution_options(synchronize_session=False)
        )
    db.session.commit()
    return bool(right)


def _named(asked_in: str) -> str:
    return hashlib.sha256(asked_in.encode("utf-8", "replace")).hexdigest()


def _hashed(user: User, code: str, key: bytes) -> str:
    """Eight digits are soon tried out by who has the table, so the hash takes a key that is not in it."""
    return hashlib.blake2b(f"{user.id}:{code}".encode(), key=key, digest_size=32).hexdigest()
