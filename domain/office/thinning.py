"""Buyers of past events, thinned by age: by whom an order was reached goes first, its name with the books.

An event at a time, its orders in batches, each a short transaction of rows that nobody else holds. An order
whose money is still on its way is left for another time, and its event is looked at again in a month.
"""

from __future__ import annotations

from datetime import timedelta
from time import monotonic

import structlog
from sqlalchemy import ColumnElement, and_, false, or_, select

import config
from domain import addresses, clock
from domain.office import erasing
from extensions import db
from models import Event, Order

log = structlog.get_logger(__name__)

# What is left of an event's buyers: all, no more than their names, nothing.
ALL, NAMES, NOTHING = 0, 1, 2
_BATCH = 200
_AGAIN = timedelta(days=30)
_BUDGET_SECONDS = 60


def run(*, budget_seconds: float = _BUDGET_SECONDS) -> int:
    """Thin what is old enough, until nothing is left or the budget has passed; how many orders. Commits."""
    ends, number = monotonic() + budget_seconds, 0
    while monotonic() < ends:
        event = db.session.scalar(select(Event).where(_due()).order_by(Event.ends_at).limit(1))
        if event is None:
            break
        number += _thin(event.id, ends)
    db.session.rollback()
    if config.get().buyers_kept_months:
        number += erasing.strange_money(clock.now() - _months(config.get().buyers_kept_months))
        db.session.commit()
    if number:
        log.info("buyers_thinned", orders=number)
    return number


def _due() -> ColumnElement[bool]:
    now, settings = clock.now(), config.get()
    names = and_(Event.thinned < NOTHING, Event.ends_at < now - _years(settings.books_kept_years))
    contacts: ColumnElement[bool] = false()
    if settings.buyers_kept_months:
        old = now - _months(settings.buyers_kept_months)
        contacts = and_(Event.thinned < NAMES, Event.ends_at < old)
    return and_(or_(names, contacts), or_(Event.thin_again_at.is_(None), Event.thin_again_at <= now))


def _months(number: int) -> timedelta:
    return timedelta(days=round(number * 365.25 / 12))


def _years(number: int) -> timedelta:
    return timedelta(days=round(number * 365.25))


def _thin(event_id: int, ends: float) -> int:
    """Thin an event's orders; how many. What a budget cut short goes on where it was, in the next run."""
    event = db.session.get_one(Event, event_id)
    last = event.ends_at < clock.now() - _years(config.get().books_kept_years)
    left = Order.name != "" if last else Order.email != addresses.GONE
    of_event, after, number = and_(Order.event_id == event_id, left), 0, 0
    while monotonic() < ends:
        orders = db.session.scalars(
            select(Order)
            .where(of_event, Order.id > after, ~erasing.is_open())
            .order_by(Order.id)
            .limit(_BATCH)
            .with_for_update(skip_locked=True, key_share=True)
            .execution_options(populate_existing=True)
        ).all()
        if not orders:
            _done(event_id, of_event, last)
            return number
        after, number = orders[-1].id, number + len(orders)
        if last:
            erasing.names(orders)
        erasing.contacts(orders)
        db.session.commit()
    return number


def _done(event_id: int, of_event: ColumnElement[bool], last: bool) -> None:
    """Write down how far the event is, with who stood at its door and the athletes whom members removed."""
    event = db.session.get_one(Event, event_id, with_for_update={"key_share": True}, populate_existing=True)
    if db.session.scalar(select(Order.id).where(of_event).limit(1)) is not None:
        event.thin_again_at = clock.now() + _AGAIN
    else:
        event.thinned, event.thin_again_at = NOTHING if last else NAMES, None
    erasing.staff_of_event(event_id)
    erasing.removed_athletes_of(event_id, Order.email != addresses.GONE)
    db.session.commit()
