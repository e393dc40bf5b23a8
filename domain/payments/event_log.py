"""The four events of a payment that a log is searched for, each a line with a name and the same fields.

`payment_initiated`, `payment_status_changed`, `webhook_processed` and `payment_error`; docs/operating.md
lists their fields. What providers were asked is in question_log.py, what was decided in the timeline.
"""

from __future__ import annotations

import structlog

from domain.providers.contract import Ring
from models import Payment, PaymentState

_log = structlog.get_logger(__name__)


def initiated(payment: Payment) -> None:
    """An attempt to pay an order begins."""
    _log.info("payment_initiated", **_about(payment))


def status_changed(payment: Payment, before: PaymentState) -> None:
    """A payment has entered another state."""
    _log.info(
        "payment_status_changed",
        **_about(payment),
        before=before.value,
        after=payment.state.value,
        reason=payment.reason_code,
    )


def webhook_processed(provider: str, rung: Ring | None, status: int, ms: int) -> None:
    """A ring was answered with `status`; `rung` is None where it was not genuine, or not readable."""
    write = _log.info if status < 400 else _log.warning
    write(
        "webhook_processed",
        provider=provider,
        ring=rung.event_id if rung is not None else "",
        type=rung.type if rung is not None else "",
        object=rung.object_id if rung is not None else "",
        status=status,
        ms=ms,
    )


def error(payment: Payment, code: str, *, door: str, critical: bool = False) -> None:
    """Something is wrong with a payment: no usable answer, or, where `critical`, one that does not match."""
    write = _log.error if critical else _log.warning
    write("payment_error", **_about(payment), code=code, state=payment.state.value, door=door)


def _about(payment: Payment) -> dict[str, object]:
    return {
        "order": payment.order.code,
        "payment": payment.reference,
        "provider": payment.provider,
        "method": payment.used_method or payment.method,
        "amount_minor": payment.amount_minor,
        "currency": payment.currency,
    }
