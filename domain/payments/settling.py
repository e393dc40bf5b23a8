"""Settle: apply what a provider says to a payment. The only writer of `payment.state`.

Settling twice, late, out of order and side by side has the same outcome, because it happens under the order's
and the payment's row locks, in one transaction: see docs/payments.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import update
from sqlalchemy.exc import IntegrityError

from domain import (
    alerts,
    clock,
    fulfilment,
    incidents,
    ledger,
    locks,
    mirroring,
    outbox,
    providers,
    refunds,
    suspicion,
    timeline,
)
from domain.errors import DomainError
from domain.matching import check_whose, mismatch, state_told, taken
from domain.polling import ASK_AGAIN, after_silence, is_unreadable, next_check
from domain.providers import Anothers, Missing, ProviderError, Report
from extensions import db, queue
from models import (
    PAYMENT_ACTIVE,
    Order,
    OrderState,
    Payment,
    PaymentState,
    StockState,
    WebhookEvent,
)

_HAS_GOODS = (OrderState.COMPLETED, OrderState.PARTIALLY_REFUNDED, OrderState.REFUNDED)
_FINAL_WORDS = {
    PaymentState.FAILED: (OrderState.FAILED, "payment_failed"),
    PaymentState.EXPIRED: (OrderState.EXPIRED, "order_expired"),
    PaymentState.CANCELLED: (OrderState.CANCELLED, "order_cancelled"),
}


@dataclass(frozen=True)
class Outcome:
    """What a reconcile came to. `verdict` is one of verified, failed, still_pending, review, error."""

    payment_id: int
    state: PaymentState
    changed: bool
    error: ProviderError | None = None

    @property
    def verdict(self) -> str:
        if self.error is not None:
            return "error"
        if self.state is PaymentState.PAID:
            return "verified"
        if self.state is PaymentState.REVIEW:
            return "review"
        return "still_pending" if self.state in PAYMENT_ACTIVE else "failed"


def settle(
    payment_id: int,
    report: Report,
    *,
    door: str,
    actor_id: int | None = None,
    latency: float = 0.0,
    ring_id: int | None = None,
    closed_by_us: bool = False,
    quietly: bool = False,
) -> Outcome:
    """Apply a report to a payment, in one transaction: the only door through which money becomes goods.

    A report about another payment is no answer: nothing of it is kept, and the provider is asked again.
    """

    def work() -> Outcome:
        payment, order = locks.payment_and_order(payment_id)
        check_whose(payment, report)
        before = payment.state
        seen = {"report": dict(report.raw), "state": report.state, "latency_ms": round(latency * 1000)}
        # Nothing is written until all is read, so that each row is written once.
        with db.session.no_autoflush:
            _observe(payment, report)
            problem = mismatch(payment, report)
            if problem is not None and not incidents.was_accepted(payment, report):
                _quarantine(order, payment, report, problem, door=door)
            else:
                state = state_told(payment, report, closed_by_us=closed_by_us)
                _apply(
                    order, payment, report, state, door=door, actor_id=actor_id, seen=seen, quietly=quietly
                )
        if ring_id is not None:
            mark_done(ring_id, f"{before} -> {payment.state}")
        return Outcome(payment_id, payment.state, payment.state is not before)

    try:
        outcome = locks.in_one_transaction(work)
    except Anothers as error:
        return unanswered(payment_id, error, door=door)
    except IntegrityError as error:
        return unanswered(payment_id, taken(report, error), door=door)
    # Opening a payment owes nobody a mail; everything else that changes one does.
    if outcome.changed and outcome.state is not PaymentState.OPEN:
        queue.soon("deliver_mail")
    return outcome


def _observe(payment: Payment, report: Report) -> None:
    """Keep what every report tells, whatever it says."""
    # Opening a payment is not yet asking about it: the first look at the order page asks.
    if payment.state is not PaymentState.CREATED:
        payment.last_polled_at = clock.now()
        payment.poll_count += 1
    payment.error_count = 0
    payment.last_error = ""
    payment.leased_until = None
    if payment.provider_id is None and report.provider_id:
        payment.provider_id = report.provider_id
        payment.provider_created_at = report.created_at
        payment.expires_at = report.expires_at
    payment.url = report.url
    if report.charge_id is not None:
        payment.charge_id = report.charge_id
    if report.state == "paid" and report.currency == payment.currency and not payment.fulfilled:
        payment.received_minor = report.amount_minor
    payment.next_check_at = next_check(payment, clock.now())


def _apply(
    order: Order,
    payment: Payment,
    report: Report,
    state: PaymentState,
    *,
    door: str,
    actor_id: int | None,
    seen: dict[str, Any],
    quietly: bool,
) -> None:
    if payment.state is PaymentState.REVIEW:
        _paid_in_review(order, payment, report, "paid in review", door=door)
    elif state is payment.state or not payment.allows(state):
        _declined(order, payment, report, door=door)
    elif not payment.is_active and state in PAYMENT_ACTIVE and _another_is_active(order, payment):
        # An old attempt that turns to processing beside a newer one stays closed, and is watched.
        payment.next_check_at = clock.now() + ASK_AGAIN
    elif state is PaymentState.PAID:
        _paid(order, payment, report, door=door, actor_id=actor_id, seen=seen)
    elif state in (PaymentState.OPEN, PaymentState.PROCESSING):
        _enter(payment, state)
        if order.state not in (*_HAS_GOODS, OrderState.REVIEW):
            order.state = OrderState.PENDING_VERIFICATION
        timeline.note(
            order, state.value, _OPENED[state], door=door, payment=payment, data=seen, actor_id=actor_id
        )
    else:
        why = report.reason if report.state == state else ""
        _close(order, payment, state, why, door=door, actor_id=actor_id, data=seen, quietly=quietly)
    if payment.state is PaymentState.PAID:
        mirroring.mirror(order, payment, report, door=door)


_OPENED = {
    PaymentState.OPEN: "The provider's page is open.",
    PaymentState.PROCESSING: "Paid by a method that takes time; the bank is confirming.",
}


def _enter(payment: Payment, state: PaymentState) -> None:
    payment.state = state
    payment.state_since = clock.now()
    if payment.polling_started_at is None and state in (PaymentState.OPEN, PaymentState.PROCESSING):
        payment.polling_started_at = payment.state_since
    payment.next_check_at = next_check(payment, payment.state_since)


def _another_is_active(order: Order, payment: Payment) -> bool:
    return any(other.is_active for other in order.payments if other is not payment)


def _declined(order: Order, payment: Payment, report: Report, *, door: str) -> None:
    """A refused card leaves the payment as it is, but the buyer and the timeline see why."""
    if report.reason and report.reason != payment.reason and payment.state in PAYMENT_ACTIVE:
        payment.reason = report.reason[:300]
        timeline.note(order, "declined", report.reason, door=door, payment=payment)
        suspicion.look(order)


def _paid(
    order: Order, payment: Payment, report: Report, *, door: str, actor_id: int | None, seen: dict[str, Any]
) -> None:
    """The money is there: hand over the goods, or put the money into the inbox when there are none."""
    late = payment.state not in PAYMENT_ACTIVE
    _enter(payment, PaymentState.PAID)
    payment.paid_at = payment.state_since
    payment.reason = ""
    timeline.note(
        order,
        "paid",
        "Paid" + (", after it was closed here." if late else "."),
        door=door,
        payment=payment,
        data=seen,
        actor_id=actor_id,
    )
    provider = providers.get(payment.provider, payment.account)
    source = (
        payment.account if provider.immediate else ledger.provider_account(payment.provider, payment.account)
    )
    if incidents.holds_money(payment):
        # It arrived while the payment was in review, and a person has taken it out since.
        incidents.hold_money("settled", order, payment, report)
        source = ledger.SUSPENSE
    if order.state in _HAS_GOODS:
        incidents.open_incident("double_payment", order, payment, report, door=door)
    elif source == ledger.SUSPENSE and refunds.is_gone(payment):
        incidents.open_incident("given_back", order, payment, report, door=door)
    elif not fulfilment.sellable_still(order):
        incidents.open_incident("event_cancelled", order, payment, report, door=door)
    elif order.stock_state is not StockState.RELEASED:
        fulfilment.fulfil(order, payment, door=door, source=source, actor_id=actor_id)
    else:
        try:
            with db.session.begin_nested():
                fulfilment.fulfil(order, payment, door=door, source=source, actor_id=actor_id)
        except fulfilment.SoldOut:
            incidents.open_incident("late_money", order, payment, report, door=door)


def _close(
    order: Order,
    payment: Payment,
    state: PaymentState,
    reason: str,
    *,
    door: str,
    actor_id: int | None,
    data: dict[str, Any] | None = None,
    quietly: bool = False,
) -> None:
    """The provider's last word was no: say so, and give the stock back. `quietly`: no mail to the buyer."""
    _enter(payment, state)
    payment.reason = reason[:300]
    payment.url = None
    timeline.note(
        order,
        state.value,
        reason or f"Payment {state}.",
        door=door,
        payment=payment,
        data=data,
        actor_id=actor_id,
    )
    if order.state not in (OrderState.PENDING, OrderState.PENDING_VERIFICATION):
        return
    order.state, kind = _FINAL_WORDS[state]
    order.failure_reason = payment.reason
    if not quietly:
        outbox.stage(
            kind,
            key=f"payment:{payment.id}:{state}",
            to=order.email,
            order=order,
            context={"reason": payment.reason},
        )
    if state is PaymentState.FAILED:
        suspicion.look(order)
    fulfilment.release(order)


