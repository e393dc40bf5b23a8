"""News of an event for whoever has a ticket: its orders are looked through a part at a time.

Who is still to be told is found in the database, whatever wrote the news and whichever process died. An event
of few orders is looked through by every sweep; one of many, once nobody was left to be told, every hour.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from sqlalchemy import ColumnElement, func, or_, select

from domain import clock
from extensions import db
from models import Event, Order

_PART = 500
_AGAIN = timedelta(hours=1)
# So many parts are looked through in each sweep without being felt.
_FEW_PARTS = 4


def tell(
    which: ColumnElement[bool],
    untold: Callable[[ColumnElement[bool]], list[Order]],
    owe: Callable[[Order], None],
) -> int:
    """Have `owe` write a mail for each order that `untold` finds, of the events `which`; how many. Commits.

    `untold` is given the condition of the orders that it looks through.
    """
    long_ago = or_(Event.news_told_at.is_(None), Event.news_told_at < clock.now() - _AGAIN)
    events = db.session.scalars(select(Event.id).where(which, long_ago).order_by(Event.id)).all()
    db.session.rollback()
    return sum(_tell(event_id, untold, owe) for event_id in events)


def _tell(
    event_id: int, untold: Callable[[ColumnElement[bool]], list[Order]], owe: Callable[[Order], None]
) -> int:
    told = parts = after = 0
    while (last := _end_of_part(event_id, after)) is not None:
        orders = untold((Order.event_id == event_id) & Order.id.between(after + 1, last))
        for order in orders:
            owe(order)
        db.session.commit()
        told, parts, after = told + len(orders), parts + 1, last
    if not told and parts > _FEW_PARTS:
        db.session.get_one(Event, event_id).news_told_at = clock.now()
        db.session.commit()
    db.session.rollback()
    return told


def _end_of_part(event_id: int, after: int) -> int | None:
    """The last order of the next part, by its number; None where the event has no more."""
    part = (
        select(Order.id).where(Order.event_id == event_id, Order.id > after).order_by(Order.id).limit(_PART)
    )
    last: int | None = db.session.scalar(select(func.max(part.subquery().c.id)))
    return last
