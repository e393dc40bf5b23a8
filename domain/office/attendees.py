"""Who comes to an event: a list to look through, and a file for a spreadsheet. Only reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, func, select

from domain import addresses, codes, folding, paging, spreadsheets
from domain.rendering import when
from extensions import EXPORTS, db, limited
from models import Event, Order, Ticket, TicketState, TicketType

_COLUMNS = (
    "Name",
    "E-mail",
    "Ticket type",
    "Ticket code",
    "Order",
    "State",
    "Source",
    "Ordered",
    "In",
)


@dataclass(frozen=True)
class Attendee:
    """One ticket, as its organiser sees it."""

    id: int
    code: str
    number: int
    holder: str
    type: str
    order_code: str
    email: str
    ordered_at: datetime
    state: TicketState
    checked_in_at: datetime | None
    guest_list: bool


def find(event: Event, words: str = "", before: int | None = None) -> paging.Rows[Attendee]:
    """The event's tickets, the newest first; every word must be in a name, an address or a code."""
    query = _select(event)
    texts = [folding.searchable(Order), folding.searchable(TicketType), func.lower(Ticket.code)]
    query = query.where(folding.matches(words, *texts))
    code = codes.clean(words)
    if code:
        query = _select(event).where(Ticket.code == code)
    if before is not None:
        query = query.where(Ticket.id < before)
    rows = [_attendee(row) for row in db.session.execute(query.limit(paging.PAGE + 1))]
    more = rows[paging.PAGE - 1].id if len(rows) > paging.PAGE else None
    return paging.Rows(rows[: paging.PAGE], more)


def as_csv(event: Event) -> bytes:
    """Everybody, as a file for a spreadsheet."""
    zone, rows = event.timezone, _all(event)
    return spreadsheets.as_csv(_COLUMNS, (_cells(_attendee(row), zone) for row in rows))


def _cells(found: Attendee, zone: str) -> tuple[str, ...]:
    pattern = "yyyy-MM-dd HH:mm"
    return (
        found.holder,
        addresses.shown(found.email),
        found.type,
        found.code,
        found.order_code,
        found.state.value,
        "Guest list" if found.guest_list else "Sold",
        when(found.ordered_at, zone, pattern),
        when(found.checked_in_at, zone, pattern) if found.checked_in_at is not None else "",
    )


def _all(event: Event) -> Sequence[Row[Any]]:
    """Read in one go, and the transaction ended: the making of a file does not keep it open."""
    query = _select(event)
    db.session.rollback()
    with limited(EXPORTS):
        rows = db.session.execute(query).all()
        db.session.rollback()
    return rows


def _select(event: Event) -> Select[*tuple[Any, ...]]:
    return (
        select(
            Ticket.id,
            Ticket.code,
            Ticket.number,
            Ticket.holder,
            TicketType.name.label("type"),
            Order.code.label("order_code"),
            Order.email,
            Order.created_at.label("ordered_at"),
            Ticket.state,
            Ticket.checked_in_at,
            Order.guest_of_id.is_not(None).label("guest_list"),
        )
        .join(TicketType, TicketType.id == Ticket.ticket_type_id)
        .join(Order, Order.id == Ticket.order_id)
        .where(Ticket.event_id == event.id)
        .order_by(Ticket.id.desc())
    )


def _attendee(row: Any) -> Attendee:
    return Attendee(**row._asdict())