def _quarantine(order: Order, payment: Payment, report: Report, problem: str, *, door: str) -> None:
    """A report that is not about this payment: no goods, a person looks."""
    if payment.state is PaymentState.REVIEW:
        _paid_in_review(order, payment, report, problem, door=door)
        return
    _enter(payment, PaymentState.REVIEW)
    payment.reason = f"The provider's {problem} differs from ours."
    incidents.open_incident(
        "mismatch" if not payment.fulfilled else "changed_after_payment",
        order,
        payment,
        report,
        door=door,
        what=problem,
    )


def _paid_in_review(order: Order, payment: Payment, report: Report, what: str, *, door: str) -> None:
    """Money that arrives while a person is still to decide goes into the inbox, too."""
    if report.state != "paid":
        return
    if incidents.holds_money(payment):
        incidents.correct(order, payment, report)
    elif not payment.fulfilled:
        incidents.open_incident("mismatch", order, payment, report, door=door, what=what)
    mirroring.mirror(order, payment, report, door=door)


def unanswered(payment_id: int, error: ProviderError, *, door: str) -> Outcome:
    """Unknown is not unpaid: keep the state, say when to ask again, and tell somebody of a missing record.

    Somebody is told of an answer about another payment, too: see `Anothers`.
    """

    def work() -> Outcome:
        payment, order = locks.payment_and_order(payment_id)
        now = clock.now()
        payment.error_count += 1
        payment.poll_count += 1
        payment.last_polled_at = now
        payment.last_error = f"{error.code}: {error}"[:300]
        payment.leased_until = None
        if payment.next_check_at is not None:
            payment.next_check_at = after_silence(payment, now, permanent=error.permanent)
        if isinstance(error, Missing) or payment.error_count in (1, 10, 100):
            timeline.note(order, "unanswered", payment.last_error, door=door, payment=payment)
        if isinstance(error, Missing):
            outbox.alert(*alerts.missing_record(order, payment), key=f"missing:{payment.id}", critical=True)
        if isinstance(error, Anothers):
            told = alerts.wrong_answer(order, payment, str(error))
            outbox.alert(*told, key=f"anothers:{payment.id}", critical=True)
        return Outcome(payment_id, payment.state, False, error)

    return locks.in_one_transaction(work)


