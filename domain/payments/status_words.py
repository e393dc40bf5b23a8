"""A payment's state in the words that programs know: seven, of which the last four are final.

Review shows as PROCESSING, since a person is on it, and what went back in part as COMPLETED.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import ColumnElement, and_, func, literal_column, not_, select

from domain.payments.refundable import GONE
from domain.providers import failure_reasons
from models import Dispute, DisputeState, Payment, PaymentState, Refund


class PaymentStatus(StrEnum):
    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    REFUNDED = "REFUNDED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"


_OF_STATE = {
    PaymentState.CREATED: PaymentStatus.PENDING,
    PaymentState.OPEN: PaymentStatus.PENDING,
    PaymentState.PROCESSING: PaymentStatus.PROCESSING,
    PaymentState.REVIEW: PaymentStatus.PROCESSING,
    PaymentState.PAID: PaymentStatus.COMPLETED,
    PaymentState.FAILED: PaymentStatus.FAILED,
    PaymentState.CANCELLED: PaymentStatus.CANCELLED,
    PaymentState.EXPIRED: PaymentStatus.EXPIRED,
}
_ENDED = (PaymentStatus.FAILED, PaymentStatus.CANCELLED, PaymentStatus.EXPIRED)


def status(payment: Payment) -> PaymentStatus:
    """What a program is told of a payment, its refunds and disputes among it."""
    if payment.state is PaymentState.PAID and _gone_minor(payment) >= _taken_minor(payment):
        return PaymentStatus.REFUNDED
    return _OF_STATE[payment.state]


def _taken_minor(payment: Payment) -> int:
    return payment.amount_minor if payment.received_minor is None else payment.received_minor


def _gone_minor(payment: Payment) -> int:
    """What went back of it for good."""
    # An inquiry that was lost has taken nothing.
    lost = sum(
        dispute.amount_minor
        for dispute in payment.disputes
        if dispute.state is DisputeState.LOST and dispute.took_money
    )
    return lost + sum(refund.amount_minor for refund in payment.refunds if refund.state in GONE)


def in_status(wanted: PaymentStatus) -> ColumnElement[bool]:
    """The same as `status`, asked of the database."""
    states, rest = by_index(wanted)
    return and_(*states, *rest)


def by_index(wanted: PaymentStatus) -> tuple[list[ColumnElement[bool]], list[ColumnElement[bool]]]:
    """The same in two parts: what an index has, and what each row has to be looked at for."""
    refunds = select(func.coalesce(func.sum(Refund.amount_minor), 0)).where(
        Refund.payment_id == Payment.id, Refund.state.in_(GONE)
    )
    lost = select(func.coalesce(func.sum(Dispute.amount_minor), 0)).where(
        Dispute.payment_id == Payment.id, Dispute.state == DisputeState.LOST, Dispute.took_money.is_(True)
    )
    taken = func.coalesce(Payment.received_minor, Payment.amount_minor)
    back = refunds.scalar_subquery() + lost.scalar_subquery() >= taken
    if wanted is PaymentStatus.REFUNDED:
        # Of what never went back no refund and no dispute has to be summed up.
        paid = Payment.state == literal_column("'paid'")
        return [paid, Payment.reversed_at.is_not(None)], [back]
    states = [state for state, told in _OF_STATE.items() if told is wanted]
    return [Payment.state.in_(states)], [not_(back)] if wanted is PaymentStatus.COMPLETED else []


def failure_reason(payment: Payment) -> str | None:
    """Why it came to nothing, in its buyer's words; None where it did not, or nobody knows why."""
    return failure_reasons.words(payment.reason_code) or None if status(payment) in _ENDED else None


def updated_at(payment: Payment) -> datetime:
    """When the status became what it is."""
    moments = [payment.state_since]
    moments += [refund.accepted_at or refund.resolved_at or refund.created_at for refund in payment.refunds]
    moments += [dispute.closed_at or dispute.created_at for dispute in payment.disputes]
    return max(moments)
