"""What was observed and decided about an order, kept for good and shown to whoever answers the buyer."""

from __future__ import annotations

from typing import Any

import structlog
from sqlalchemy import select

from domain import clock
from extensions import db
from models import Order, Payment, TimelineEntry

_log = structlog.get_logger(__name__)


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
    """Add an entry to the order's timeline. `what` is a short code, `text` a sentence. Does not commit.

    The log gets a line too, with the codes by which it is found, but not the sentence, which may name people.
    """
    _log.info(
        "noted",
        order=order.code,
        payment=payment.reference if payment is not None else None,
        what=what,
        door=door,
        actor=actor_id,
    )
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


def has(payment: Payment, what: str) -> bool:
    """Whether `what` was noted of this payment before."""
    noted = select(TimelineEntry.id).where(
        TimelineEntry.order_id == payment.order_id,
        TimelineEntry.payment_id == payment.id,
        TimelineEntry.what == what,
    )
    return db.session.scalar(noted.limit(1)) is not None


def asked_by_staff(payment: Payment, kind: str) -> bool:
    """Whether the mail of `kind` tells of what one of ours cancelled; whoever ordered can, too."""
    if kind != "order_cancelled":
        return False
    noted = select(TimelineEntry.id).where(
        TimelineEntry.order_id == payment.order_id,
        TimelineEntry.payment_id == payment.id,
        TimelineEntry.what == "cancel_asked",
        TimelineEntry.actor_id.is_not(None),
    )
    return db.session.scalar(noted.limit(1)) is not None


# Doors of whoever runs Kassa, and what is written there in a person's own words.
_STAFFS = ("admin", "command", "desk")
_TYPED = frozenset(
    ("decided", "failed", "cancelled", "expired", "polling_stopped", "polling_extended", "refund_asked")
    + ("noted", "withdrawn", "fee_waived", "listing_decided", "address_corrected")
    + ("told_paid", "told_confirmed", "told_withdrawn", "told_unpaid", "refund_made", "refund_not_made")
)


def is_staffs_word(entry: TimelineEntry) -> bool:
    """Whether an entry's text was written by staff, so that it is between them and no organiser reads it."""
    return entry.door in _STAFFS and entry.what in _TYPED
