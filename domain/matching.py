"""What a provider's report says of the payment it was asked for: whether it is about it, and its state."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy.exc import IntegrityError

from domain import timeline
from domain.providers import Report
from models import PAYMENT_ACTIVE, Payment, PaymentState

_ONE_CHARGE = "payments_charge_key"
_ONE_ID = "payments_provider_id_key"


def mismatch(payment: Payment, report: Report) -> str | None:
    """In which way the report is not about this payment; None when it is."""
    pairs: tuple[tuple[str, Any, Any], ...] = (
        ("provider id", payment.provider_id, report.provider_id),
        ("amount", payment.amount_minor, report.amount_minor),
        ("currency", payment.currency, report.currency),
        ("reference", payment.reference, report.reference),
        ("account", payment.account, report.account),
        ("mode", payment.livemode, report.livemode),
    )
    return next((name for name, ours, theirs in pairs if ours != theirs), None)


def disowned(report: Report, error: IntegrityError) -> tuple[Report, str]:
    """A report that names what another payment has already: without that, and in which way it is wrong.

    A charge brings its money once, so that what is left of the report brings none; nor does what is called
    as another payment is, of which the id, the page and the charge are all the other one's. Any other error
    is raised again.
    """
    constraint = getattr(getattr(error.orig, "diag", None), "constraint_name", None)
    if constraint == _ONE_ID and report.provider_id:
        less = replace(report, provider_id="", url=None, charge_id=None, state="processing")
        return less, f"provider id, which is another payment's ({report.provider_id}),"
    if constraint == _ONE_CHARGE and report.charge_id is not None:
        less = replace(report, charge_id=None, state="processing")
        return less, f"charge id, which is another payment's ({report.charge_id}),"
    raise error


def state_told(payment: Payment, report: Report, *, closed_by_us: bool) -> PaymentState:
    """The report's state; or cancelled, where a person had it closed before anybody could be paid."""
    state = PaymentState(report.state)
    expires = state is PaymentState.EXPIRED and payment.state in PAYMENT_ACTIVE
    # A card that was refused before is not why it ends. A bank that refuses what it was asked to confirm is.
    fails = state is PaymentState.FAILED and payment.state is PaymentState.OPEN
    asked = (expires or fails) and (closed_by_us or timeline.has(payment, "cancel_asked"))
    return PaymentState.CANCELLED if asked else state
