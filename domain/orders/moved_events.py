"""Whoever holds a ticket of an event that was moved is told; catalogue/event_moves.py notes the moves."""

from __future__ import annotations

from domain.catalogue import event_moves
from domain.post import outbox
from extensions import db, queue


def tell_holders() -> int:
    """Owe a mail to whoever held a ticket as an event was moved, once for each move; how many. Commits."""
    told = 0
    while orders := event_moves.untold():
        for order in orders:
            assert order.event is not None
            outbox.stage(
                "event_moved",
                key=f"{event_moves.KEY}{order.event.calendar_sequence}:{order.id}",
                to=order.email,
                order=order,
                context={"was": order.event.moved_from},
            )
        told += len(orders)
        db.session.commit()
    db.session.rollback()
    if told:
        queue.soon("deliver_mail")
    return told
