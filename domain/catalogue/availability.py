"""Whether tickets can be had at this moment, and if not, why, in the words a buyer reads.

Pure rules over an event and its ticket types, but for one query: when everything is in other people's
baskets, it tells when the first of them closes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from zoneinfo import ZoneInfo

from sqlalchemy import func, select

import config
from domain import clock, epochs
from domain.catalogue import payees
from domain.errors import DomainError
from domain.rendering import when
from extensions import db
from models import (
    Event,
    EventState,
    Order,
    OrderLine,
    OrganiserState,
    Payment,
    PaymentState,
    StockState,
    TicketType,
)


class Sale(StrEnum):
    """Whether tickets can be had at this moment; of an event, or of one of its ticket types."""

    OPEN = "open"
    DRAFT = "draft"
    CANCELLED = "cancelled"
    PAST = "past"
    WITHDRAWN = "withdrawn"
    NOT_YET = "not_yet"
    CLOSED = "closed"
    SOLD_OUT = "sold_out"
    ALL_HELD = "all_held"
    PAYMENTS_OFF = "payments_off"
    NOTHING = "nothing"


@dataclass(frozen=True)
class TypeSelling:
    """One ticket type at this moment. `most` is how many one order may take now; 0 unless `state` is open."""

    ticket_type: TicketType
    state: Sale
    words: str
    most: int


@dataclass(frozen=True)
class Selling:
    """An event at this moment, its state in the buyer's words ("" when open), and its ticket types."""

    event: Event
    state: Sale
    words: str
    types: tuple[TypeSelling, ...]

    @property
    def is_open(self) -> bool:
        return self.state is Sale.OPEN

    @property
    def costs_money(self) -> bool:
        """Whether anything that can be bought now has a price."""
        return any(t.ticket_type.price_minor > 0 for t in self.types if t.state is Sale.OPEN)


def states_of(
    event: Event, now: datetime, accounts: payees.Accounts | None = None
) -> tuple[Sale, dict[int, Sale]]:
    """The state of `event` and of each of its ticket types by id.

    Asks the database only for the account of an organiser, and not where `accounts` are given.
    """
    states = {t.id: _type_state(event, t, now) for t in event.ticket_types}
    priced = [t for t in event.ticket_types if t.price_minor > 0 and states[t.id] is Sale.OPEN]
    for currency in dict.fromkeys(t.currency for t in priced):
        if not payees.payable(event, accounts, currency=currency or ""):
            of_it = (t.id for t in priced if t.currency == currency)
            states |= dict.fromkeys(of_it, Sale.PAYMENTS_OFF)
    wide = _event_wide(event, now)
    if wide is None:
        wide = next((state for state in _PRECEDENCE if state in states.values()), Sale.NOTHING)
    return wide, states


def selling(event: Event, now: datetime | None = None) -> Selling:
    """Whether `event` sells at `now`, and why not, in words; the same for each ticket type."""
    now = now or clock.now()
    state, states = states_of(event, now)
    held = [type_id for type_id, state in states.items() if state is Sale.ALL_HELD]
    until = _held_until(held, now) if held else {}
    types = tuple(
        TypeSelling(
            t,
            states[t.id],
            _type_words(event, t, states[t.id], until.get(t.id), now),
            min(t.available, t.per_order_limit) if states[t.id] is Sale.OPEN else 0,
        )
        for t in event.ticket_types
    )
    first = min(until.values()) if until else None
    return Selling(event, state, _event_words(event, state, first, now), types)


# --- The state of a sale --------------------------------------------------------------------------------


def _event_wide(event: Event, now: datetime) -> Sale | None:
    """What holds for every ticket of the event at once; None when each type decides for itself."""
    if event.state is EventState.DRAFT:
        return Sale.DRAFT
    if event.state is EventState.CANCELLED:
        return Sale.CANCELLED
    if event.ends_at <= now:
        return Sale.PAST
    if event.state is EventState.REVIEW or is_suspended(event) or epochs.is_closed():
        return Sale.WITHDRAWN
    if event.sales_open_at is not None and now < event.sales_open_at:
        return Sale.NOT_YET
    if event.sales_close_at is not None and now >= event.sales_close_at:
        return Sale.CLOSED
    return None


def is_suspended(event: Event) -> bool:
    """Whether the event's organiser may not sell just now. Queries where the organiser was not loaded."""
    if event.organiser_id is None or event.organiser is None:
        return False
    return event.organiser.state is not OrganiserState.APPROVED


