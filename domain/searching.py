"""Finding orders, tickets and entries by what is typed, in a time that does not grow with their number.

Every word that is typed must be there. Words are looked up in `order_words` (domain/search_words.py), whole
or by how they begin. Where one of them is of few orders, these are looked through; else the newest of the
list are, and the next page goes on behind them. Among the first of the list a part in the middle of a word is
found, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, exists, func, literal, or_, select, union_all

from domain import folding, money, paging
from domain.search_words import LONGEST, of_amount
from extensions import db
from models import Order, OrderWord

# A word of at most so many orders decides which orders are looked through.
_FEW = 2_000
# Where none is, so many of the list are, from the newest; a next page goes on behind them.
_FAR = 2_000
# So many of the newest are searched for parts of words, too.
_NEAR = 1_000
_ANY_LETTER = "\U0010ffff"
_DAY = re.compile(r"(\d{1,2})[./](\d{1,2})[./](\d{4})")
# No order comes near it.
_MOST_SEARCHED = Decimal(10) ** 15


@dataclass(frozen=True)
class Way:
    """One reading of a word that was typed: a word of an order, or how one begins."""

    word: str
    whole: bool

    @property
    def is_there(self) -> ColumnElement[bool]:
        word = self.word[:LONGEST]
        if self.whole:
            return OrderWord.word == word
        return and_(OrderWord.word >= word, OrderWord.word < word + _ANY_LETTER)


@dataclass(frozen=True)
class Searched:
    """The list that is searched: its key, the order of each row, and its rows, in no order and unlimited.

    `joined` are the same rows with all that `near` reads: the condition by which those near the list's
    beginning are searched for parts of words. `besides` tells of a word what else in the list has it, if any.
    """

    key: Any
    order_id: Any
    rows: Select[Any]
    joined: Select[Any]
    near: ColumnElement[bool]
    besides: Callable[[str], ColumnElement[bool] | None] = lambda word: None

    @property
    def keys(self) -> Select[Any]:
        return self.rows.with_only_columns(self.key)

    def before(self, key: int | None) -> Searched:
        """The same list from behind one of its rows on."""
        if key is None:
            return self
        behind = self.key < key
        return replace(self, rows=self.rows.where(behind), joined=self.joined.where(behind))


@dataclass(frozen=True)
class Found:
    """The condition of what was found, and of a page of the newest of it; and where the list goes on that was
    not looked through, or None."""

    condition: ColumnElement[bool]
    newest: ColumnElement[bool]
    beyond: int | None


def page(
    query: Select[Any], typed: str, searched: Searched, before: int | None, named: Iterable[Select[Any]] = ()
) -> paging.Rows[Any]:
    """A page of a searched list, the newest first; `named` as in `look`."""
    found = look(typed, searched.before(before), named)
    rows = paging.page(query.where(found.newest), searched.key, before)
    return paging.Rows(rows.rows, rows.more or found.beyond)


def look(typed: str, searched: Searched, named: Iterable[Select[Any]] = ()) -> Found:
    """What of a list is meant by what was typed, which must hold something to look for.

    `named` are ids of orders that are found by a name that only one of them can have.
    """
    near, last = searched.joined.with_only_columns(searched.key).where(searched.near), _end(searched, _NEAR)
    arms = [near if last is None else near.where(searched.key >= last)]
    unwritten = select(Order.id).where(~Order.worded, folding.matches(typed, folding.searchable(Order)))
    arms += [searched.keys.where(searched.order_id.in_(ids)) for ids in (*named, unwritten)]
    beyond = None
    for terms in _readings(typed):
        rare = _rarest(terms, searched)
        if rare is None:
            beyond = _end(searched, _FAR)
        arms.append(_having(searched, terms, rare, beyond))
    ids = union_all(*(arm.subquery().select() for arm in arms)).subquery()
    first = select(ids.c[0]).distinct().order_by(ids.c[0].desc()).limit(paging.PAGE + 1)
    return Found(searched.key.in_(ids.select()), searched.key.in_(first), beyond)


# --- What was typed -------------------------------------------------------------------------------------


def _words(typed: str) -> list[str]:
    return [word for word in typed.replace("\x00", " ").split() if folding.fold(word)][: folding.MOST_WORDS]


def _readings(typed: str) -> list[list[list[Way]]]:
    """All that was typed as words, each in its ways; and as one amount, where it is typed with blanks."""
    words = _words(typed)
    found = [[_ways(word, alone=len(words) == 1) for word in words]]
    amounts = _amounts(typed.strip()) if len(words) > 1 else []
    return [*found, [amounts]] if amounts else found


def _ways(word: str, *, alone: bool) -> list[Way]:
    """One letter alone is a whole word, else it would be in everybody."""
    folded = folding.fold(word)
    whole = len(folded) == 1 and alone and folded.upper() != folded
    return [*(Way(part, whole) for part in folded.split()), *_amounts(word), *_days(word)]


def _amounts(typed: str) -> list[Way]:
    read = [amount for amount in money.readings(typed) if abs(amount) <= _MOST_SEARCHED]
    return [Way(of_amount(amount), True) for amount in read]


def _days(typed: str) -> list[Way]:
    """30.11.2026, and 11/30/2026; where both can be meant, both are."""
    match = _DAY.fullmatch(typed)
    if match is None:
        return []
    one, other, year = (int(part) for part in match.groups())
    found = []
    for day, month in ((one, other), (other, one)):
        with suppress(ValueError):
            found.append(date(year, month, day).isoformat())
    return [Way(day, True) for day in dict.fromkeys(found)]


# --- Where it is ----------------------------------------------------------------------------------------


def _rarest(terms: Sequence[Sequence[Way]], searched: Searched) -> int | None:
    """The place of the word that is of the fewest orders; None where all are of many, or not only theirs."""
    only = [n for n, term in enumerate(terms) if searched.besides(term[0].word) is None]
    if not only:
        return None
    counts = [select(func.count()).select_from(_few(terms[n]).subquery()).scalar_subquery() for n in only]
    numbers = db.session.execute(select(*counts)).one()
    number, place = min(zip(numbers, only, strict=True))
    return place if number <= _FEW else None


def _few(term: Sequence[Way]) -> Select[Any]:
    """The orders of a word, but no more than are few and one: each way by the index, and no further."""
    ways = [
        select(OrderWord.order_id).where(way.is_there).limit(_FEW + 1).subquery().select() for way in term
    ]
    return select(union_all(*ways).subquery().c.order_id).limit(_FEW + 1)


def _end(searched: Searched, number: int) -> int | None:
    """The last of so many rows that are looked through; None where that is the list's own end."""
    far = searched.keys.order_by(searched.key.desc()).offset(number - 1).limit(1)
    last: int | None = db.session.scalar(far)
    return last


def _having(
    searched: Searched, terms: Sequence[Sequence[Way]], rare: int | None, last: int | None
) -> Select[Any]:
    """The rows that have all the words: of the orders of the rare one, else of the newest of the list."""
    words = [_has(term, searched) for place, term in enumerate(terms) if place != rare]
    if rare is not None:
        return searched.keys.where(searched.order_id.in_(_few(terms[rare])), *words)
    rows = searched.keys.where(*words)
    rows = rows if last is None else rows.where(searched.key >= last)
    return rows.order_by(searched.key.desc()).limit(paging.PAGE + 1)


def _has(term: Sequence[Way], searched: Searched) -> ColumnElement[bool]:
    its = exists(literal(1)).where(
        OrderWord.order_id == searched.order_id, or_(*(way.is_there for way in term))
    )
    also = searched.besides(term[0].word)
    return its if also is None else or_(its, also)
