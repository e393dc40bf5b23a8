"""The words by which orders are found, a row each in `order_words`, written with what they are of.

Of an order: its names, its address and the parts of that, its code, its total and its day. Of its payments:
our reference, the provider's ids, a card's last four digits and the day it was paid on. Of its refunds: ids
and amounts. Of its tickets: holders and codes. Of an entry: the athlete and the club. All are folded as
`domain/folding.py` does, so that whoever searches compares by equality or by a word's beginning alone, which
an index answers however many orders there are. Rows of one flush bring their words in one statement.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import BigInteger, Connection, Select, String, bindparam, delete, event, inspect, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapper, Session, UOWTransaction

import config
from domain import addresses, folding, money
from extensions import db
from models import Athlete, Order, OrderWord, Participant, Payment, Refund, Ticket

LONGEST = 60
# A name is searched from each of its signs, where its script has no capitals and no blanks; so far in.
_SIGNS = 20
_BREAKS = re.compile(r"[^\w]+")
_PENDING = "order_words"
# Which changes of a row are changes of its words.
_OF_ORDER = ("name", "email", "code")
_OF_PAYMENT = ("charge_id", "last_four")
_OF_REFUND = ("provider_id",)
_OF_ATHLETE = ("name", "club")

_ADD = text(
    "INSERT INTO order_words (order_id, word) SELECT * FROM unnest(:ids, :words) ON CONFLICT DO NOTHING"
).bindparams(bindparam("ids", type_=ARRAY(BigInteger)), bindparam("words", type_=ARRAY(String)))


# --- The words ------------------------------------------------------------------------------------------


def of_text(*texts: str) -> Iterator[str]:
    """The words of names and codes, each from its beginning and from behind each sign that parts it."""
    for word in folding.fold(" ".join(texts)).split():
        yield word
        yield from (word[found.end() :] for found in _BREAKS.finditer(word))
        for place, sign in enumerate(word[:_SIGNS]):
            if unicodedata.category(sign) == "Lo":
                yield word[place:]


def of_address(email: str) -> Iterator[str]:
    """An address and its parts, in both spellings; without its last, which half of all addresses have."""
    for spelled in dict.fromkeys((email, addresses.shown(email))):
        yield from (word for word in of_text(spelled) if _BREAKS.search(word) or "@" not in spelled)


def of_amount(amount: Decimal) -> str:
    """An amount of money, in whatever currency and however many zeros were typed."""
    return f"={amount.normalize():f}"


def of_day(moment: datetime | None) -> Iterator[str]:
    """A day by the box office's clock."""
    if moment is not None:
        yield moment.astimezone(ZoneInfo(config.get().timezone)).date().isoformat()


def _of_name(name: str | None) -> Iterator[str]:
    """A provider's name for something: from its beginning alone, as nobody remembers its middle."""
    if name:
        yield folding.fold(name)


def _of_order(order: Any) -> Iterator[str]:
    yield from of_text(order.name or "", order.code)
    yield from of_address(order.email)
    yield of_amount(money.to_major(order.total_minor, order.currency))
    yield from of_day(order.created_at)


def _of_payment(payment: Any) -> Iterator[str]:
    for name in (payment.reference, payment.provider_id, payment.charge_id, payment.last_four):
        yield from _of_name(name)
    yield from of_day(payment.paid_at)


def _of_refund(refund: Any) -> Iterator[str]:
    yield from _of_name(refund.provider_id)
    yield of_amount(money.to_major(refund.amount_minor, refund.currency))


def _of_ticket(ticket: Any) -> Iterator[str]:
    yield from of_text(ticket.holder, ticket.code)


def _of_athlete(athlete: Any) -> Iterator[str]:
    yield from of_text(athlete.name, athlete.club or "")


