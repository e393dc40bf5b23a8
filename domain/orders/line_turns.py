"""Turns in an event's waiting line: who may order now, and what has lapsed.

Of what one network has not paid for, only a share of each ticket type can be held at a time:

* a third, of what its buyers have not gone on to pay for;
* a third of all that is unpaid while others, from other networks, wait; else as much as leaves a third free.

While all who wait can be served, and a third stays free, all of them have their turn at once: a school behind
one address is not held up by its own number. Where more want tickets than there are, turns are given within
those shares, so whoever never pays makes others wait for as long as the holds live, which is minutes. Turns
are given by whoever looks at the line, every few seconds at most; the sweep does what nobody looks at.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import ColumnElement, and_, func, or_, select, text, update

import config
from domain import clock, locks, row_by_row
from domain.catalogue import availability
from domain.payments import reconciling
from domain.post import outbox
from extensions import db, queue
from models import (
    Event,
    EventState,
    LineMode,
    LinePlace,
    Order,
    OrderLine,
    Payment,
    PaymentState,
    StockState,
    TicketType,
)

# So long is a turn's own time.
TURN = timedelta(minutes=5)
# A turn that was not used for so long keeps nobody else waiting any more, but is good until it lapses.
_RESERVES = timedelta(minutes=1)
# A link that nobody opens is of no use after a day.
_UNOPENED = timedelta(days=1)
# Turns are given this often at most, to so many of a network who have waited longest.
_EVERY = timedelta(seconds=3)
_LOOKED_AT = 500
# Holds that have lapsed are ended by whoever comes next, so many at a time.
_ENDED_AT_ONCE = 20
_ENDED_IN_A_MINUTE = 200
# Who has waited for so long may have left the page, and is mailed that it is their turn.
_MAILED_AFTER = timedelta(minutes=1)
_LOCK = 0x6C696E65
_ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(:line, :event)")


def waiting(event_id: int) -> tuple[ColumnElement[bool], ...]:
    return (
        LinePlace.event_id == event_id,
        LinePlace.ended_at.is_(None),
        LinePlace.confirmed_at.is_not(None),
        LinePlace.turn_at.is_(None),
    )


def give_turns(event_id: int) -> None:
    """End what has lapsed, and give turns to who has waited longest and may order now. Commits.

    Does nothing where that was done a moment ago.
    """
    now = clock.now()
    mine = db.session.scalar(
        update(Event)
        .where(Event.id == event_id)
        .where(or_(Event.line_moved_at.is_(None), Event.line_moved_at <= now - _EVERY))
        .values(line_moved_at=now)
        .returning(Event.id)
        .execution_options(synchronize_session=False)
    )
    db.session.commit()
    if mine is None:
        return
    end_lapsed(event_id)
    if locks.in_one_transaction(lambda: _give(event_id)):
        queue.soon("deliver_mail")


def look_after() -> int:
    """The same for each event with a line, each minute: who waits may have closed the page. Commits.

    And what was kept for long enough at the provider ends, which takes calls that no visitor waits for.
    """
    on = or_(Event.line == LineMode.ON, and_(Event.line == LineMode.AUTO, Event.line_since.is_not(None)))
    found = db.session.scalars(
        select(Event.id).where(on, Event.state == EventState.PUBLISHED, Event.ends_at > clock.now())
    ).all()
    db.session.commit()
    for event_id in found:
        end_unpaid(event_id)
        give_turns(event_id)
    return len(found)


def end_unpaid(event_id: int) -> int:
    """End what its buyers have gone on to pay for and have not paid in time: paid meanwhile wins. Commits."""
    over = db.session.scalars(
        select(Payment.id)
        .join(Order, Order.id == Payment.order_id)
        .where(Order.event_id == event_id, Order.stock_state == StockState.HELD)
        .where(Payment.state == PaymentState.OPEN, Payment.closes_at <= clock.now())
        .order_by(Payment.closes_at)
        .limit(_ENDED_IN_A_MINUTE)
    ).all()
    db.session.commit()
    one_by_one = row_by_row.Apart("payment")
    for payment_id in over:
        one_by_one.do(payment_id, partial(reconciling.reconcile, payment_id, door="line"))
    return len(over)


def end_lapsed(event_id: int) -> int:
    """End orders whose buyers have not gone on to pay in time: others get their tickets. Commits."""
    lapsed = db.session.scalars(
        select(Payment.id)
        .join(Order, Order.id == Payment.order_id)
        .where(Order.event_id == event_id, Order.stock_state == StockState.HELD)
        .where(Payment.state == PaymentState.CREATED, Payment.awaits_buyer, Payment.closes_at <= clock.now())
        .order_by(Payment.closes_at)
        .limit(_ENDED_AT_ONCE)
    ).all()
    db.session.commit()
    for payment_id in lapsed:
        reconciling.reconcile(payment_id, door="line")
    return len(lapsed)


@dataclass
class _Room:
    """What is free of each ticket type, and what each network holds unpaid of it."""

    free: dict[int, int]
    third: dict[int, int]
    capacity: dict[int, int]
    unpaid: Counter[tuple[str, int]]
    not_gone_on: Counter[tuple[str, int]]

    def of(self, where: str, *, others_wait: bool) -> int:
        """How many tickets of all types somebody from this network could order now."""
        return sum(max(0, self._of_type(where, kind, others_wait)) for kind in self.free)

    def beyond_a_third(self) -> int:
        """How many tickets are free of all types if a third of each is left."""
        return sum(max(0, free - self.third[kind]) for kind, free in self.free.items())

    def _of_type(self, where: str, kind: int, others_wait: bool) -> int:
        third = self.third[kind]
        most = third if others_wait else max(third, self.capacity[kind] - third)
        return min(
            self.free[kind],
            third - self.not_gone_on[where, kind],
            most - self.unpaid[where, kind],
        )


def path(event: Event, place: LinePlace) -> str:
    """The path of a place's page."""
    return f"{event.path}/line/{place.secret}"


