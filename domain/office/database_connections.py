"""Whether the database lets in as many connections as all processes together may open.

Each web process keeps a connection a thread and one more, for what it does beside its requests; worker and
clock keep a few. Where the server has fewer, nobody sees it until the busiest hour.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock

import structlog
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

import config
from extensions import db

# Of the worker, and of the clock: jobs run one at a time, and a sweep's threads look up rights.
JOBS_POOL = 4

_ALLOWED = text(
    """
    SELECT least(
      current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
        - coalesce(current_setting('reserved_connections', true)::int, 0),
      (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user),
      (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database()))
    """
)


def web_pool() -> int:
    """The connections of one web process."""
    return config.get().web_threads + 1


@dataclass(frozen=True)
class Room:
    """How many connections all processes may open, and how many the server lets in."""

    planned: int
    allowed: int

    @property
    def fits(self) -> bool:
        return self.planned <= self.allowed

    @property
    def words(self) -> str:
        settings = config.get()
        return (
            f"Web may open {settings.web_concurrency} × {web_pool()} connections, worker and clock "
            f"{JOBS_POOL} each: {self.planned} of the {self.allowed} that the server allows."
        )


FIX = "Lower WEB_CONCURRENCY or WEB_THREADS, take a larger database, or put PgBouncer in front of it."


def look() -> Room:
    """Compare. Ends its transaction."""
    planned = config.get().web_concurrency * web_pool() + 2 * JOBS_POOL
    try:
        return Room(planned, int(db.session.scalar(_ALLOWED) or 0))
    finally:
        db.session.rollback()


class _Told:
    lock = Lock()
    done = False


def warn_at_start() -> None:
    """Say once in a process's life that the server allows too few. Of one that is away nothing is said."""
    with _Told.lock:
        if _Told.done:
            return
        try:
            room = look()
        except SQLAlchemyError as error:
            structlog.get_logger(__name__).warning("connections_not_compared", error=type(error).__name__)
            return
        _Told.done = True
    if not room.fits:
        structlog.get_logger(__name__).error("too_few_connections", words=room.words, fix=FIX)
