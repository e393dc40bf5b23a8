"""What is closed so that another takes its place ends without a mail, unless that other one does not come.

That it is to be replaced is written on the payment before its provider is asked to close it. So whichever
process dies, and wherever, a sweep finds an order that ended with nothing in its place, and tells its buyer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial

import structlog
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from domain import clock, locks, row_by_row
from domain.payments import settling
from extensions import db, queue
from models import PAYMENT_ACTIVE, LineKind, Order, OrderLine, Payment

log = structlog.get_logger(__name__)

# So long another one has to come before a sweep looks, and for so long a mail is of use to its reader.
_GIVEN = timedelta(minutes=5)
_OF_USE = timedelta(days=7)
_BATCH = 200


def begin(payment_id: int) -> None:
    """Write down that a payment is to be closed because another takes its place. Commits."""

    def work() -> None:
        payment, _ = locks.payment_and_order(payment_id)
        if payment.is_active:
            payment.replacing_since = clock.now()

    locks.in_one_transaction(work)


@contextmanager
def taking_over(order_id: int | None) -> Iterator[None]:
    """Around what takes the place of an order's closed payment: where it fails, the buyer is told of the end.

    None where nothing was closed for it.
    """
    try:
        yield
    except Exception:
        if order_id is not None:
            _tell_now(order_id)
        raise


def _tell_now(order_id: int) -> None:
    try:
        locks.in_one_transaction(lambda: settling.tell_end(locks.order(order_id)))
    except SQLAlchemyError:
        # The error before this one is what is told; the mail is left to the next sweep.
        db.session.rollback()
        log.warning("end_not_told", order_id=order_id, exc_info=True)


def tell_ended() -> None:
    """Owe the mails of what ended some time ago, to be replaced, and was not. Commits for each."""
    before = clock.now() - _GIVEN
    query = (
        select(Payment.id)
        .where(Payment.replacing_since <= before, Payment.state.not_in(PAYMENT_ACTIVE))
        .order_by(Payment.replacing_since)
        .limit(_BATCH)
    )
    ids = db.session.scalars(query).all()
    db.session.rollback()
    one_by_one = row_by_row.Apart("payment")
    for payment_id in ids:
        one_by_one.do(payment_id, partial(locks.in_one_transaction, partial(_tell, payment_id)))
    if ids:
        queue.soon("deliver_mail")


def _tell(payment_id: int) -> None:
    payment, order = locks.payment_and_order(payment_id)
    since, payment.replacing_since = payment.replacing_since, None
    late = since is None or since < clock.now() - _OF_USE
    if not late and order.payments[-1] is payment and not _was_replaced(order):
        settling.tell_end(order)


def _was_replaced(order: Order) -> bool:
    """Whether a later order for the same event's fee was made."""
    if not order.is_listing_fee:
        return False
    later = select(Order.id).where(Order.event_id == order.event_id, Order.id > order.id)
    later = later.where(Order.lines.any(OrderLine.kind == LineKind.LISTING_FEE))
    return db.session.scalar(later.limit(1)) is not None
