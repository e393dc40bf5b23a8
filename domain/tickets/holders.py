"""Whose an event's tickets are: the one list that the door and the office look people up in. Only reads."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, func, or_, select

from domain import codes, folding
from extensions import db
from models import Athlete, Event, Order, Participant, Ticket, TicketState, TicketType


@dataclass(frozen=True)
class Holder:
    """One ticket with its holder and its order. `guest_list`: it was given, not sold."""

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
    checked_in_by: str
    guest_list: bool


def of_event(event: Event) -> Select[*tuple[Any, ...]]:
    """A query for an event's holders, in no order yet; it can be narrowed by columns of Order and Ticket."""
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
            Ticket.checked_in_by,
            Order.guest_of_id.is_not(None).label("guest_list"),
        )
        .join(TicketType, TicketType.id == Ticket.ticket_type_id)
        .join(Order, Order.id == Ticket.order_id)
        # A tournament's tickets are of athletes, whom somebody else has entered.
        .outerjoin(Participant, Participant.order_id == Order.id)
        .outerjoin(Athlete, Athlete.id == Participant.athlete_id)
        .where(Ticket.event_id == event.id)
    )


def matching(words: str, *texts: ColumnElement[str], buyers: bool = True) -> ColumnElement[bool]:
    """Whether each word is in a name, an address, a code or one of `texts`, as folding.matches() finds it.

    A ticket's code is found however it is typed. Without `buyers`, nobody is found by who ordered for them.
    """
    people = (folding.searchable(Order) if buyers else func.lower(Order.code), folding.searchable(Athlete))
    found = folding.matches(words, *people, func.lower(Ticket.code), *texts)
    code = codes.clean(words)
    return or_(found, Ticket.code == code) if code else found


def read(query: Select[*tuple[Any, ...]]) -> list[Holder]:
    """The rows of such a query."""
    return [Holder(**row._asdict()) for row in db.session.execute(query)]
