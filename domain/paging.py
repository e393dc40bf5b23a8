"""Long lists, a page at a time, by keyset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Select

from extensions import db

PAGE = 50
T = TypeVar("T")


@dataclass(frozen=True)
class Rows(Generic[T]):
    """A page of a list, newest first. `more` is the `before` of the next page; None: this is the last."""

    rows: Sequence[T]
    more: int | None


def page(query: Select[T], key: Any, before: int | None) -> Rows[T]:
    """A page of a list by keyset: as quick on the thousandth page as on the first."""
    if before is not None:
        query = query.where(key < before)
    rows = list(db.session.scalars(query.order_by(key.desc()).limit(PAGE + 1)))
    more = getattr(rows[PAGE - 1], "id", None) if len(rows) > PAGE else None
    return Rows(rows[:PAGE], more)
