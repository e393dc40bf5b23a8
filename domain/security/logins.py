"""Logins: a row for each browser that somebody is logged in with, for as long as it is.

A browser keeps the name of its row in the session's cookie, and in the one by which it is remembered. Both
are signed, but a signature cannot be taken back: without the row, a copy of either would go on after logging
out.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta
from functools import cache

from sqlalchemy import Select, bindparam, delete, select

from domain import clock
from extensions import db
from models import Login, User

# Also of a browser that asked to be remembered, whose cookie ends then.
LIVES = timedelta(days=30)


def begin(user: User) -> str:
    """A new login of this user; what its cookies say. Forgets those of theirs that are over. Commits."""
    key, now = secrets.token_urlsafe(24), clock.now()
    db.session.execute(delete(Login).where(Login.user_id == user.id, Login.expires_at <= now))
    db.session.add(Login(user_id=user.id, key_hash=_hashed(key), created_at=now, expires_at=now + LIVES))
    db.session.commit()
    return f"{user.get_id()}:{key}"


def whose(said: str) -> User | None:
    """The user whose login a cookie names, unless it has ended, or they were closed or changed passwords."""
    named, _, key = said.rpartition(":")
    if not named or not key:
        return None
    user = db.session.scalar(_by_key(), {"key": _hashed(key), "now": clock.now()})
    return user if user is not None and user.is_active and user.get_id() == named else None


def end(said: str) -> None:
    """End the login that a cookie names, wherever else that cookie is. Commits."""
    db.session.execute(delete(Login).where(Login.key_hash == _hashed(said.rpartition(":")[2])))
    db.session.commit()


@cache
def _by_key() -> Select[User]:
    """Made once: every page of a member asks it."""
    named = Login.key_hash == bindparam("key")
    return (
        select(User).join(Login, Login.user_id == User.id).where(named, Login.expires_at > bindparam("now"))
    )


def _hashed(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()
