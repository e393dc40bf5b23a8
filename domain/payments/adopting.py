"""Money of ours that no payment knows: an attempt that a restored backup has lost, or nobody's.

Its reference names the order. Where the backup has that order, the attempt is written down again, as one that
has ended, and settled as late money is: its goods, if they are still here. All else waits for a person.
"""

from __future__ import annotations

import re

import structlog
from sqlalchemy import select

from domain import clock, epochs, locks, timeline
from domain.payments import creating, incidents, settling
from domain.providers import registry
from domain.providers.contract import Report
from extensions import db
from models import Order, Payment, PaymentState

_REFERENCE = re.compile(r"(ORD-[A-Z0-9]{8})-[0-9]+(-E[0-9]+)?")
log = structlog.get_logger(__name__)


def take_in(report: Report, *, door: str) -> None:
    """Settle it for the order that it names, or let it wait in the money inbox. Commits."""
    order_id = _order_of(report)
    if order_id is None:
        incidents.open_unknown(report)
        db.session.commit()
        return
    payment_id = locks.in_one_transaction(lambda: _write(order_id, report, door))
    settling.settle(payment_id, report, door=door)


def code_of(reference: str) -> str | None:
    """The code of the order that a payment's reference names."""
    named = _REFERENCE.fullmatch(reference)
    return named[1] if named else None


def _order_of(report: Report) -> int | None:
    """The order that lost this attempt. None in a shop that was never restored, which loses none."""
    code = code_of(report.reference)
    known = select(Payment.id).where(Payment.reference == report.reference)
    if code is None or epochs.current() == epochs.FIRST or db.session.scalar(known) is not None:
        return None
    return db.session.scalar(select(Order.id).where(Order.code == code, Order.currency == report.currency))


def _write(order_id: int, report: Report, door: str) -> int:
    payment = row(locks.order(order_id), report)
    words = f"The backup had lost the attempt {report.reference}; the provider has it, paid."
    timeline.note(payment.order, "adopted", words, door=door, payment=payment)
    log.warning("payment_adopted", reference=report.reference)
    return payment.id


def row(order: Order, report: Report) -> Payment:
    """The attempt as a row again, ended, to be settled by what its provider says. No commit."""
    now = clock.now()
    attempt = 1 + max((payment.attempt for payment in order.payments), default=0)
    # Where the provider keeps no name of ours, and nobody knows it any more, it gets one of today.
    reference = report.reference or f"{order.code}-{attempt}{epochs.mark()}"
    payment = Payment(
        order=order,
        attempt=attempt,
        provider=report.provider,
        account=report.account,
        owed_to_id=creating.owed_to(order, registry.get(report.provider, report.account)),
        livemode=report.livemode,
        reference=reference,
        # No call is made under it.
        idempotency_key=f"adopted-{reference}",
        params={},
        provider_id=report.provider_id,
        amount_minor=order.total_minor,
        currency=order.currency,
        state=PaymentState.CREATED,
        created_at=report.created_at or now,
        state_since=now,
        closes_at=now,
    )
    settling.begins_ended(payment)
    payment.next_check_at = now
    db.session.add(payment)
    db.session.flush()
    return payment
