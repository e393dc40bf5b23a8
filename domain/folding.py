"""Finding people and things however they are spelled: accents, composition, capitals, apostrophes, ё and all.

What is searched lies folded in a column `folded`, written here as the row is. PostgreSQL's own ways to fold
are extensions, which not every server has. A row without one (NULL) is of an earlier version: it is searched
as it is until `domain/office/backfill.py` comes by.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, and_, event, func, inspect, literal, or_, select, true
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Mapper

from domain import addresses
from models import Agent, Athlete, DoorPass, Event, Order, TicketType, User

# What is searched of each kind of row, by its columns.
SEARCHED: dict[type[Any], tuple[str, ...]] = {
    User: ("name", "email"),
    Order: ("name", "email", "code"),
    Event: ("title", "slug", "venue"),
    TicketType: ("name",),
    Agent: ("name", "slug"),
    DoorPass: ("label",),
    Athlete: ("name", "club"),
}
MOST_WORDS = 5
# Letters that have no parts to leave out, and people who lack the key for them.
_LETTERS = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ı": "i", "ħ": "h", "ə": "e"}
)
# Apostrophes of every shape count for nothing: O'Brien, O’Brien and OBrien are one.
_NOTHING = str.maketrans(dict.fromkeys("'’‘‛`´′＇ʹʻʼʽʾʿ\u05f3", None))
_DASHES = str.maketrans(dict.fromkeys("‐‑‒–—―−－", "-"))


def fold(text: str) -> str:
    """`text` as it is searched: small letters without accents, single blanks. It may be empty."""
    parts = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text.translate(_NOTHING)).casefold())
    kept = "".join(
        " " if unicodedata.category(sign) == "Cc" else sign
        for sign in parts
        if not unicodedata.combining(sign) and unicodedata.category(sign) not in ("Cf", "Cs")
    )
    return " ".join(kept.translate(_LETTERS).translate(_NOTHING).translate(_DASHES).split())


def folded(row: Any) -> str:
    """What the column holds for a row: a blank before each word, so that its beginning can be looked for."""
    return of_texts(getattr(row, name) or "" for name in SEARCHED[type(row)])


def of_texts(searched: Iterable[str]) -> str:
    """The same from the texts of the columns, for a row that is written without a session."""
    texts = list(searched)
    texts += [addresses.shown(text) for text in texts if "xn--" in text]
    return " " + fold(" ".join(texts))


def searchable(model: type[Any]) -> ColumnElement[str]:
    """The text to search in a row of `model`."""
    plain = func.lower(func.concat_ws(" ", literal(""), *(getattr(model, name) for name in SEARCHED[model])))
    return func.coalesce(model.folded, plain)


def texts(model: type[Any]) -> list[ColumnElement[str]]:
    """All that finds a row of `model`: its own text, and for a ticket type its event's."""
    if model is not TicketType:
        return [searchable(model)]
    of_event = select(searchable(Event)).where(Event.id == TicketType.event_id).correlate(TicketType)
    return [searchable(TicketType), of_event.scalar_subquery()]


def matches(typed: str, *texts: ColumnElement[str]) -> ColumnElement[bool]:
    """Whether each word that was typed, up to MOST_WORDS, is in one of the texts.

    One letter alone is a whole word and two are a word's beginning, else they would be in everybody; a sign
    of a script without capitals, such as a Chinese name, is found wherever it stands.
    """
    words = [word for word in typed.replace("\x00", " ").split() if fold(word)][:MOST_WORDS]
    alone = len(words) == 1
    # A row of an earlier version has the word as it was typed.
    ways = [dict.fromkeys((fold(word), word.lower())) for word in words]
    found = (or_(*(_holds(text, way, alone) for text in texts for way in word)) for word in ways)
    return and_(true(), *found)


def _holds(text: ColumnElement[str], word: str, alone: bool) -> ColumnElement[bool]:
    short = len(word) <= 2 and word.upper() != word
    if short and len(word) == 1 and alone:
        return (text + " ").contains(f" {word} ", autoescape=True)
    return text.contains(f" {word}" if short else word, autoescape=True)


def _fold_new(mapper: Mapper[Any], connection: Connection, row: Any) -> None:
    row.folded = folded(row)


def _fold_changed(mapper: Mapper[Any], connection: Connection, row: Any) -> None:
    seen = inspect(row)
    if any(seen.attrs[name].history.has_changes() for name in SEARCHED[type(row)]):
        row.folded = folded(row)


for _model in SEARCHED:
    event.listen(_model, "before_insert", _fold_new)
    event.listen(_model, "before_update", _fold_changed)
