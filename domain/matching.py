"""Whether what a provider reports is about the payment it was asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy.exc import IntegrityError

from domain.providers import Report
from models import Payment

_ONE_CHARGE = "payments_charge_key"


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
    """A report whose charge another payment has already: without it, and in which way it is wrong.

    A charge brings its money once, so that what is left of the report brings none. Any other error is
    raised again.
    """
    diagnosis = getattr(error.orig, "diag", None)
    if report.charge_id is None or getattr(diagnosis, "constraint_name", None) != _ONE_CHARGE:
        raise error
    return replace(report, charge_id=None, state="processing"), f"charge id, {report.charge_id},"
