"""Codes that are mailed for a login that a password alone does not open: eight digits, for ten minutes.

Whoever asks for one has shown the right password already. A code bears five wrong tries, and few are made in
an hour, so that guessing at them is no way in.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import timedelta

from sqlalchemy import delete, func, select, update

import config
from domain import clock
from extensions import db
from models import LoginCode, User

LIVES = timedelta(minutes=10)
DIGITS = 8
PER_HOUR = 5
_TRIES = 5
_KEPT = timedelta(hours=1)


def make(user: User) -> str | None:
    """A new code, or None where enough were made in this hour: the last one is still good, or one waits.

    The user's row is locked by the caller. No commit.
    """
    now = clock.now()
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
            code_hash=_hashed(user, code),
            tries=0,
            created_at=now,
            expires_at=now + LIVES,
        )
    )
    return code


def take(user: User, typed: str) -> bool:
    """Whether this is a code of theirs that is still good; then it is used up. Commits: a try is counted."""
    now = clock.now()
    digits = "".join(sign for sign in typed if sign.isdecimal())[: 2 * DIGITS]
    alive = (
        *(LoginCode.user_id == user.id, LoginCode.used_at.is_(None)),
        *(LoginCode.expires_at > now, LoginCode.tries < _TRIES),
    )
    tried = db.session.execute(
        update(LoginCode)
        .where(*alive)
        .values(tries=LoginCode.tries + 1)
        .returning(LoginCode.id, LoginCode.code_hash)
        .execution_options(synchronize_session=False)
    ).all()
    said = _hashed(user, digits)
    right = [row.id for row in tried if hmac.compare_digest(row.code_hash, said)]
    if right:
        db.session.execute(
            update(LoginCode)
            .where(LoginCode.user_id == user.id, LoginCode.used_at.is_(None))
            .values(used_at=now)
            .execution_options(synchronize_session=False)
        )
    db.session.commit()
    return bool(right)


def _hashed(user: User, code: str) -> str:
    """Eight digits are soon tried out by who has the table, so the hash takes a key that is not in it."""
    key = config.get().derived_key("login-codes")
    return hashlib.blake2b(f"{user.id}:{code}".encode(), key=key, digest_size=32).hexdigest()
