"""How far this machine's clock is from others': the database's, and a provider's, by its Date header.

What is compared is the real time, which in development may not be Kassa's own: see domain/clock.py.
"""

from __future__ import annotations

from collections.abc import Callable
from email.utils import parsedate_to_datetime

import httpx
from sqlalchemy import text

from extensions import db

FIX = "Let every machine set its clock by NTP."
_TIMEOUT = 5
# Tells the time, in seconds since the epoch.
Clock = Callable[[], float]


def ahead_of_database(ours: Clock) -> float:
    """By how many seconds `ours` is ahead of the database's clock; less than 0: behind."""

    def theirs() -> float:
        asked = text("SELECT extract(epoch FROM clock_timestamp())")
        return float(db.session.execute(asked).scalar_one())

    try:
        return _ahead(ours, theirs)
    finally:
        db.session.rollback()


def ahead_of(address: str, ours: Clock) -> float:
    """The same of whoever answers at an address, whatever the answer is. Raises HTTPError or ValueError."""

    def theirs() -> float:
        answer = httpx.get(address, timeout=_TIMEOUT)
        # The header tells whole seconds: on average it is half a second more.
        return parsedate_to_datetime(answer.headers.get("Date", "")).timestamp() + 0.5

    return _ahead(ours, theirs)


def say(ahead: float, whose: str) -> str:
    """A difference as people say it."""
    return f"It is {round(abs(ahead))} seconds off: {'ahead of' if ahead > 0 else 'behind'} {whose}."


def _ahead(ours: Clock, theirs: Clock) -> float:
    """By our clock in the middle of the question, so that a slow answer is no wrong clock."""
    before = ours()
    said = theirs()
    return (before + ours()) / 2 - said
