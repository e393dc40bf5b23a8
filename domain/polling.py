"""When a payment is asked about: by the sweep, by whoever waits for it, and by a person's decision."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import or_, update

from domain import clock, providers
from extensions import db
from models import PAYMENT_ACTIVE, Payment

# Whoever waits, or rings without a signature, makes us ask the provider at most this often.
ASK_EVERY = timedelta(seconds=2)
# A payment that is final is read again for late money, refunds and disputes.
REREADS = (timedelta(hours=1), timedelta(days=1))


def next_check(payment: Payment, now: datetime) -> datetime | None:
    """When the sweep looks again, after a check at `now`. None: at rest.

    Young payments are asked about in every sweep; older ones ever less often.
    """
    if payment.state in PAYMENT_ACTIVE:
        age = now - payment.created_at
        if age < timedelta(hours=3):
            return now
        return now + (timedelta(minutes=15) if age < timedelta(days=1) else timedelta(minutes=30))
    if providers.get(payment.provider, payment.account).immediate:
        return None
    later = (payment.state_since + delay for delay in REREADS)
    soonest = next((moment for moment in later if moment > now), None)
    if soonest is None and any(dispute.closed_at is None for dispute in payment.disputes):
        return now + timedelta(days=1)
    return soonest


def may_ask(payment: Payment) -> bool:
    """Take the turn to ask about a payment: somebody gets it every two seconds. Commits."""
    now = clock.now()
    mine = db.session.scalar(
        update(Payment)
        .where(
            Payment.id == payment.id,
            Payment.state == payment.state,
            or_(Payment.last_polled_at.is_(None), Payment.last_polled_at <= now - ASK_EVERY),
        )
        .values(last_polled_at=now)
        .returning(Payment.id)
    )
    db.session.commit()
    return mine is not None
