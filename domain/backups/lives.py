"""What is known outside of the database of the shop's lives: without it, a number could be used twice.

A backup that is restored twice would begin the same life twice, with the same names and keys. So the highest
number is kept beside the backups and in Redis. Redis also remembers how far the records had come: a database
that is behind that was put back by its host's own tools, and nobody has told the shop.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import structlog
from redis.exceptions import RedisError
from sqlalchemy import func, select

import config
from domain import clock, epochs
from domain.backups import places, programs, restoring
from domain.errors import DomainError
from domain.post import alerts, outbox
from extensions import db, queue
from models import Order, Payment, Refund, SweepRun, TimelineEntry, User

log = structlog.get_logger(__name__)

NAME = "kassa-epochs.txt"
# For so many seconds one process deals with what it has noticed.
_AT_IT = 120
_KEPT = 400 * 24 * 3600
# Rows are added to these and never taken away.
_GROWING = {"orders": Order.id, "payments": Payment.id, "refunds": Refund.id, "timeline": TimelineEntry.id}


def highest(source: str) -> int:
    """The highest number of a life that is known beside a backup, at BACKUP_TO, and in Redis. DomainError."""
    numbers = [epochs.FIRST]
    for address in dict.fromkeys(filter(None, (source, config.get().backup_to))):
        place = places.beside(address, NAME)
        numbers += _read(place) if place is not None else []
    try:
        numbers.append(int(queue.redis.get(_life_key(_shop())) or epochs.FIRST))
    except RedisError:
        log.warning("lives_not_in_redis")
    return max(numbers)


def begun(number: int, source: str) -> None:
    """Keep the number of the life that has begun in the same places. DomainError where it cannot be."""
    try:
        queue.redis.set(_life_key(_shop()), number, ex=_KEPT)
    except RedisError:
        log.warning("lives_not_in_redis")
    for address in dict.fromkeys(filter(None, (source, config.get().backup_to))):
        place = places.beside(address, NAME)
        if place is not None:
            _write(place, number)


def _read(place: places.Place) -> list[int]:
    with TemporaryDirectory(prefix="kassa-epochs-") as folder:
        file = Path(folder) / NAME
        if not place.fetch_if_there(file):
            return []
        words = [line.split() for line in file.read_text(errors="replace").splitlines()]
        return [int(parts[0]) for parts in words if parts and parts[0].isdecimal()]


def _write(place: places.Place, number: int) -> None:
    with TemporaryDirectory(prefix="kassa-epochs-") as folder:
        file = Path(folder) / NAME
        known = file.read_text() if place.fetch_if_there(file) else ""
        file.write_text(f"{known}{number} {clock.now():%Y-%m-%d %H:%M} UTC\n")
        place.put(file)


# --- A database that was put back ------------------------------------------------------------------------


def notice() -> int | None:
    """Look whether the database is behind what was known of it; if so, tell a person, and close the shop.

    The number of the life that begins then. Without Redis nothing is noticed. Commits.
    """
    shop, number = _shop(), epochs.current()
    now = {name: db.session.scalar(select(func.max(column))) or 0 for name, column in _GROWING.items()}
    db.session.rollback()
    if not shop:
        return None
    try:
        known = int(queue.redis.get(_life_key(shop)) or epochs.FIRST)
        seen = _seen(shop, number)
        behind = [name for name, highest_id in now.items() if seen.get(name, 0) > highest_id]
        if not behind and known <= number:
            # Another worker may write less a moment later: then less is noticed, and never too much.
            queue.redis.hset(_seen_key(shop, number), mapping=now)  # type: ignore[arg-type]
            queue.redis.expire(_seen_key(shop, number), _KEPT)
            return None
        if not queue.redis.set(f"kassa:noticing:{shop}", 1, nx=True, ex=_AT_IT):
            return None
    except RedisError:
        return None
    log.error("database_put_back", behind=behind, life=number, known=known)
    _tell(f"{number}:{now['timeline']}")
    begun_now = enter(last_known())
    # Whoever looks from now on sees another life, and nothing behind it.
    with suppress(RedisError):
        queue.redis.delete(f"kassa:noticing:{shop}")
    return begun_now


def enter(as_of: datetime) -> int:
    """Begin another life in a database that its host has put back to a moment: closed, as after a restore."""
    number = restoring.close(
        restoring.Noted(as_of, {}), programs.database(), above=max(highest(""), epochs.current())
    )
    epochs.look_again()
    try:
        begun(number, "")
    except DomainError as error:
        log.error("life_not_kept", error=error.message)
    return number


def last_known() -> datetime:
    """When the records end: the last sweep that they have began then. Before a sweep of today is in them."""
    last = db.session.scalar(select(func.max(SweepRun.started_at)))
    db.session.rollback()
    return last or clock.now()


def _tell(what: str) -> None:
    """At once: a closed shop mails nobody, and nobody would know."""
    key = f"put_back:{what}"
    subject, text = alerts.put_back()
    outbox.alert(subject, text, key=key, critical=True)
    db.session.commit()
    outbox.deliver_due(only=key)


def _shop() -> str:
    """What tells one shop's records from another's in the same Redis: when its first account was made."""
    first = db.session.scalar(select(func.min(User.created_at)))
    db.session.rollback()
    return first.isoformat() if first is not None else ""


def _life_key(shop: str) -> str:
    return f"kassa:life:{shop}"


def _seen_key(shop: str, number: int) -> str:
    return f"kassa:seen:{shop}:{number}"


def _seen(shop: str, number: int) -> Mapping[str, int]:
    kept: Mapping[bytes, bytes] = queue.redis.hgetall(_seen_key(shop, number))  # type: ignore[assignment]
    return {name.decode(): int(value) for name, value in kept.items()}
