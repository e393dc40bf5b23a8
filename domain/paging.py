"""Long lists, a page at a time, by keyset."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Select

from extensions import EXPORTS, db, limited

PAGE = 50
# So many rows of a file or a list on paper are read at a time.
PART = 1_000
T = TypeVar("T")


@dataclass(frozen=True)
class Rows(Generic[T]):
    """A page of a list, newest first. `more` is the `before` of the next page; None: this is the last."""

    rows: Sequence[T]
    more: int | None


def parts(read: Callable[[int | None], Sequence[T]], key: Callable[[T], int]) -> Iterator[Sequence[T]]:
    """A long list in parts, of which `read` gives the one behind a key, up to PART rows of it.

    Each is read in a transaction of its own, which has ended when the part is handed on: who takes a file
    slowly holds nothing, and however long the list is, one part of it is in memory.
    """
    last: int | None = None
    while True:
        db.session.rollback()
        with limited(EXPORTS):
            rows = read(last)
            db.session.rollback()
        if rows:
            yield rows
            last = key(rows[-1])
        if len(rows) < PART:
            return


def page(query: Select[T], key: Any, before: int | None) -> Rows[T]:
    """A page of a list by keyset: as quick on the thousandth page as on the first."""
    if before is not None:
        query = query.where(key < before)
    rows = list(db.session.scalars(query.order_by(key.desc()).limit(PAGE + 1)))
    more = getattr(rows[PAGE - 1], "id", None) if len(rows) > PAGE else None
    return Rows(rows[:PAGE], more)