def _type_state(event: Event, kind: TicketType, now: datetime) -> Sale:
    wide = _event_wide(event, now)
    if wide is not None:
        return wide
    if kind.sales_open_at is not None and now < kind.sales_open_at:
        return Sale.NOT_YET
    if kind.sales_close_at is not None and now >= kind.sales_close_at:
        return Sale.CLOSED
    if kind.sold >= kind.capacity:
        return Sale.SOLD_OUT
    if kind.available <= 0:
        return Sale.ALL_HELD
    return Sale.OPEN


_DAY_AND_TIME = "EEEE d MMMM y, HH:mm"
# Of several ticket types, the event is in the first of these that any of them is in.
_PRECEDENCE = (Sale.OPEN, Sale.ALL_HELD, Sale.NOT_YET, Sale.PAYMENTS_OFF, Sale.SOLD_OUT, Sale.CLOSED)


def _held_until(type_ids: Sequence[int], now: datetime) -> dict[int, datetime]:
    """For each ticket type, when the first unpaid order that holds some of it closes (if that lies ahead)."""
    query = (
        select(OrderLine.ticket_type_id, func.min(Payment.closes_at))
        .join(Order, Order.id == OrderLine.order_id)
        .join(Payment, Payment.order_id == Order.id)
        .where(
            OrderLine.ticket_type_id.in_(type_ids),
            Order.stock_state == StockState.HELD,
            Payment.state.in_([PaymentState.CREATED, PaymentState.OPEN]),
            Payment.closes_at > now,
        )
        .group_by(OrderLine.ticket_type_id)
    )
    return {type_id: first for type_id, first in db.session.execute(query) if type_id and first}


# --- The words ------------------------------------------------------------------------------------------


def say_when(moment: datetime, timezone: str) -> str:
    """A time as a reader there says it: `Friday 4 December 2026 at 19:30`."""
    return when(moment, timezone, "EEEE d MMMM y 'at' HH:mm")


def say_span(event: Event) -> str:
    """From when to when, in the event's own time: `Friday 4 December 2026, 19:30 to 22:30, Jersey time`."""
    zone = ZoneInfo(event.timezone)
    one_day = event.starts_at.astimezone(zone).date() == event.ends_at.astimezone(zone).date()
    starts = when(event.starts_at, event.timezone, _DAY_AND_TIME)
    ends = when(event.ends_at, event.timezone, "HH:mm" if one_day else _DAY_AND_TIME)
    city = event.timezone.rsplit("/", 1)[-1].replace("_", " ")
    return f"{starts} to {ends}, {city}" + ("" if city == "UTC" else " time")


def _say_soon(moment: datetime, timezone: str, now: datetime) -> str:
    """`at 19:30`, with the day in front when it is another day there."""
    zone = ZoneInfo(timezone)
    if moment.astimezone(zone).date() == now.astimezone(zone).date():
        return when(moment, timezone, "'at' HH:mm")
    return when(moment, timezone, "'on' EEEE 'at' HH:mm")


def _opens_at(event: Event, now: datetime) -> str:
    opens = [event.sales_open_at] if event.sales_open_at is not None and event.sales_open_at > now else []
    opens = opens or [t.sales_open_at for t in event.ticket_types if t.sales_open_at is not None]
    return say_when(min(moment for moment in opens if moment is not None and moment > now), event.timezone)


def _event_words(event: Event, state: Sale, held_until: datetime | None, now: datetime) -> str:
    if event.is_tournament:
        return _tournament_words(event, state, held_until, now)
    if state is Sale.NOT_YET:
        return f"Tickets go on sale on {_opens_at(event, now)}."
    if state is Sale.ALL_HELD:
        return (
            "All the tickets that are left are in other people's baskets. "
            f"Try again {_held_words(held_until, event.timezone, now)}: "
            "what is not paid for by then goes back on sale."
        )
    support = config.get().support_email
    return {
        Sale.OPEN: "",
        Sale.DRAFT: "This event is a draft. Only its organiser and admins see it, and nothing is sold.",
        Sale.WITHDRAWN: "Tickets for this event are not on sale at the moment. "
        f"If you have one already, it is as good as before. Questions? Write to {support}.",
        Sale.CANCELLED: "This event was cancelled and tickets are no longer sold. "
        f"If you have one and have not heard from us, write to {support}.",
        Sale.PAST: "This event is over.",
        Sale.CLOSED: "Ticket sales have closed. There may be tickets at the door.",
        Sale.SOLD_OUT: "Sold out. Every ticket has been bought.",
        Sale.PAYMENTS_OFF: "Tickets cannot be paid for here just now, so none are sold. "
        f"Please look in again later, or write to {support}.",
        Sale.NOTHING: "Tickets are not on sale yet. Please look in again soon.",
    }[state]


