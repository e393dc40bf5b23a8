"""What was observed and decided about an order, kept for good and shown to whoever answers the buyer."""

from __future__ import annotations

from typing import Any

from domain import clock
from extensions import db
from models import Order, Payment, TimelineEntry


def note(
    order: Order,
    what: str,
    text: str,
    *,
    door: str,
    payment: Payment | None = None,
    actor_id: int | None = None,
    data: dict[str, Any] | None = None,
) -> None:
    """Add an entry to the order's timeline. `what` is a short code, `text` a sentence. Does not commit."""
    db.session.add(
        TimelineEntry(
            order_id=order.id,
            payment_id=payment.id if payment is not None else None,
            at=clock.now(),
            door=door,
            what=what,
            text=text,
            data=data or {},
            actor_id=actor_id,
        )
    )
