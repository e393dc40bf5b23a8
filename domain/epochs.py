"""The lives of this shop's records: a restored backup begins another one, and opens closed.

What was made after the backup is not in it, though the providers know it. So nothing that is made from then
on may have a name that could have been used before: references, idempotency keys and series carry the epoch.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic

from sqlalchemy import select

import config
from domain.errors import DomainError
from extensions import db
from models import Epoch

FIRST = 1
# So many seconds a process believes that the shop is open, and in which life. That it is closed is asked
# again each time: little is done then, and it opens at once.
_BELIEVED = 5.0


@dataclass
class _Seen:
    number: int = FIRST
    until: float = 0.0
    # Whether this process has ever seen it open: it is not closed again while the process runs.
    was_open: bool = False


_open = _Seen()


class Closed(DomainError):
    """Nothing is sold, sent back or mailed before a person opens a restored shop."""

    def __init__(self) -> None:
        super().__init__(
            "shop_closed",
            "This box office is being brought back after a fault, and nothing is sold or paid back just now. "
            "What was bought stays bought. Please look in again later, or write to "
            f"{config.get().support_email}.",
        )


def latest() -> Epoch | None:
    """The restored life that this is; None in the first."""
    return db.session.scalar(select(Epoch).order_by(Epoch.number.desc()).limit(1))


def current() -> int:
    """Which life this is, from 1."""
    return _look()[0]


def is_closed() -> bool:
    """Whether a backup was restored, and nobody has opened the shop since."""
    return not _look()[1]


def seems_closed() -> bool:
    """The same for the top of every page: asks nothing once this process has seen the shop open."""
    return not _open.was_open and is_closed()


def refuse_if_closed() -> None:
    """Raise Closed where a backup was restored, and nobody has opened the shop since."""
    if is_closed():
        raise Closed


def mark() -> str:
    """What names made from now on end with: "" in the first life, "-E2" in the second."""
    return _mark(current())


def marks() -> tuple[str, ...]:
    """What names end with, in each life that this process knows of, the newest first. Asks nothing."""
    return tuple(_mark(number) for number in range(_open.number, 0, -1))


def _mark(number: int) -> str:
    return f"-E{number}" if number > FIRST else ""


def look_again() -> None:
    """Forget what this process believes of it."""
    _open.number, _open.until, _open.was_open = FIRST, 0.0, False


def _look() -> tuple[int, bool]:
    """The life's number, and whether the shop is open in it."""
    if monotonic() < _open.until:
        return _open.number, True
    row = db.session.execute(
        select(Epoch.number, Epoch.opened_at).order_by(Epoch.number.desc()).limit(1)
    ).one_or_none()
    number, is_open = (FIRST, True) if row is None else (row[0], row[1] is not None)
    _open.number, _open.until = number, monotonic() + _BELIEVED if is_open else 0.0
    _open.was_open = is_open
    return number, is_open
