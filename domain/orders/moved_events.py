"""Whoever holds a ticket of an event that was moved is told; catalogue/event_moves.py notes the moves."""

from __future__ import annotations

from domain.catalogue import event_moves, event_news
from domain.post import outbox
from extensions import queue
from models import Order


def tell_holders() -> int:
    """Owe a mail to whoever held a ticket as an event was moved, once for each move; how many. Commits."""
    told = event_news.tell(event_moves.to_tell(), event_moves.untold, _owe)
    if told:
        queue.soon("deliver_mail")
    return told


def _owe(order: Order) -> None:
    assert order.event is not None
    outbox.stage(
        "event_moved",
        key=f"{event_moves.KEY}{order.event.calendar_sequence}:{order.id}",
        to=order.email,
        order=order,
        context={"was": order.event.moved_from},
    )