def link(event: Event, place: LinePlace) -> str:
    """The whole address of a place's page, for a mail."""
    return f"{config.get().public_url}{path(event, place)}"


def _give(event_id: int) -> bool:
    """One at a time for each event. Whether somebody is to be mailed of it."""
    db.session.execute(_ONE_AT_A_TIME, {"line": _LOCK, "event": event_id})
    now = clock.now()
    _end_places(event_id, now)
    event = db.session.get_one(Event, event_id, populate_existing=True)
    places = _longest_waiting(event_id)
    if not places:
        return False
    room = _room(event, now)
    given: Counter[str] = Counter(_unused_turns(event_id, now))
    networks = {place.network for place in places}
    left = sum(room.free.values()) - given.total()
    enough_for_all = len(places) + given.total() <= room.beyond_a_third()
    mailed = False
    for place in places:
        if left <= 0:
            break
        others_wait = bool(networks - {place.network})
        taken = 0 if enough_for_all else given[place.network]
        if room.of(place.network, others_wait=others_wait) <= taken:
            continue
        place.turn_at, place.lapses_at = now, now + TURN
        given[place.network] += 1
        left -= 1
        mailed |= _tell(event, place, now)
    return mailed


def _tell(event: Event, place: LinePlace, now: datetime) -> bool:
    """Owe whoever has waited the mail that it is their turn. They have proven that they read it."""
    if place.confirmed_at is None or now - place.confirmed_at < _MAILED_AFTER:
        return False
    context = {"link": link(event, place), "title": event.title, "minutes": int(TURN.total_seconds()) // 60}
    outbox.stage("line_turn", key=f"line:{place.id}:turn", to=place.email, context=context)
    return True


def _longest_waiting(event_id: int) -> list[LinePlace]:
    """Those who have waited longest, so many of each network: one with thousands of places hides no other."""
    number = func.row_number().over(
        partition_by=LinePlace.network, order_by=(LinePlace.confirmed_at, LinePlace.id)
    )
    numbered = select(LinePlace.id, number.label("number")).where(*waiting(event_id)).subquery()
    found = select(LinePlace).join(numbered, numbered.c.id == LinePlace.id)
    found = found.where(numbered.c.number <= _LOOKED_AT)
    return list(db.session.scalars(found.order_by(LinePlace.confirmed_at, LinePlace.id)))


def _end_places(event_id: int, now: datetime) -> None:
    """Places that were used, have lapsed, or were never taken: their addresses may take others."""
    over = or_(
        and_(LinePlace.order_id.is_(None), LinePlace.lapses_at <= now),
        and_(LinePlace.confirmed_at.is_(None), LinePlace.created_at <= now - _UNOPENED),
        LinePlace.order_id.in_(
            select(Order.id).where(Order.event_id == event_id, Order.stock_state != StockState.HELD)
        ),
    )
    db.session.execute(
        update(LinePlace)
        .where(LinePlace.event_id == event_id, LinePlace.ended_at.is_(None), over)
        .values(ended_at=now)
        .execution_options(synchronize_session=False)
    )


def _room(event: Event, now: datetime) -> _Room:
    _, states = availability.states_of(event, now)
    kinds = [kind for kind in event.ticket_types if states[kind.id] is availability.Sale.OPEN]
    for kind in kinds:
        db.session.refresh(kind, ["sold", "held", "capacity"])
    unpaid, not_gone_on = held_by_network(event.id)
    return _Room(
        {kind.id: kind.available for kind in kinds},
        {kind.id: third_of(kind) for kind in kinds},
        {kind.id: kind.capacity for kind in kinds},
        unpaid,
        not_gone_on,
    )


def third_of(kind: TicketType) -> int:
    """How many tickets of a type one network may hold before it goes on to pay."""
    return max(1, kind.capacity // 3)


def held_by_network(event_id: int) -> tuple[Counter[tuple[str, int]], Counter[tuple[str, int]]]:
    """By network and ticket type: what is held unpaid, and what of that waits for its buyer to go on."""
    waits = and_(Payment.state == PaymentState.CREATED, Payment.awaits_buyer)
    held = db.session.execute(
        select(
            func.coalesce(Order.network, ""),
            OrderLine.ticket_type_id,
            func.sum(OrderLine.quantity),
            func.coalesce(func.sum(OrderLine.quantity).filter(Payment.id.is_not(None)), 0),
        )
        .join(OrderLine, OrderLine.order_id == Order.id)
        .outerjoin(Payment, and_(Payment.order_id == Order.id, waits))
        .where(Order.event_id == event_id, Order.stock_state == StockState.HELD)
        .where(OrderLine.ticket_type_id.is_not(None))
        .group_by(Order.network, OrderLine.ticket_type_id)
    ).all()
    unpaid: Counter[tuple[str, int]] = Counter()
    not_gone_on: Counter[tuple[str, int]] = Counter()
    for where, kind, all_of_it, unasked in held:
        unpaid[where, kind or 0] += all_of_it
        not_gone_on[where, kind or 0] += unasked
    return unpaid, not_gone_on


def _unused_turns(event_id: int, now: datetime) -> dict[str, int]:
    """By network: turns that were given a moment ago and not used yet."""
    found = db.session.execute(
        select(LinePlace.network, func.count())
        .where(LinePlace.event_id == event_id, LinePlace.ended_at.is_(None), LinePlace.order_id.is_(None))
        .where(LinePlace.turn_at > now - _RESERVES)
        .group_by(LinePlace.network)
    ).all()
    return {str(where): int(number) for where, number in found}
