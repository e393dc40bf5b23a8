"""Whose an event's tickets are: the one list that the door and the office look people up in. Only reads."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Select, func, or_, select

from domain import codes, folding
from domain.searching import Searched
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


def searched(event: Event, words: str, *, types: bool = False) -> Searched:
    """An event's tickets as a list to search: by whose they are, by their codes, with `types` by theirs."""
    texts = [folding.searchable(Order), folding.searchable(Athlete), func.lower(Ticket.code)]
    texts += [folding.searchable(TicketType)] if types else []
    rows = select(Ticket).where(Ticket.event_id == event.id)
    near = folding.matches(words, *texts)
    besides = partial(_of_type, event) if types else _nothing
    return Searched(Ticket.id, Ticket.order_id, rows, of_event(event), near, besides)


def _of_type(event: Event, word: str) -> ColumnElement[bool] | None:
    """The tickets of the types whose name has a word in it."""
    ids = [kind.id for kind in event.ticket_types if word in folding.folded(kind)]
    return Ticket.ticket_type_id.in_(ids) if ids else None


def _nothing(word: str) -> None:
    return None


def of_athletes(words: str) -> ColumnElement[bool]:
    """Whether each word is in an athlete's name or a code, a ticket's however it is typed."""
    code = codes.clean(words)
    texts = (folding.searchable(Athlete), func.lower(Order.code), func.lower(Ticket.code))
    found = folding.matches(words, *texts)
    return or_(found, Ticket.code == code) if code else found


def named(words: str) -> list[Select[int]]:
    """Orders by a ticket's code, however it is typed."""
    code = codes.clean(words)
    return [select(Ticket.order_id).where(Ticket.code == code)] if code else []


def read(query: Select[*tuple[Any, ...]]) -> list[Holder]:
    """The rows of such a query."""
    return [Holder(**row._asdict()) for row in db.session.execute(query)]