def of_orders(connection: Connection, ids: Collection[int]) -> dict[int, set[str]]:
    """All words of some orders, read from the rows themselves; in six questions however many orders."""
    found: dict[int, set[str]] = defaultdict(set)
    of_payments = Payment.order_id.in_(ids)
    ways: tuple[tuple[Select[*tuple[Any, ...]], Any], ...] = (
        (select(Order.id.label("of"), Order.__table__).where(Order.id.in_(ids)), _of_order),
        (select(Payment.order_id.label("of"), Payment.__table__).where(of_payments), _of_payment),
        (
            select(Payment.order_id.label("of"), Refund.__table__)
            .join_from(Refund, Payment)
            .where(of_payments),
            _of_refund,
        ),
        (select(Ticket.order_id.label("of"), Ticket.__table__).where(Ticket.order_id.in_(ids)), _of_ticket),
        (_entries().add_columns(Athlete.__table__).where(Participant.order_id.in_(ids)), _of_athlete),
        (
            select(Participant.order_id.label("of"), Participant.club).where(Participant.order_id.in_(ids)),
            _club,
        ),
    )
    for query, words in ways:
        for row in connection.execute(query):
            found[row.of] |= _kept(words(row))
    return found


def _entries() -> Select[Any]:
    return select(Participant.order_id.label("of")).join(Athlete, Athlete.id == Participant.athlete_id)


def _club(entry: Any) -> Iterator[str]:
    yield from of_text(entry.club or "")


def _kept(words: Iterable[str]) -> set[str]:
    return {word[:LONGEST] for word in words if word}


# --- Writing them ---------------------------------------------------------------------------------------


def of_issued(order: Order, tickets: Iterable[Ticket]) -> None:
    """Note the words of tickets that were written past the session; they are written with its next rows."""
    note(db.session(), order.id, (word for ticket in tickets for word in _of_ticket(ticket)))


def note(session: Session, order_id: int, words: Iterable[str]) -> None:
    """Have words of an order written at the session's next flush, or before it commits."""
    session.info.setdefault(_PENDING, defaultdict(set))[order_id].update(_kept(words))


def add(connection: Connection, words: dict[int, set[str]]) -> None:
    """Write words; those that are there already stay."""
    rows = sorted((order_id, word) for order_id, of_it in words.items() for word in of_it)
    if rows:
        connection.execute(_ADD, {"ids": [row[0] for row in rows], "words": [row[1] for row in rows]})


def renew(connection: Connection, ids: Collection[int]) -> None:
    """Write all words of some orders anew: what they were called before finds them no longer."""
    connection.execute(delete(OrderWord).where(OrderWord.order_id.in_(ids)))
    add(connection, of_orders(connection, ids))


def _write(session: Session) -> None:
    words = session.info.pop(_PENDING, None)
    if words:
        add(session.connection(), words)


def _note_new(session: Session, row: Any) -> None:
    if isinstance(row, Order):
        note(session, row.id, _of_order(row))
    elif isinstance(row, Payment):
        note(session, row.order_id, _of_payment(row))
    elif isinstance(row, Refund):
        note(session, row.payment.order_id, _of_refund(row))
    elif isinstance(row, Participant):
        note(session, row.order_id, [*_of_athlete(row.athlete), *_club(row)])


def _note_changed(session: Session, row: Any) -> set[int]:
    """Note what comes to an order; returned are the orders that may have lost words: theirs are read anew."""
    if isinstance(row, Payment) and _has_changed(row, _OF_PAYMENT):
        note(session, row.order_id, _of_payment(row))
    elif isinstance(row, Refund) and _has_changed(row, _OF_REFUND):
        note(session, row.payment.order_id, _of_refund(row))
    elif isinstance(row, Order) and _has_changed(row, _OF_ORDER):
        return {row.id}
    elif isinstance(row, Athlete) and _has_changed(row, _OF_ATHLETE):
        its = select(Participant.order_id).where(Participant.athlete_id == row.id)
        return set(session.connection().scalars(its))
    return set()


def _has_changed(row: Any, names: Iterable[str]) -> bool:
    seen = inspect(row)
    return any(seen.attrs[name].history.has_changes() for name in names)


@event.listens_for(Order, "before_insert")
def _is_worded(mapper: Mapper[Order], connection: Connection, order: Order) -> None:
    order.worded = True


@event.listens_for(Session, "after_flush")
def _with_their_rows(session: Session, context: UOWTransaction) -> None:
    for row in session.new:
        _note_new(session, row)
    changed = {order_id for row in session.dirty for order_id in _note_changed(session, row)}
    if changed:
        renew(session.connection(), changed)
    _write(session)


@event.listens_for(Session, "before_commit")
def _at_the_latest(session: Session) -> None:
    _write(session)


@event.listens_for(Session, "after_rollback")
def _undone(session: Session) -> None:
    session.info.pop(_PENDING, None)
