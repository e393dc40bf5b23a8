"""An event that takes place at another time, or elsewhere: whoever holds a ticket is told.

Their mail has a new calendar file, which takes the place of the one before. Whoever is to be told is found in
the database, so that it does not matter which process dies: a job begins at once, and the sweep goes on.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, String, and_, cast, func, literal, select, update

from domain import audit, clock
from domain.errors import DomainError
from extensions import db, queue
from models import (
    AuditArea,
    Deed,
    DoorPass,
    Event,
    EventState,
    Order,
    OutboxMail,
    Ticket,
    TicketState,
)

KEY = "event_moved:"


def told_of(event: Event) -> dict[str, Any]:
    """When and where an event is, as its buyers know it: to the minute, as it is typed and printed."""
    return {
        "starts_at": event.starts_at.astimezone(UTC).isoformat(timespec="minutes"),
        "ends_at": event.ends_at.astimezone(UTC).isoformat(timespec="minutes"),
        "timezone": event.timezone,
        "venue": event.venue,
        "address": event.address,
    }


def holders(event: Event) -> tuple[int, int]:
    """How many tickets of an event are out, and in how many orders."""
    admits = (Ticket.event_id == event.id, Ticket.state != TicketState.VOID)
    query = select(func.count(), func.count(Ticket.order_id.distinct())).where(*admits)
    tickets, orders = db.session.execute(query).one()
    return int(tickets), int(orders)


def note(event: Event, was: dict[str, Any], *, agreed: bool) -> None:
    """Note that an event has moved from where it `was`, in the transaction of whoever moves it.

    DomainError ("moves") where people hold tickets for it and nobody has `agreed` to tell them.
    """
    if told_of(event) == was or event.id is None or event.state is EventState.CANCELLED:
        return
    now = clock.now()
    tickets, orders = holders(event)
    if not orders or max(event.ends_at, datetime.fromisoformat(was["ends_at"])) <= now:
        return
    if not agreed:
        raise DomainError(
            "moves",
            f"You are changing when or where it is, and {_many(tickets, 'ticket is', 'tickets are')} out, in "
            f"{_many(orders, 'order', 'orders')}. Tick this, and whoever holds one is told by mail.",
        )
    # Who has not been told of the last change yet hears of both at once.
    if event.moved_from is None or not untold(Order.event_id == event.id, most=1):
        event.moved_from = was
    event.calendar_sequence += 1
    event.moved_at, event.news_told_at = now, None


def keep_doors(event: Event, was: dict[str, Any]) -> None:
    """Let the door's links hold as long after the end as before, where an event is moved to later."""
    ends = (datetime.fromisoformat(one["ends_at"]) for one in (told_of(event), was))
    later = next(ends) - next(ends)
    if event.id is None or later < timedelta(minutes=1):
        return
    kept = db.session.scalars(
        update(DoorPass)
        .where(DoorPass.event_id == event.id, DoorPass.revoked_at.is_(None))
        .values(expires_at=DoorPass.expires_at + later)
        .returning(DoorPass.id)
        .execution_options(synchronize_session=False)
    ).all()
    for pass_id in kept:
        changes = [("expires_at", None, f"{later} later, as the event")]
        audit.note(AuditArea.KEY, Deed.CHANGED, "door pass", pass_id, label=event.title, changes=changes)


def soon(event: Event, was: dict[str, Any]) -> None:
    """Have a worker tell them at once, where there is anything to tell."""
    if event.moved_at is not None and told_of(event) != was:
        queue.soon("moved_events")


def to_tell() -> ColumnElement[bool]:
    """The condition of the events whose holders are to be told where they have moved to."""
    ahead = Event.ends_at > clock.now()
    return and_(Event.moved_at.is_not(None), ahead, Event.state != EventState.CANCELLED)


def untold(which: ColumnElement[bool], most: int | None = None) -> list[Order]:
    """Those of some orders with tickets of an event that was moved since they were made, and not told yet.

    `most`: only to see whether there are any.
    """
    admits = select(Ticket.id).where(Ticket.order_id == Order.id, Ticket.state != TicketState.VOID)
    key = literal(KEY) + cast(Event.calendar_sequence, String) + literal(":") + cast(Order.id, String)
    mailed = select(OutboxMail.id).where(OutboxMail.key == key)
    query = (
        select(Order)
        .join(Event, Event.id == Order.event_id)
        .where(which, to_tell(), Order.created_at < Event.moved_at)
        .where(admits.exists(), ~mailed.exists())
        .order_by(Order.id)
        .limit(most)
    )
    if most is None:
        # A row that somebody holds altogether is told of later, and keeps nobody's news waiting.
        query = query.with_for_update(read=True, key_share=True, skip_locked=True, of=Order)
    return list(db.session.scalars(query))


def _many(number: int, one: str, more: str) -> str:
    return f"{number} {one if number == 1 else more}"