def _tournament_words(event: Event, state: Sale, held_until: datetime | None, now: datetime) -> str:
    if state is Sale.NOT_YET:
        return f"Entries open on {_opens_at(event, now)}."
    if state is Sale.ALL_HELD:
        soon = _held_words(held_until, event.timezone, now)
        return f"Others are paying for the places that are left. Try again {soon}: some may be free then."
    support = config.get().support_email
    return {
        Sale.OPEN: "",
        Sale.DRAFT: "This tournament is a draft. Only its organiser and admins see it.",
        Sale.WITHDRAWN: "Nobody can be entered at the moment. Who is entered stays entered. "
        f"Questions? Write to {support}.",
        Sale.CANCELLED: "This tournament was cancelled. If you entered somebody and have not heard from us, "
        f"write to {support}.",
        Sale.PAST: "This tournament is over.",
        Sale.CLOSED: "Entries have closed.",
        Sale.SOLD_OUT: "Every category is full.",
        Sale.PAYMENTS_OFF: "Entries cannot be paid for here just now. Please look in again later, or write "
        f"to {support}.",
        Sale.NOTHING: "Entries are not open yet. Please look in again soon.",
    }[state]


def _held_words(until: datetime | None, timezone: str, now: datetime) -> str:
    return _say_soon(until, timezone, now) if until is not None else "in a few minutes"


def _type_words(
    event: Event, kind: TicketType, state: Sale, held_until: datetime | None, now: datetime
) -> str:
    if event.is_tournament and state in _OF_CATEGORIES:
        return _OF_CATEGORIES[state]
    if state is Sale.NOT_YET and kind.sales_open_at is not None and kind.sales_open_at > now:
        opens = "Open" if event.is_tournament else "On sale"
        return f"{opens} from {say_when(kind.sales_open_at, event.timezone)}"
    if state is Sale.ALL_HELD:
        return f"All in other people's baskets. Try again {_held_words(held_until, event.timezone, now)}"
    if state is Sale.OPEN:
        return f"{kind.available} left" if kind.available <= 10 else ""
    return {
        Sale.NOT_YET: "Not on sale yet",
        Sale.CLOSED: "Sales have closed",
        Sale.SOLD_OUT: "Sold out",
        Sale.WITHDRAWN: "Not on sale at the moment",
        Sale.PAYMENTS_OFF: "Cannot be paid for just now",
    }.get(state, "")


_OF_CATEGORIES = {
    Sale.SOLD_OUT: "Full",
    Sale.CLOSED: "Entries have closed",
    Sale.ALL_HELD: "Others are paying for the last places. Try again in a few minutes",
}
# The same in two or three words, for a list of events.
MARKS = {
    Sale.SOLD_OUT: "Sold out",
    Sale.ALL_HELD: "All in baskets",
    Sale.CLOSED: "Sales closed",
    Sale.NOT_YET: "Not on sale yet",
    Sale.PAYMENTS_OFF: "Not on sale now",
    Sale.WITHDRAWN: "Not on sale now",
    Sale.NOTHING: "Not on sale yet",
}
MARKS_OF_TOURNAMENTS = {
    Sale.SOLD_OUT: "Full",
    Sale.ALL_HELD: "Others are paying",
    Sale.CLOSED: "Entries closed",
    Sale.NOT_YET: "Not open yet",
    Sale.PAYMENTS_OFF: "Not open now",
    Sale.WITHDRAWN: "Not open now",
    Sale.NOTHING: "Not open yet",
}


# --- How long an order is kept for its payment ----------------------------------------------------------

# What every provider can do: a page lives half an hour at least; a day at most, with the hour that it
# outlives the order.
LEAST_MINUTES, MOST_MINUTES = 31, 1370


def check_minutes(minutes: int | None) -> None:
    """Refuse what no provider's page could be kept for. DomainError `poll_minutes`."""
    if minutes is not None and not LEAST_MINUTES <= minutes <= MOST_MINUTES:
        raise DomainError("poll_minutes", f"Give between {LEAST_MINUTES} and {MOST_MINUTES} minutes.")
