"""What an event has sold so far: tickets by type, and the money that is left of it. Only reads.

A listing fee is an order of the event too, but its money is the platform's: only orders of tickets count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, and_, exists, func, literal_column, select

from domain.kept_answers import KeptAnswers
from extensions import EXPORTS, db, limited
from models import (
    ADMISSIONS,
    Dispute,
    DisputeState,
    Event,
    EventState,
    Order,
    OrderLine,
    Payment,
    Refund,
    RefundState,
    Ticket,
    TicketState,
    TicketType,
)

# What an event that has sold more took is kept for a while.
_LARGE = 20_000
# Money that is gone, or accepted by the provider to go.
_GOING = (RefundState.PENDING, RefundState.SUCCEEDED)


@dataclass(frozen=True)
class TypeSales:
    """One ticket type. `guests` are of the `sold`; `taken_minor` is what was paid for it, refunded or not."""

    ticket_type: TicketType
    guests: int
    taken_minor: int


@dataclass(frozen=True)
class Money:
    """What an event took in one currency, in minor units, and what went back.

    `disputed_minor` is with banks for as long as they decide; `lost_minor` they have kept.
    """

    currency: str
    taken_minor: int
    refunded_minor: int
    disputed_minor: int
    lost_minor: int

    @property
    def net_minor(self) -> int:
        return self.taken_minor - self.refunded_minor - self.disputed_minor - self.lost_minor


@dataclass(frozen=True)
class Sales:
    """One event's sales so far. `days` are the last days on which tickets were issued, with how many."""

    types: Sequence[TypeSales]
    money: Sequence[Money]
    days: Sequence[tuple[date, int]]

    @property
    def sold(self) -> int:
        return sum(entry.ticket_type.sold for entry in self.types)

    @property
    def capacity(self) -> int:
        return sum(entry.ticket_type.capacity for entry in self.types)


@dataclass(frozen=True)
class _Sums:
    """What is summed up of an event's orders: by ticket type what was paid, and how many are guests'."""

    taken: Mapping[int | None, int]
    guests: Mapping[int, int]
    money: Sequence[Money]
    days: Sequence[tuple[date, int]]


def for_tickets() -> ColumnElement[bool]:
    """The condition of an order that is about tickets: it has an event, and is not for its listing fee.

    Which are for a fee, an index of few rows knows; the lines of a million orders need not be read for it.
    """
    fee = OrderLine.kind == literal_column("'listing_fee'")
    return and_(Order.event_id.is_not(None), ~exists().where(OrderLine.order_id == Order.id, fee))


def counted_disputes() -> tuple[ColumnElement[bool], ...]:
    """The conditions of a dispute whose money is gone: an inquiry has taken nothing."""
    return Dispute.state != DisputeState.WON, Dispute.took_money.is_(True)


def back_minor() -> ColumnElement[int]:
    """What went back of a payment, or is with a bank, for a query over payments."""
    refunds = select(func.coalesce(func.sum(Refund.amount_minor), 0)).where(
        Refund.payment_id == Payment.id, Refund.state.in_(_GOING)
    )
    disputes = select(func.coalesce(func.sum(Dispute.amount_minor), 0)).where(
        Dispute.payment_id == Payment.id, *counted_disputes()
    )
    return refunds.scalar_subquery() + disputes.scalar_subquery()


# Of large events alone: to sum up a hundred thousand orders takes a second each time.
_kept: KeptAnswers[int, _Sums] = KeptAnswers()


def of_event(event: Event) -> Sales:
    """All that an organiser sees of one event, in a number of queries that does not grow with its sales.

    Of a large event it may be some minutes old.
    """
    sums = _sums(event)
    types = [
        TypeSales(kind, sums.guests.get(kind.id, 0), sums.taken.get(kind.id, 0))
        for kind in event.ticket_types
    ]
    return Sales(types, sums.money, sums.days)


def is_large(event: Event) -> bool:
    """Whether it has sold so much that it is summed up once, and that kept for a while."""
    if event.state is not EventState.CANCELLED:
        return sum(kind.sold for kind in event.ticket_types) > _LARGE
    # What was paid back is sold no more, and still to be counted.
    some = select(Order.id).where(Order.event_id == event.id).limit(_LARGE + 1).subquery()
    return (db.session.scalar(select(func.count()).select_from(some)) or 0) > _LARGE


