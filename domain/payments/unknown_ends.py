"""Where nobody can say whether a payment was made, or paid: it waits for a person, and its buyer is told.

Two ways lead here. The call that opens a payment got no answer, and the provider has no list to look it up
in; made again blindly, it could charge somebody twice. Or the last moment has passed in which a payment
could be paid, and only a person who looks at the bank knows whether it was.

Either ends by a person's decision in the money inbox, or by the word that was missing: a report that comes
after all is settled as if it had come in time.
"""

from __future__ import annotations

from domain import locks
from domain.payments import incidents, settling
from domain.post import outbox
from domain.providers.contract import ProviderError
from domain.providers.failure_reasons import Reason
from extensions import queue
from models import Order, OrderState, Payment, PaymentState

_GOODS = (OrderState.COMPLETED, OrderState.PARTIALLY_REFUNDED, OrderState.REFUNDED)


def lost_create(payment_id: int, door: str, error: ProviderError | None = None) -> settling.Outcome:
    """The call that opens a payment was made, and its answer is lost for good. Commits."""
    why = f"{error.code}: {error}" if error is not None else "The process that made the call ended."
    return _wait(payment_id, "lost_create", Reason.MAYBE_OPENED, PaymentState.CREATED, why, door, error)


def end_unknown(payment_id: int, door: str) -> settling.Outcome:
    """Its last moment has passed, and nobody has said whether it was paid. Commits."""
    why = "Nobody has told whether it was paid."
    return _wait(payment_id, "end_unknown", Reason.MAYBE_PAID, PaymentState.OPEN, why, door)


def _wait(
    payment_id: int,
    kind: str,
    reason: Reason,
    before: PaymentState,
    why: str,
    door: str,
    error: ProviderError | None = None,
) -> settling.Outcome:
    def work() -> settling.Outcome:
        payment, order = locks.payment_and_order(payment_id)
        if payment.state is not before:
            # Somebody has heard of it meanwhile.
            return settling.Outcome(payment_id, payment.state, False)
        settling.into_review(payment, why, reason)
        incidents.wait_for_word(kind, order, payment, why, door=door)
        if order.state not in _GOODS:
            order.state = OrderState.REVIEW
            _tell_buyer(order, payment, reason)
        return settling.Outcome(payment_id, payment.state, True, error)

    outcome = locks.in_one_transaction(work)
    if outcome.changed:
        queue.soon("deliver_mail")
    return outcome


def _tell_buyer(order: Order, payment: Payment, reason: Reason) -> None:
    outbox.stage(
        "payment_unclear",
        key=f"payment:{payment.id}:{reason}",
        to=order.email,
        order=order,
        context={"code": reason.value},
    )
