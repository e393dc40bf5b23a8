"""What a provider's report says of the payment it was asked for: whether it is about it, and its state."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.exc import IntegrityError

from domain import timeline
from domain.payments import declines
from domain.providers.contract import Anothers, Report
from extensions import db
from models import PAYMENT_ACTIVE, Order, Payment, PaymentState

# What only one payment can have, by the constraint that says so.
_ONE = {
    "payments_provider_id_key": "id",
    "payments_charge_key": "charge",
    "uq_refunds_provider_id": "refund",
    # The key of a refund that was made at the provider is made of its id.
    "uq_refunds_idempotency_key": "refund",
    "uq_disputes_provider_id": "dispute",
}


def completed(payment: Payment, report: Report) -> Report:
    """The report with what its provider does not tell of a payment as we asked for it: see `untold`."""
    if not report.untold:
        return report
    return replace(
        report,
        reference=payment.reference if "reference" in report.untold else report.reference,
        amount_minor=payment.amount_minor if "amount" in report.untold else report.amount_minor,
    )


def mismatch(payment: Payment, report: Report) -> str | None:
    """In which way the report is not about this payment; None when it is. `report` as `completed` gives it.

    Money of which nobody says how much it is matches nothing: a person looks it up.
    """
    if report.state == "paid" and "amount" in report.untold:
        return "amount (not told)"
    pairs: tuple[tuple[str, Any, Any], ...] = (
        ("provider id", payment.provider_id, report.provider_id),
        ("amount", payment.amount_minor, report.amount_minor),
        ("currency", payment.currency, report.currency),
        ("reference", payment.reference, report.reference),
        ("account", payment.account, report.account),
        ("mode", payment.livemode, report.livemode),
    )
    return next((name for name, ours, theirs in pairs if ours != theirs), None)


def check_whose(payment: Payment, report: Report) -> None:
    """Raise Anothers where the report is about another payment than the one that was asked about.

    Nothing of such a report is kept: not its money, which may be the other one's, nor its refunds. Whether
    its id or its charge is another payment's already is told by the database, as they are written.
    """
    if payment.provider_id is not None:
        if report.provider_id != payment.provider_id:
            raise Anothers(f"its id is {report.provider_id}, not {payment.provider_id}")
    elif report.reference != payment.reference:
        # It has no id yet: the reference is all by which its first answer can be known.
        raise Anothers(f"its reference is {report.reference}, not {payment.reference}")
    named = report.charge_for
    if named not in ("", payment.reference, payment.order.code) and _is_ours(named):
        raise Anothers(f"its charge is that of {named}")


def _is_ours(name: str) -> bool:
    """Whether a reference or an order's code is one of ours."""
    of_payment, of_order = Payment.reference == name, Order.code == name
    found = select(Payment.id).join(Order, Order.id == Payment.order_id).where(or_(of_payment, of_order))
    return db.session.scalar(found.limit(1)) is not None


def taken(report: Report, error: IntegrityError) -> Anothers:
    """Which name of the report another payment has already. Any other error is raised again."""
    constraint = getattr(getattr(error.orig, "diag", None), "constraint_name", None)
    if constraint not in _ONE:
        raise error
    told = {"id": report.provider_id, "charge": report.charge_id}.get(_ONE[constraint])
    return Anothers(f"its {_ONE[constraint]}{f' {told}' if told else ''} is another payment's already")


def state_told(payment: Payment, report: Report, *, closed_by_us: bool) -> PaymentState:
    """The report's state; cancelled, where a person had it closed before anybody could be paid.

    Failed, where the time ran out after attempts that were refused, whether or not the provider calls it so.
    """
    state = PaymentState(report.state)
    expires = state is PaymentState.EXPIRED and payment.state in PAYMENT_ACTIVE
    # A card that was refused before is not why it ends. A bank that refuses what it was asked to confirm is.
    fails = state is PaymentState.FAILED and payment.state is PaymentState.OPEN
    asked = (expires or fails) and (closed_by_us or timeline.has(payment, "cancel_asked"))
    if asked:
        return PaymentState.CANCELLED
    return PaymentState.FAILED if expires and declines.was_refused(payment) else state
