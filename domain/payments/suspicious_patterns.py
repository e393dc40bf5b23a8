"""Patterns of failing payments that somebody should look at: many for one order, or from one address."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import func, select

from domain import clock, marks
from domain.post import alerts, outbox
from extensions import db
from models import Order, TimelineEntry

WINDOW = timedelta(hours=1)
PER_ORDER = 5
PER_ADDRESS = 15
_FAILURES = ("declined", "failed")
# The key of a timeline entry's data that names the attempt to pay which it is about.
ATTEMPT = "attempt"


def look(order: Order) -> None:
    """Count the last hour's refused attempts of this order, and from its address; one alert a day for each.

    Called after a failure was noted; does not commit.
    """
    db.session.flush()
    since = clock.now() - WINDOW
    failures = (
        select(func.count())
        .select_from(TimelineEntry)
        .where(TimelineEntry.what.in_(_FAILURES), TimelineEntry.at >= since)
        .where(TimelineEntry.data.has_key(ATTEMPT))
    )
    of_order = db.session.scalars(failures.where(TimelineEntry.order_id == order.id)).one()
    if of_order >= PER_ORDER:
        _alert(f"order {order.code}", of_order, order, key=f"order:{order.id}")
    if not order.client_address:
        return
    # A subscriber of IPv6 has as many addresses as they like, all in one network.
    place = order.network or order.client_address
    same = Order.network == place if order.network else Order.client_address == place
    joined = failures.join(Order, Order.id == TimelineEntry.order_id)
    of_address = db.session.scalars(joined.where(same)).one()
    if of_address >= PER_ADDRESS:
        _alert(f"address {place}", of_address, order, key=f"address:{marks.of(place, 'alert')}")


def _alert(where: str, count: int, order: Order, *, key: str) -> None:
    subject, text = alerts.suspicious_pattern(where, count, order)
    outbox.alert(subject, text, key=f"suspicious:{key}:{clock.now():%Y-%m-%d}", critical=True)
