"""Browsers that an account has logged in by before: what tells its owner from a stranger who guesses.

A browser has one cookie for it, whoever uses it, with the day until which it is good; a row says of which
accounts it is. Logging out leaves it: the row lets nobody in, it only says that this browser has been here.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert

from domain import clock
from extensions import db
from models import Device, User

LIVES = timedelta(days=365)
# Tables of browsers that wash their cookies would grow without an end.
_MOST = 50
_KEY = re.compile(r"(?P<until>[0-9]{1,11})\.[A-Za-z0-9_-]{20,60}", re.ASCII)
# What a browser says of itself -> what its owner calls it. The first that fits: each claims to be others.
_BROWSERS = (
    *(("Edg", "Edge"), ("OPR/", "Opera"), ("SamsungBrowser", "Samsung Internet"), ("Firefox", "Firefox")),
    *(("FxiOS", "Firefox"), ("CriOS", "Chrome"), ("Chrome", "Chrome"), ("Safari", "Safari")),
)
_SYSTEMS = (
    *(("iPhone", "iPhone"), ("iPad", "iPad"), ("Android", "Android"), ("Windows", "Windows")),
    *(("Mac OS X", "Mac"), ("CrOS", "Chromebook"), ("Linux", "Linux")),
)


def dated(lives: timedelta) -> str:
    """A new secret for a cookie, with the moment of its end in it, in seconds of the Unix clock."""
    return f"{int((clock.now() + lives).timestamp())}.{secrets.token_urlsafe(24)}"


def is_over(key: str) -> bool:
    """Whether a secret is past the moment that it carries, whatever became of its row."""
    found = _KEY.fullmatch(key)
    return found is not None and int(found["until"]) <= clock.now().timestamp()


def hashed(key: str) -> str:
    """What the database keeps of such a secret: it is long and random, so one hash is enough."""
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def is_key(said: str) -> bool:
    """Whether a cookie says what we write into it, and is not over."""
    return _KEY.fullmatch(said) is not None and not is_over(said)


def known(user: User, key: str) -> Device | None:
    """The browser with this cookie, where this account has logged in by it before."""
    if not is_key(key):
        return None
    found = select(Device).where(Device.user_id == user.id, Device.key_hash == hashed(key))
    return db.session.scalar(found)


def remember(user: User, key: str, label: str) -> int:
    """Note that the account has logged in by this browser; the row's id. No commit."""
    now = clock.now()
    row = {"user_id": user.id, "key_hash": hashed(key), "label": label, "created_at": now}
    statement = insert(Device).values(**row, last_used_at=now)
    newer = {"last_used_at": now, "label": label}
    statement = statement.on_conflict_do_update(constraint="devices_key", set_=newer)
    made = db.session.scalars(statement.returning(Device.id)).one()
    old = select(Device.id).where(Device.user_id == user.id).order_by(Device.last_used_at.desc())
    db.session.execute(
        delete(Device)
        .where(Device.user_id == user.id)
        .where((Device.last_used_at <= now - LIVES) | Device.id.in_(old.offset(_MOST)))
        .execution_options(synchronize_session=False)
    )
    return made


def of(user: User) -> Sequence[Device]:
    """The browsers that the account has logged in by, the last used first."""
    query = select(Device).where(Device.user_id == user.id, Device.last_used_at > clock.now() - LIVES)
    return db.session.scalars(query.order_by(Device.last_used_at.desc(), Device.id.desc())).all()


def forget(user: User, *, device_id: int | None = None) -> None:
    """One browser is as strange as any other from now on, or all of them. No commit."""
    statement = delete(Device).where(Device.user_id == user.id)
    if device_id is not None:
        statement = statement.where(Device.id == device_id)
    db.session.execute(statement.execution_options(synchronize_session=False))


def name(user_agent: str) -> str:
    """A browser in words: `Firefox on Windows`. What it says of itself is anybody's text, and is not kept."""
    browser = next((word for sign, word in _BROWSERS if sign in user_agent), "A browser")
    system = next((word for sign, word in _SYSTEMS if sign in user_agent), "")
    return f"{browser} on {system}" if system else browser
