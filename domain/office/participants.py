"""Who is entered in a tournament: lists to look through, to print and for a spreadsheet. Only reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, Select, and_, func, not_, or_, select
from sqlalchemy.orm import contains_eager, joinedload

from domain import addresses, clock, folding, paging, searching, spreadsheets
from domain.catalogue import grades, takings, tournaments
from domain.people import athletes
from domain.rendering import when
from extensions import EXPORTS, db, limited
from models import (
    Athlete,
    Consent,
    Event,
    Order,
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
    "Guardian's consent",
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


def _in_state(event: Event, state: ParticipantState) -> ColumnElement[bool]:
    """The same as Participant.state, asked of the database: of the event's tickets as a whole, not one by
    one."""
    tickets = select(Ticket.order_id).where(Ticket.event_id == event.id)
    valid = tickets.where(Ticket.state != TicketState.VOID)
    if state is ParticipantState.PAID:
        return Participant.order_id.in_(valid)
    withdrawn, refunded = Participant.withdrawn_at.is_not(None), Order.state == OrderState.REFUNDED
    gone = or_(withdrawn, refunded, Participant.order_id.in_(tickets))
    unpaid = Participant.order_id.not_in(valid)
    return and_(unpaid, gone if state is ParticipantState.WITHDRAWN else not_(gone))


def _of_event(event: Event) -> Select[Participant]:
    return (
        select(Participant)
        .join(Order, Order.id == Participant.order_id)
        .join(Athlete, Athlete.id == Participant.athlete_id)
        .where(*_its(event))
    )


def _its(event: Event) -> tuple[ColumnElement[bool], ...]:
    """What makes an entry an event's, said of each table: else orders are read from the first one on."""
    return (
        Participant.ticket_type_id.in_([kind.id for kind in event.ticket_types]),
        Order.event_id == event.id,
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
        rows = rows.where(_in_state(event, state))
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
    its = (
        select(Ticket.order_id, func.bool_or(Ticket.state != TicketState.VOID).label("valid"))
        .where(Ticket.event_id == event.id)
        .group_by(Ticket.order_id)
        .subquery()
    )
    gone = or_(Participant.withdrawn_at.is_not(None), Order.state == OrderState.REFUNDED)
    paid, pending = func.count().filter(its.c.valid), func.count().filter(its.c.valid.is_(None), not_(gone))
    query = (
        select(Participant.ticket_type_id, paid, pending)
        .join(Order, Order.id == Participant.order_id)
        .outerjoin(its, its.c.order_id == Participant.order_id)
        .where(*_its(event))
        .group_by(Participant.ticket_type_id)
    )
    counts = {type_id: (paid, pending) for type_id, paid, pending in db.session.execute(query)}
    return [Tally(kind, *counts.get(kind.id, (0, 0))) for kind in event.ticket_types]


@dataclass(frozen=True)
class Day:
    """What was paid for places on a day in one currency, and what of it went back since, in minor units."""

    day: date
    currency: str
    taken_minor: int
    back_minor: int

    @property
    def net_minor(self) -> int:
        return self.taken_minor - self.back_minor


def revenue_by_day(event: Event, most: int = 31) -> list[Day]:
    """The last days on which places were paid for, by the tournament's clock; the newest last."""
    day = func.date(func.timezone(ZoneInfo(event.timezone).key, Payment.paid_at))
    taken = func.coalesce(Payment.received_minor, Payment.amount_minor)
    query = (
        select(day, Payment.currency, func.sum(taken), func.sum(takings.back_minor()))
        .join(Order, Order.id == Payment.order_id)
        .where(Order.event_id == event.id, Payment.fulfilled, Payment.paid_at.is_not(None))
        .where(takings.for_tickets())
        .group_by(day, Payment.currency)
        .order_by(day.desc(), Payment.currency)
        .limit(most)
    )
    rows = db.session.execute(query).all()
    return [Day(when, currency, int(taken), int(back)) for when, currency, taken, back in rows][::-1]


@dataclass(frozen=True)
class Said:
    """A guardian's word for a minor: who gave it, and when. `stands`: to the text as it is now."""

    by: str
    at: datetime
    stands: bool


def consents(event: Event, found: Iterable[Participant]) -> dict[int, Said | None]:
    """Participant's id -> the newest consent for them, None where there is none; of minors alone."""
    minors = {one.id: one.athlete_id for one in found if athletes.is_minor(one.athlete, event)}
    query = select(Consent).where(Consent.athlete_id.in_(set(minors.values()))).order_by(Consent.id)
    newest = {kept.athlete_id: kept for kept in db.session.scalars(query.options(joinedload(Consent.user)))}
    now = athletes.consent_hash() if minors else ""
    return {id_: _said(newest.get(athlete_id), now) for id_, athlete_id in minors.items()}


def _said(kept: Consent | None, now: str) -> Said | None:
    if kept is None:
        return None
    return Said(kept.user.name or addresses.shown(kept.user.email), kept.given_at, kept.text_hash == now)


def misplaced(event: Event, found: Iterable[Participant]) -> dict[int, str]:
    """Participant's id -> why their category is not for them now: it, the day or the athlete was changed.

    Nobody is put out for that: whoever runs the tournament decides. Over, its weights are forgotten.
    """
    if event.ends_at <= clock.now():
        return {}
    asked = ((one, tournaments.why_not(one.ticket_type, _as_entered(one))) for one in found)
    return {one.id: why for one, why in asked if why and one.state is not ParticipantState.WITHDRAWN}


def _as_entered(one: Participant) -> tournaments.Entrant:
    return tournaments.Entrant(one.athlete.birth_date, one.athlete.sex, one.weight_g, one.grade)


def start_list(event: Event) -> list[tuple[TicketType, list[Participant]]]:
    """Who takes part, by category and name: paid for, and not withdrawn."""
    query = (
        _of_event(event)
        .options(*_WITH_ALL)
        .where(_in_state(event, ParticipantState.PAID))
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
        some = list(found)
        said = consents(event, some)
        return [(one.id, tuple(_cells(one, first, zone, _consent(one, said, zone)))) for one in some]

    parts = paging.parts(read, lambda row: row[0])
    return spreadsheets.in_parts(_COLUMNS, ([cells for _, cells in part] for part in parts))


def _consent(one: Participant, said: Mapping[int, Said | None], zone: str) -> str:
    """A minor's consent in a cell; "" for who needs none."""
    if one.id not in said:
        return ""
    kept = said[one.id]
    if kept is None:
        return "missing"
    words = f"{kept.by}, {when(kept.at, zone, 'yyyy-MM-dd HH:mm')}"
    return words if kept.stands else f"{words}, to an earlier text"


def _read(query: Select[Participant]) -> list[Participant]:
    with limited(EXPORTS):
        return list(db.session.scalars(query).unique())


def _cells(one: Participant, first: date, zone: str, consent: str) -> Iterable[Any]:
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
        consent,
        one.state.value,
        one.order.code,
        addresses.shown(one.order.email),
        when(one.created_at, zone, pattern),
        when(admitted, zone, pattern) if admitted is not None else "",
    )