def _sums(event: Event) -> _Sums:
    def work() -> _Sums:
        db.session.rollback()
        with limited(EXPORTS):
            found = _sum_up(event)
            db.session.rollback()
        return found

    return _kept.get(event.id, work) if is_large(event) else _sum_up(event)


def _sum_up(event: Event) -> _Sums:
    taken: dict[int | None, int] = {
        type_id: int(minor)
        for type_id, minor in db.session.execute(
            select(OrderLine.ticket_type_id, func.sum(OrderLine.quantity * OrderLine.unit_minor))
            .join(Order, Order.id == OrderLine.order_id)
            .join(Payment, Payment.order_id == Order.id)
            .where(Order.event_id == event.id, Payment.fulfilled, OrderLine.kind.in_(ADMISSIONS))
            .group_by(OrderLine.ticket_type_id)
        )
    }
    # The guests' orders are few, and an index has them.
    invited = (
        select(Ticket.ticket_type_id, func.count())
        .join(Order, Order.id == Ticket.order_id)
        .where(Order.event_id == event.id, Order.guest_of_id.is_not(None), Ticket.state != TicketState.VOID)
        .group_by(Ticket.ticket_type_id)
    )
    guests: dict[int, int] = {row[0]: row[1] for row in db.session.execute(invited)}
    return _Sums(taken, guests, _money_of([event]).get(event.id, []), _days(event))


def money_of(events: Sequence[Event]) -> dict[int | None, list[Money]]:
    """Event id -> what it took, a Money for each currency; in five queries however many events.

    Of large events it may be some minutes old.
    """
    sold = (
        select(TicketType.event_id)
        .where(TicketType.event_id.in_([event.id for event in events]))
        .group_by(TicketType.event_id)
        .having(func.sum(TicketType.sold) > _LARGE)
    )
    ids = set(db.session.scalars(sold))
    large = [event for event in events if event.id in ids]
    found = _money_of([event for event in events if event not in large])
    return found | {event.id: list(_sums(event).money) for event in large}


def _money_of(events: Sequence[Event]) -> dict[int | None, list[Money]]:
    ids = [event.id for event in events]
    received = func.sum(func.coalesce(Payment.received_minor, Payment.amount_minor))
    paid = (
        select(Order.event_id, Payment.currency, received)
        .join(Payment, Payment.order_id == Order.id)
        .where(Order.event_id.in_(ids), Payment.fulfilled, for_tickets())
        .group_by(Order.event_id, Payment.currency)
        .order_by(Order.event_id, Payment.currency)
    )
    refunded = _gone(ids, Refund, Refund.state.in_(_GOING))
    disputed = _gone(ids, Dispute, *counted_disputes(), Dispute.state == DisputeState.OPEN)
    lost = _gone(ids, Dispute, *counted_disputes(), Dispute.state == DisputeState.LOST)
    found: dict[int | None, list[Money]] = {}
    for event_id, currency, taken in db.session.execute(paid):
        key = (event_id, currency)
        gone = (sums.get(key, 0) for sums in (refunded, disputed, lost))
        money = Money(currency, int(taken), *gone)
        found.setdefault(event_id, []).append(money)
    return found


def _gone(
    ids: Sequence[int], kind: type[Refund] | type[Dispute], *which: ColumnElement[bool]
) -> dict[tuple[int | None, str], int]:
    """(Event id, currency) -> the sum of some refunds or disputes of what bought its tickets."""
    query = (
        select(Order.event_id, kind.currency, func.sum(kind.amount_minor))
        .join(Payment, Payment.id == kind.payment_id)
        .join(Order, Order.id == Payment.order_id)
        .where(Order.event_id.in_(ids), Payment.fulfilled, for_tickets(), *which)
        .group_by(Order.event_id, kind.currency)
    )
    return {(event_id, currency): int(minor) for event_id, currency, minor in db.session.execute(query)}


def _days(event: Event, most: int = 14) -> list[tuple[date, int]]:
    """The last `most` days, by the event's own clock, on which tickets were issued that are still good."""
    zone = ZoneInfo(event.timezone).key
    day = func.date(func.timezone(zone, Ticket.issued_at))
    query = (
        select(day, func.count())
        .where(Ticket.event_id == event.id, Ticket.state != TicketState.VOID)
        .group_by(day)
        .order_by(day.desc())
        .limit(most)
    )
    return [(when, number) for when, number in db.session.execute(query)][::-1]
