"""Who is entered in a tournament: lists to look through, to print and for a spreadsheet. Only reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, Select, and_, case, exists, func, not_, or_, select
from sqlalchemy.orm import contains_eager, joinedload

from domain import addresses, folding, paging, searching, spreadsheets
from domain.catalogue import grades, tournaments
from domain.rendering import when
from extensions import EXPORTS, db, limited
from models import (
    ADMISSIONS,
    Athlete,
    Event,
    Order,
    OrderLine,
    OrderState,
    Participant,
    ParticipantState,
    Payment,
    Ticket,
    TicketState,
    TicketType,
)

_COLUMNS = (
    "Name",
    "Club",
    "Category",
    "Born",
    "Age",
    "Weight (kg)",
    "Grade",
    "State",
    "Order",
    "E-mail",
    "Entered",
    "In",
)


# An entry's number, and its cells in a file.
_Row = tuple[int, tuple[str, ...]]


@dataclass(frozen=True)
class Tally:
    """A category's entries: how many are paid for, and how many wait for their payment."""

    category: TicketType
    paid: int
    pending: int


def _in_state(state: ParticipantState) -> ColumnElement[bool]:
    """The same as Participant.state, asked of the database."""
    issued = exists().where(Ticket.order_id == Order.id)
    paid = issued.where(Ticket.state != TicketState.VOID)
    gone = or_(Participant.withdrawn_at.is_not(None), Order.state == OrderState.REFUNDED, issued)
    if state is ParticipantState.PAID:
        return paid
    return and_(not_(paid), gone if state is ParticipantState.WITHDRAWN else not_(gone))


def _of_event(event: Event) -> Select[Participant]:
    return (
        select(Participant)
        .join(Order, Order.id == Participant.order_id)
        .join(Athlete, Athlete.id == Participant.athlete_id)
        .where(Order.event_id == event.id)
    )


_WITH_ALL = (
    contains_eager(Participant.order).selectinload(Order.tickets),
    contains_eager(Participant.order).selectinload(Order.payments),
    contains_eager(Participant.athlete),
    joinedload(Participant.ticket_type).joinedload(TicketType.category),
)


def find(
    event: Event,
    words: str = "",
    state: ParticipantState | None = None,
    type_id: int | None = None,
    before: int | None = None,
) -> paging.Rows[Participant]:
    """Its entries, the newest first; every word must be in a name, a club, an address or an order's code."""
    rows = _of_event(event)
    if state is not None:
        rows = rows.where(_in_state(state))
    if type_id is not None:
        rows = rows.where(Participant.ticket_type_id == type_id)
    query = rows.options(*_WITH_ALL)
    if not folding.fold(words):
        return paging.page(query, Participant.id, before)
    texts = (folding.searchable(Order), folding.searchable(Athlete), func.lower(Participant.club))
    near = folding.matches(words, *texts)
    searched = searching.Searched(Participant.id, Participant.order_id, rows, rows, near)
    return searching.page(query, words, searched, before)


def tallies(event: Event) -> list[Tally]:
    """How many are entered in each category, in its order."""
    paid = func.count(case((_in_state(ParticipantState.PAID), 1)))
    pending = func.count(case((_in_state(ParticipantState.PENDING), 1)))
    query = (
        select(Participant.ticket_type_id, paid, pending)
        .join(Order, Order.id == Participant.order_id)
        .where(Order.event_id == event.id)
        .group_by(Participant.ticket_type_id)
    )
    counts = {type_id: (paid, pending) for type_id, paid, pending in db.session.execute(query)}
    return [Tally(kind, *counts.get(kind.id, (0, 0))) for kind in event.ticket_types]


def revenue_by_day(event: Event, most: int = 31) -> list[tuple[date, str, int]]:
    """(day, currency, minor units) of what was paid for places, by the tournament's clock; newest last."""
    day = func.date(func.timezone(ZoneInfo(event.timezone).key, Payment.paid_at))
    query = (
        select(day, Payment.currency, func.sum(func.coalesce(Payment.received_minor, Payment.amount_minor)))
        .join(Order, Order.id == Payment.order_id)
        .where(Order.event_id == event.id, Payment.fulfilled, Payment.paid_at.is_not(None))
        .where(exists().where(OrderLine.order_id == Order.id, OrderLine.kind.in_(ADMISSIONS)))
        .group_by(day, Payment.currency)
        .order_by(day.desc(), Payment.currency)
        .limit(most)
    )
    return [(when, currency, int(minor)) for when, currency, minor in db.session.execute(query)][::-1]


def start_list(event: Event) -> list[tuple[TicketType, list[Participant]]]:
    """Who takes part, by category and name: paid for, and not withdrawn."""
    query = (
        _of_event(event)
        .options(*_WITH_ALL)
        .where(_in_state(ParticipantState.PAID))
        .order_by(func.lower(Athlete.name))
    )
    found = _read(query)
    return [(kind, [one for one in found if one.ticket_type_id == kind.id]) for kind in event.ticket_types]


def as_csv(event: Event) -> Iterator[bytes]:
    """Every entry, as a file for a spreadsheet, in parts."""
    first, zone = tournaments.first_day(event), event.timezone
    query = _of_event(event).options(*_WITH_ALL).order_by(Participant.id).limit(paging.PART)

    def read(last: int | None) -> list[_Row]:
        found = db.session.scalars(query if last is None else query.where(Participant.id > last)).unique()
        return [(one.id, tuple(_cells(one, first, zone))) for one in found]

    parts = paging.parts(read, lambda row: row[0])
    return spreadsheets.in_parts(_COLUMNS, ([cells for _, cells in part] for part in parts))


def _read(query: Select[Participant]) -> list[Participant]:
    with limited(EXPORTS):
        return list(db.session.scalars(query).unique())


def _cells(one: Participant, first: date, zone: str) -> Iterable[Any]:
    pattern = "yyyy-MM-dd HH:mm"
    ticket = next(iter(one.order.tickets), None)
    admitted = ticket.checked_in_at if ticket is not None else None
    return (
        one.athlete.name,
        one.club,
        one.ticket_type.name,
        one.athlete.birth_date.isoformat(),
        str(tournaments.age_on(one.athlete.birth_date, first)),
        tournaments.say_kilograms(one.weight_g) if one.weight_g is not None else "",
        grades.say(one.grade) if one.grade is not None else "",
        one.state.value,
        one.order.code,
        addresses.shown(one.order.email),
        when(one.created_at, zone, pattern),
        when(admitted, zone, pattern) if admitted is not None else "",
    )