def give_up(
    payment_id: int, door: str, why: str, *, state: PaymentState = PaymentState.FAILED, quietly: bool = True
) -> Outcome:
    """Close a `created` payment of which the provider certainly has nothing."""

    def work() -> Outcome:
        payment, order = locks.payment_and_order(payment_id)
        if payment.state is PaymentState.CREATED:
            _close(order, payment, state, why, door=door, actor_id=None, quietly=quietly)
            return Outcome(payment_id, payment.state, True)
        return Outcome(payment_id, payment.state, False)

    return locks.in_one_transaction(work)


def decide(payment_id: int, *, state: PaymentState, actor_id: int, note: str) -> Outcome:
    """A person takes a payment out of review: back to open or processing, or closed. Recorded; commits.

    They may also close one that is past its end and whose account cannot be asked: nobody else ever would.
    Goods for a payment in review are handed over by `decisions.resolve(how="issue")`. One that bought its
    goods before can only be paid again, as it was.
    """
    if not note.strip():
        raise DomainError("note_needed", "Say why: the note is kept on the order's timeline.")

    def work() -> Outcome:
        payment, order = locks.payment_and_order(payment_id)
        ends = state in _FINAL_WORDS and is_unreadable(payment, clock.now())
        if not ends and (payment.state is not PaymentState.REVIEW or not payment.allows(state)):
            raise DomainError("not_in_review", f"This payment is {payment.state}; it cannot become {state}.")
        if payment.fulfilled is not (state is PaymentState.PAID):
            raise DomainError(
                "goods_decide",
                "A payment that bought its goods can only be paid, and one that did not cannot: hand the "
                "goods over, or refund, in the money inbox.",
            )
        if incidents.was_given_away(payment):
            raise DomainError("given_back", "This payment's money was given back or credited already.")
        if state in PAYMENT_ACTIVE and payment.provider_id is None:
            raise DomainError("never_opened", "It was never opened at the provider: close it instead.")
        if state in PAYMENT_ACTIVE and _another_is_active(order, payment):
            raise DomainError("another_active", "Another payment of this order is open. Wait for its end.")
        timeline.note(order, "decided", f"{state}: {note}", door="admin", payment=payment, actor_id=actor_id)
        if state is not PaymentState.PAID and order.state is OrderState.REVIEW:
            # An order that another payment has paid for stays what it is.
            order.state = OrderState.PENDING_VERIFICATION
        if state is PaymentState.PAID or state in PAYMENT_ACTIVE:
            _enter(payment, state)
        else:
            # Nobody is told that nothing was charged while their money waits in the inbox.
            quietly = incidents.holds_money(payment)
            _close(order, payment, state, note, door="admin", actor_id=actor_id, quietly=quietly)
        return Outcome(payment_id, payment.state, True)

    return locks.in_one_transaction(work)


def accept(payment: Payment, order: Order, *, actor_id: int | None) -> None:
    """A person hands over the goods for money that no rule could map, whose ledger entry the caller makes.

    Rows locked by the caller; no commit. Raises SoldOut when the places are gone.
    """
    if payment.state is not PaymentState.PAID:
        _enter(payment, PaymentState.PAID)
        payment.paid_at = payment.state_since
    fulfilment.fulfil(order, payment, door="admin", source=None, actor_id=actor_id)


def mark_done(event_id: int, outcome: str) -> None:
    """Mark a webhook event as acted on, once. Does not commit."""
    db.session.execute(
        update(WebhookEvent)
        .where(WebhookEvent.id == event_id, WebhookEvent.done_at.is_(None))
        .values(done_at=clock.now(), outcome=outcome[:200])
    )
