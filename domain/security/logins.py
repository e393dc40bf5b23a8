"""Logins: a row for each browser that somebody is logged in with, for as long as it is.

A browser keeps the name of its row in the session's cookie, and in the one by which it is remembered. Both
are signed, but a signature cannot be taken back: without the row, a copy of either would go on after logging
out. What the cookies say carries the day of its end besides, so that a row that comes back with an old copy
of the database lets nobody in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Select, bindparam, delete, func, or_, select, update

from domain import clock
from domain.errors import DomainError, NotFound
from domain.security import devices
from extensions import db
from models import Login, User

# Also of a browser that asked to be remembered, whose cookie ends then.
LIVES = timedelta(days=30)
# One that nobody has used for so long is over before.
UNUSED = timedelta(days=14)


@dataclass(frozen=True)
class Browser:
    """What a browser tells of itself: what its owner calls it, where it is, and its cookie of a device."""

    label: str = ""
    network: str = ""
    device: str = ""


_UNKNOWN = Browser()


def begin(user: User, browser: Browser = _UNKNOWN, *, proved_at: datetime | None = None) -> str:
    """A new login of this user; what its cookies say. Forgets those of theirs that are over. Commits.

    `proved_at` is when the second factor was shown, if it was.
    """
    key, now = devices.dated(LIVES), clock.now()
    known = devices.is_key(browser.device)
    db.session.execute(
        delete(Login)
        .where(Login.user_id == user.id, or_(Login.expires_at <= now, _unused(now)))
        .execution_options(synchronize_session=False)
    )
    db.session.add(
        Login(
            user_id=user.id,
            key_hash=devices.hashed(key),
            created_at=now,
            expires_at=now + LIVES,
            label=browser.label,
            network=browser.network,
            last_seen_at=now,
            proved_at=proved_at,
            device_id=devices.remember(user, browser.device, browser.label) if known else None,
        )
    )
    db.session.commit()
    return f"{user.get_id()}:{key}"


def look(said: str) -> tuple[Login, User] | None:
    """The login that a cookie names, and whose it is, unless it has ended, or they were closed or changed
    passwords."""
    named, _, key = said.rpartition(":")
    if not named or not key or devices.is_over(key):
        return None
    now = clock.now()
    given = {"key": devices.hashed(key), "now": now, "unused": now - UNUSED}
    found = db.session.execute(_by_key(), given).one_or_none()
    if found is None or not found[1].is_active or found[1].get_id() != named:
        return None
    return found[0], found[1]


def whose(said: str) -> User | None:
    """The user whose login a cookie names, as `look` has it."""
    found = look(said)
    return found[1] if found is not None else None


def note_seen(login: Login, browser: Browser) -> None:
    """Remember that the browser was here just now, and where. Commits."""
    db.session.execute(
        update(Login)
        .where(Login.id == login.id)
        .values(last_seen_at=clock.now(), label=browser.label, network=browser.network)
        .execution_options(synchronize_session=False)
    )
    db.session.commit()


def renew(login: Login, user: User, *, proved_at: datetime | None) -> str:
    """Whoever is here has proven themselves again: what the cookies say from now on. Commits.

    A copy of the cookies of before opens nothing any more. It ends on the day on which it would have ended.
    """
    key = devices.dated(login.expires_at - clock.now())
    db.session.execute(
        update(Login)
        .where(Login.id == login.id)
        .values(key_hash=devices.hashed(key), proved_at=proved_at)
        .execution_options(synchronize_session=False)
    )
    said = f"{user.get_id()}:{key}"
    db.session.commit()
    return said


def end(said: str) -> None:
    """End the login that a cookie names, wherever else that cookie is. Commits."""
    db.session.execute(delete(Login).where(Login.key_hash == devices.hashed(said.rpartition(":")[2])))
    db.session.commit()


# --- As their owner sees them ---------------------------------------------------------------------------


def of(user: User) -> Sequence[Login]:
    """The browsers that this member is logged in with, the last seen first."""
    now = clock.now()
    query = select(Login).where(Login.user_id == user.id, Login.expires_at > now, ~_unused(now))
    return db.session.scalars(query.order_by(Login.last_seen_at.desc().nulls_last(), Login.id.desc())).all()


def end_one(user: User, login_id: int, *, but: Login | None = None) -> Login:
    """End one of a member's logins but the one in use; its browser is a stranger from then on. Commits.

    NotFound for others', DomainError `this_login` for the one in use.
    """
    if but is not None and but.id == login_id:
        raise DomainError("this_login", "That is the device you are at: log out by the button above.")
    login = db.session.scalar(select(Login).where(Login.user_id == user.id, Login.id == login_id))
    if login is None:
        raise NotFound("no_login", "This device is logged out already.")
    if login.device_id is not None:
        devices.forget(user, device_id=login.device_id)
    db.session.execute(delete(Login).where(Login.id == login_id))
    db.session.commit()
    return login


def forget_device(user: User, device_id: int) -> None:
    """A browser that nobody is logged in with is as strange as any other from now on. Commits."""
    devices.forget(user, device_id=device_id)
    db.session.commit()


def end_others(user: User, but: Login | None) -> None:
    """End all of a member's logins but one, and know no other browser any more. Commits."""
    kept = but.id if but is not None else 0
    device = but.device_id if but is not None else None
    db.session.execute(delete(Login).where(Login.user_id == user.id, Login.id != kept))
    for known in devices.of(user):
        if known.id != device:
            devices.forget(user, device_id=known.id)
    db.session.commit()


@cache
def _by_key() -> Select[*tuple[Any, ...]]:
    """Made once: every page of a member asks it."""
    named = Login.key_hash == bindparam("key")
    return (
        select(Login, User)
        .join(User, Login.user_id == User.id)
        .where(named, Login.expires_at > bindparam("now"), _last_used() > bindparam("unused"))
    )


def _unused(now: datetime) -> ColumnElement[bool]:
    return _last_used() <= now - UNUSED


def _last_used() -> ColumnElement[datetime]:
    """To the hour: see `note_seen`. What was begun by the version before was not noted yet."""
    return func.coalesce(Login.last_seen_at, Login.created_at)
