"""What became of money that was paid for an order and did not simply buy it, in words for its buyer.

Money that arrived late or twice and waits, or how that ended; refunds that failed after their mail; what a
bank has taken back. Only reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, String, cast, literal, select, union_all
from sqlalchemy.orm import aliased

from domain import money
from domain.payments import own_end
from domain.payments.refundable import COUNTED, UNRESOLVED
from extensions import db
from models import Dispute, DisputeState, Incident, Order, OrderState, Payment, Refund, RefundState

# Incidents about money that arrived; the others are about what went back of it.
_ARRIVED = (
    *("late_money", "double_payment", "event_cancelled", "event_over"),
    *("fee_again", "given_back", "mismatch"),
)
_Part = Select[tuple[Any, ...]]
_ENDED = {
    "": "A person decides what happens with it, so that you lose nothing, and we write to you then. Please "
    "don’t pay again.",
    "refund": "It was sent back to where it came from.",
    "wallet": "It was added to your wallet.",
    "dismiss": "A person has looked at it and closed the matter: nothing more is sent back for it from here.",
}


@dataclass(frozen=True)
class Note:
    """A sentence or two for the order's page. `kind`: arrived, refund_failed, refund_waits or disputed."""

    kind: str
    words: str


def notes(order: Order) -> list[Note]:
    """What the buyer should know, the oldest first; in one query, and in none where all is as usual."""
    if not any(_may_tell(payment) for payment in order.payments):
        return []
    parts = [_arrived(order.id), _failed_refunds(order.id), _disputes(order.id)]
    by_hand = [payment.id for payment in order.payments if _is_by_hand(payment)]
    if by_hand:
        parts.append(_waiting_refunds(by_hand))
    rows = db.session.execute(union_all(*parts).order_by("at")).all()
    said = (_words(order, row.kind, row.how, money.show(row.minor, row.currency)) for row in rows)
    return [Note(row.kind, words) for row, words in zip(rows, said, strict=True) if words]


def _may_tell(payment: Payment) -> bool:
    """Whether a payment's money went another way than to buy its order."""
    went = payment.received_minor is not None and not payment.fulfilled
    return went or payment.reversed_at is not None or _is_by_hand(payment)


def _is_by_hand(payment: Payment) -> bool:
    """Whether money of it was asked back which no call sends."""
    return payment.asked_back_minor > 0 and not own_end.able(payment).refund


def _arrived(order_id: int) -> _Part:
    """Money that waited, or waits, in the inbox."""
    return (
        select(*_columns("arrived", Incident, Incident.resolution))
        .join(Payment, Payment.id == Incident.payment_id)
        .where(Incident.order_id == order_id, Incident.kind.in_(_ARRIVED))
        .where(Payment.received_minor.is_not(None), ~Payment.fulfilled)
    )


def _failed_refunds(order_id: int) -> _Part:
    """Refunds that failed after they were accepted, and that no other one has made good."""
    later = aliased(Refund)
    made_good = select(later.id).where(
        later.payment_id == Refund.payment_id, later.id > Refund.id, later.state.in_(COUNTED)
    )
    return (
        select(*_columns("refund_failed", Refund, literal("")))
        .join(Payment, Payment.id == Refund.payment_id)
        .where(Payment.order_id == order_id, Refund.accepted_at.is_not(None))
        .where(Refund.state.in_((RefundState.FAILED, RefundState.CANCELLED)), ~made_good.exists())
    )


def _waiting_refunds(payment_ids: list[int]) -> _Part:
    """Refunds that a person has to make at the bank, and has not yet."""
    return (
        select(*_columns("refund_waits", Refund, literal("")))
        .where(Refund.payment_id.in_(payment_ids), Refund.state.in_(UNRESOLVED))
        .where(~Refund.made_at_provider)
    )


def _disputes(order_id: int) -> _Part:
    """What banks have taken back, for now or for good."""
    return (
        select(*_columns("disputed", Dispute, cast(Dispute.state, String)))
        .join(Payment, Payment.id == Dispute.payment_id)
        .where(Payment.order_id == order_id, Dispute.took_money, Dispute.state != DisputeState.WON)
    )


def _columns(
    kind: str, of: type[Incident] | type[Refund] | type[Dispute], how: ColumnElement[str] | Any
) -> tuple[ColumnElement[Any], ...]:
    return (
        literal(kind).label("kind"),
        how.label("how"),
        of.amount_minor.label("minor"),
        of.currency.label("currency"),
        of.created_at.label("at"),
    )


def _words(order: Order, kind: str, how: str, amount: str) -> str:
    """The sentences for one of them; "" where the page says it already."""
    if kind == "refund_failed":
        return (
            f"The refund of {amount} that we wrote to you about did not get through. The money is still "
            "here, and a person looks at it."
        )
    if kind == "refund_waits":
        return (
            f"{amount} is to go back to you. A person makes this refund at the bank, and we write to you "
            "when it is made."
        )
    if kind == "disputed":
        ends = "has decided that you keep it" if how == DisputeState.LOST.value else "has it while it decides"
        return f"Your bank has taken back {amount} and {ends}."
    if not how and order.state is OrderState.REVIEW:
        return ""
    second = "second payment" if any(payment.fulfilled for payment in order.payments) else "payment"
    return f"A {second} of {amount} arrived for this order. {_ENDED[how]}"
