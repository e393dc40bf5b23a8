"""The digests of a sweep: payments that take suspiciously long, orders that expired, rings left undone."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, func, literal, literal_column, or_, select, update
from sqlalchemy.orm import joinedload

import config
from domain import clock
from domain.payments import dead_rings
from domain.post import alerts, outbox
from domain.providers import registry
from extensions import db
from models import Order, OrderState, OutboxMail, Payment, PaymentState, WebhookEvent

# How far before the last digest a payment may have expired without having been seen by it.
_OVERLAP = timedelta(hours=1)
# Where there was no digest before, what has expired for longer than this is no news.
_NEWS = timedelta(days=7)
# So many payments are in one digest at most; the next sweep goes on.
_MOST = 5_000


def raise_stuck() -> None:
    """One digest of the payments that take suspiciously long, each named once."""
    now = clock.now()
    late = now - timedelta(minutes=config.get().stuck_minutes)
    told = Payment.stuck_alerted_at
    # One that was named when it expired, and is being paid late, is named again.
    untold = or_(told.is_(None), told < Payment.state_since)
    slow = and_(Payment.state == PaymentState.PROCESSING, Payment.state_since <= late, untold)
    waiting = and_(told.is_(None), Payment.state.in_([PaymentState.CREATED, PaymentState.OPEN]))
    unread = and_(waiting, Payment.closes_at <= now, Payment.error_count > 0)
    # Where the buyer may have paid and never come back, an open page that is old is worth a look.
    telling = [name for name in registry.names() if registry.get(name).pending_alert]
    began = func.coalesce(Payment.polling_started_at, Payment.created_at)
    pending = and_(waiting, Payment.provider.in_(telling), began <= late)
    stuck = list(
        db.session.scalars(
            select(Payment)
            .where(or_(slow, unread, pending))
            .order_by(Payment.id)
            .limit(200)
            .options(joinedload(Payment.order))
            .with_for_update(skip_locked=True, key_share=True, of=Payment)
        )
    )
    if stuck:
        for payment in stuck:
            payment.stuck_alerted_at = now
        subject, text = alerts.stuck([payment.order for payment in stuck])
        outbox.alert(subject, text, key=f"stuck:{stuck[0].id}-{stuck[-1].id}:{now:%Y%m%d%H%M%S}")
    db.session.commit()


def raise_dead_rings() -> None:
    """One digest of the rings that were left undone for too long, each named once."""
    now = clock.now()
    left = list(
        db.session.scalars(
            select(WebhookEvent)
            .where(*dead_rings.dead(now), WebhookEvent.alerted_at.is_(None))
            .order_by(WebhookEvent.id)
            .limit(200)
            .with_for_update(skip_locked=True)
        )
    )
    if left:
        for event in left:
            event.alerted_at = now
        subject, text = alerts.dead_rings(left)
        outbox.alert(subject, text, key=f"dead_rings:{left[0].id}-{left[-1].id}:{now:%Y%m%d%H%M%S}")
    db.session.commit()


def raise_expired() -> None:
    """One digest of the orders that expired since the last one."""
    now = clock.now()
    last = db.session.scalar(
        select(OutboxMail.created_at)
        # As the index has it, whose alerts are read from the newest on.
        .where(OutboxMail.kind == literal_column("'alert'"), OutboxMail.key.startswith("expired:"))
        .order_by(OutboxMail.created_at.desc())
        .limit(1)
    )
    since = last - _OVERLAP if last is not None else now - _NEWS
    told = Payment.stuck_alerted_at
    untold = (
        select(Payment.id)
        .join(Payment.order)
        .where(
            Payment.state == literal_column("'expired'"),
            or_(told.is_(None), told < Payment.state_since),
            Payment.state_since > since,
            Order.state == OrderState.EXPIRED,
        )
        # As the index has it: what was told of, and what is older, is not read.
        .order_by(Payment.state_since)
        .limit(_MOST)
        # Each row is marked as told under its lock, so that of two sweeps one names it; and one that was
        # being written while a digest was made is found by the next.
        .with_for_update(skip_locked=True, key_share=True, of=Payment)
    )
    mark = update(Payment).where(Payment.id.in_(untold)).values(stuck_alerted_at=_later(now))
    marked = mark.returning(Payment.id, Payment.order_id).execution_options(synchronize_session=False)
    expired = db.session.execute(marked).all()
    if expired:
        ids, orders = sorted(row.id for row in expired), {row.order_id for row in expired}
        named = select(Order).where(Order.id.in_(sorted(orders)[: alerts.MOST_LINES])).order_by(Order.id)
        subject, text = alerts.expired(db.session.scalars(named).all(), len(orders))
        outbox.alert(subject, text, key=f"expired:{ids[0]}-{ids[-1]}:{now:%Y%m%d%H%M%S%f}")
    db.session.commit()


def _later(now: datetime) -> ColumnElement[datetime]:
    """Now, or since when it has expired by another machine's clock, whichever is later."""
    return func.greatest(literal(now), Payment.state_since)
