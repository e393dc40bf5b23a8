"""Rows that a duty deals with one after the other, with nobody watching: none keeps another one waiting.

What one of them raises is logged, and the duty goes on with the next; the next run takes it up again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TypeVar

import structlog
from sqlalchemy.exc import OperationalError

from extensions import JOBS, db, limited

log = structlog.get_logger(__name__)
T = TypeVar("T")

# After so many rows that somebody holds, others are waited for briefly: the time is for all of them.
BLOCKED = 3
BRIEFLY = replace(JOBS, lock=0.2)


@dataclass
class Apart:
    """One run of a duty; `what` is the row's name in the log."""

    what: str
    blocked: int = 0

    def do(self, row_id: int, act: Callable[[], T]) -> T | None:
        """What `act` came to; None where it failed, and nothing of what it had begun is left."""
        try:
            with limited(BRIEFLY) if self.blocked >= BLOCKED else nullcontext():
                return act()
        except OperationalError as error:
            db.session.rollback()
            log.warning("row_blocked", what=self.what, row=row_id, error=type(error.orig).__name__)
            self.blocked += 1
        except Exception:
            db.session.rollback()
            log.exception("row_failed", what=self.what, row=row_id)
        return None


def each(name: str, *duties: Callable[[], object]) -> None:
    """Do all the duties, whatever one of them raises; then raise what they raised."""
    errors = []
    for duty in duties:
        try:
            duty()
        except Exception as error:
            db.session.rollback()
            log.exception("duty_failed", duty=name)
            errors.append(error)
    if errors:
        raise ExceptionGroup(f"{name}: {len(errors)} of {len(duties)} duties failed", errors)
