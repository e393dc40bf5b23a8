"""Settle: apply what a provider says to a payment. The only writer of `payment.state`.

Settling twice, late, out of order and side by side has the same outcome, because it happens under the order's
and the payment's row locks, in one transaction: see docs/payments.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import update
from sqlalchemy.exc import IntegrityError

from domain import clock, locks, timeline
from domain.errors import DomainError
from domain.ledger import transfers
from domain.payments import (
    creating,
    declines,
    event_log,
    fulfilment,
    incidents,
    never_opened,
    own_end,
    question_log,
    refundable,
    reversals,
    suspicious_patterns,
)
from domain.payments.poll_schedule import ASK_AGAIN, after_silence, is_stuck, is_unreadable, next_check
from domain.payments.report_matching import check_whose, completed, mismatch, state_told, taken
from domain.post import alerts, budgets, outbox
from domain.providers import bulkhead, failure_reasons, registry
from domain.providers.contract import Anothers, Missing, ProviderError, Report
from domain.providers.failure_reasons import Reason
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

# An order gets so many fresh attempts in place of ones that were never opened; a hold has time for few.
_MOST_ANEW = 20
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
    rung: str = "",
) -> Outcome:
    """Apply a report to a payment, in one transaction: the only door through which money becomes goods.

    A report about another payment is no answer: nothing of it is kept, and the provider is asked again.
    `rung` is the event that told of a refused attempt which the provider gives no name.
    """

    def work() -> Outcome:
        payment, order = locks.payment_and_order(payment_id)
        check_whose(payment, report)
        before = payment.state
        seen = {"report": dict(report.raw), "state": report.state, "latency_ms": round(latency * 1000)}
        told = completed(payment, report)
        # Nothing is written until all is read, so that each row is written once.
        with db.session.no_autoflush:
            _observe(payment, told)
            problem = mismatch(payment, told)
            if problem is not None and not incidents.was_accepted(payment, told):
                _quarantine(order, payment, told, problem, door=door)
            else:
                if payment.is_active:
                    declines.note(order, payment, told, door=door, rung=rung)
                state = state_told(payment, told, closed_by_us=closed_by_us)
                _apply(order, payment, told, state, door=door, actor_id=actor_id, seen=seen, quietly=quietly)
        if ring_id is not None:
            mark_done(ring_id, f"{before} -> {payment.state}")
        return Outcome(payment_id, payment.state, payment.state is not before)

    question_log.answered(payment_id, report, door=door, latency=latency)
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
    # An open page has an address, whether or not this reading repeats it.
    payment.url = report.url or (payment.url if report.state == "open" else None)
    if report.charge_id is not None:
        payment.charge_id = report.charge_id
    payment.used_method = report.used_method or payment.used_method
    payment.last_four = report.last_four or payment.last_four
    if report.state == "paid" and report.currency == payment.currency and not payment.fulfilled:
        # What we asked back was of what was told then; told less now, the excess is an incident.
        payment.received_minor = max(report.amount_minor, payment.asked_back_minor)
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
    in_review = payment.state is PaymentState.REVIEW
    if in_review and state not in PAYMENT_ACTIVE and incidents.waits_for_word(payment):
        incidents.word_came(order, payment, state)
        in_review = False
    if in_review:
        _paid_in_review(order, payment, report, "paid in review", door=door)
    elif state is payment.state or not payment.allows(state):
        # It says what is known, or what cannot be.
        pass
    elif not payment.is_active and state in PAYMENT_ACTIVE and _stays_closed(order, payment):
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
        why, code = _why(payment, report, state)
        _close(order, payment, state, why, code, door=door, actor_id=actor_id, data=seen, quietly=quietly)
    if payment.state is PaymentState.PAID:
        reversals.mirror(order, payment, report, door=door)


_OPENED = {
    PaymentState.OPEN: "The provider's page is open.",
    PaymentState.PROCESSING: "Paid by a method that takes time; the bank is confirming.",
}


def _enter(payment: Payment, state: PaymentState) -> None:
    before, payment.state = payment.state, state
    payment.state_since = clock.now()
    event_log.status_changed(payment, before)
    if payment.polling_started_at is None and state in (PaymentState.OPEN, PaymentState.PROCESSING):
        payment.polling_started_at = payment.state_since
    payment.next_check_at = next_check(payment, payment.state_since)


def _another_is_active(order: Order, payment: Payment) -> bool:
    return any(other.is_active for other in order.payments if other is not payment)


def _stays_closed(order: Order, payment: Payment) -> bool:
    """Whether a bank that is still confirming opens it again: not beside another, nor against a person."""
    return payment.reason_code == Reason.STAFF_ENDED or _another_is_active(order, payment)


def _why(payment: Payment, report: Report, state: PaymentState) -> tuple[str, str]:
    """Why it ended as `state`, in the provider's words and by our code; a refusal is told where it failed."""
    if state is not PaymentState.FAILED:
        return "", ""
    if report.state == state and report.reason:
        return report.reason, report.reason_code or Reason.BANK_REFUSED
    return payment.reason, payment.reason_code or Reason.CARD_REFUSED


def _paid(
    order: Order, payment: Payment, report: Report, *, door: str, actor_id: int | None, seen: dict[str, Any]
) -> None:
    """The money is there: hand over the goods, or put the money into the inbox when there are none."""
    late = payment.state in _FINAL_WORDS
    _enter(payment, PaymentState.PAID)
    payment.paid_at = payment.state_since
    payment.provider_paid_at = report.paid_at
    ended = late and payment.reason_code == Reason.STAFF_ENDED
    payment.reason = payment.reason_code = ""
    timeline.note(
        order,
        "paid",
        "Paid" + (", after it was closed here." if late else "."),
        door=door,
        payment=payment,
        data=seen,
        actor_id=actor_id,
    )
    provider = registry.get(payment.provider, payment.account)
    source = (
        payment.account
        if provider.immediate
        else transfers.provider_account(payment.provider, payment.account)
    )
    if incidents.holds_money(payment):
        # It arrived while the payment was in review, and a person has taken it out since.
        incidents.hold_money("settled", order, payment, report)
        source = transfers.SUSPENSE
    why_not = fulfilment.why_not(order, report.paid_at or payment.paid_at)
    if order.state in _HAS_GOODS:
        why_not = "double_payment"
    elif source == transfers.SUSPENSE and refundable.is_gone(payment):
        why_not = "given_back"
    elif ended and not why_not:
        # A person ended it while the bank was confirming: a person says what becomes of it now.
        why_not = "late_money"
    if why_not:
        incidents.open_incident(why_not, order, payment, report, door=door)
    elif order.stock_state is not StockState.RELEASED and not order.is_listing_fee:
        fulfilment.fulfil(order, payment, door=door, source=source, actor_id=actor_id)
    else:
        try:
            with db.session.begin_nested():
                fulfilment.fulfil(order, payment, door=door, source=source, actor_id=actor_id)
        except fulfilment.SoldOut:
            incidents.open_incident("late_money", order, payment, report, door=door)
        except fulfilment.FeeNotNeeded:
            incidents.open_incident("fee_again", order, payment, report, door=door)


def _close(
    order: Order,
    payment: Payment,
    state: PaymentState,
    reason: str,
    code: str,
    *,
    door: str,
    actor_id: int | None,
    data: dict[str, Any] | None = None,
    quietly: bool = False,
) -> None:
    """The provider's last word was no: say so, and give the stock back. `quietly`: no mail to the buyer.

    `reason` is for the timeline and for staff, `code` for the buyer.
    """
    if payment.state is PaymentState.PROCESSING and state is PaymentState.FAILED:
        # A bank that refuses what it was to confirm is an attempt that failed.
        data = {**(data or {}), suspicious_patterns.ATTEMPT: payment.reference}
    _enter(payment, state)
    payment.reason, payment.reason_code = reason[:300], code
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
    if _another_is_active(order, payment):
        # A person closed one that was in review: the order ends with the one that can still be paid.
        return
    goes_on = not quietly and _goes_on(order, payment, door)
    if not goes_on:
        _end(order, payment, state, code, quietly=quietly)
    if state is PaymentState.FAILED:
        suspicious_patterns.look(order)
    if not goes_on:
        fulfilment.release(order)


def _end(order: Order, payment: Payment, state: PaymentState, code: str, *, quietly: bool) -> None:
    """The order ends with its payment. Its stock goes back last, by the caller."""
    order.state = _FINAL_WORDS[state][0]
    order.failure_reason, order.failure_code = payment.reason, code
    if not quietly:
        _owe_the_end(order, payment)


def _goes_on(order: Order, payment: Payment, door: str) -> bool:
    """Whether its order is kept still, though the attempt has ended: then its buyer may ask for another.

    Where attempts can be closed, one lives as long as its order is kept. Elsewhere each has an end of its
    own, which may come much sooner. What a person has ended is over. No commit.
    """
    kept = payment.closes_at is not None and payment.closes_at > clock.now()
    unasked = payment.cancel_asked_at is None and payment.replacing_since is None and door != "admin"
    opened = payment.provider_id is not None and len(order.payments) < _MOST_ANEW
    if not (kept and unasked and opened) or own_end.able(payment).close:
        return False
    # The old one first: an order has one active payment at a time.
    db.session.flush()
    try:
        fresh = creating.prepare_anew(order, payment)
    except DomainError:
        return False
    fresh.awaits_buyer, fresh.next_check_at = True, fresh.closes_at
    order.state = OrderState.PENDING
    words = f"The order is kept still, so that its buyer may ask for another attempt: {fresh.reference}."
    timeline.note(order, "kept", words, door=door, payment=payment)
    return True


def begins_ended(payment: Payment) -> None:
    """An attempt that is written down anew begins as one that has ended: what came for it is late money."""
    _enter(payment, PaymentState.EXPIRED)


def into_review(payment: Payment, why: str, code: str = "") -> None:
    """A person has to look at a payment; `code` is for its buyer. Rows locked by the caller; no commit."""
    _enter(payment, PaymentState.REVIEW)
    payment.reason, payment.reason_code = why[:300], code


def _owe_the_end(order: Order, payment: Payment) -> None:
    """Owe the buyer the mail that the order ended unpaid, once for each end."""
    _, kind = _FINAL_WORDS[payment.state]
    outbox.stage(
        kind,
        key=f"payment:{payment.id}:{payment.state}",
        to=order.email,
        order=order,
        context={"code": payment.reason_code},
        # What one of ours has cancelled is always told.
        unproven=budgets.by_stranger(order) and not timeline.asked_by_staff(payment, kind),
    )


def tell_end(order: Order) -> None:
    """Owe the mail of an order that ended quietly, as no other attempt took the place of the one that did.

    No commit. Nothing where it was told before, has not ended, or its money waits for a person.
    """
    payment = order.payments[-1] if order.payments else None
    ends = {end: state for state, (end, _) in _FINAL_WORDS.items()}
    if payment is not None and payment.state is ends.get(order.state) and not incidents.holds_money(payment):
        _owe_the_end(order, payment)


def _quarantine(order: Order, payment: Payment, report: Report, problem: str, *, door: str) -> None:
    """A report that is not about this payment: no goods, a person looks."""
    if payment.state is PaymentState.REVIEW:
        _paid_in_review(order, payment, report, problem, door=door)
        return
    event_log.error(payment, f"differs: {problem}", door=door, critical=True)
    into_review(payment, f"The provider's {problem} differs from ours.", payment.reason_code)
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
    reversals.mirror(order, payment, report, door=door)


def unanswered(payment_id: int, error: ProviderError, *, door: str) -> Outcome:
    """Unknown is not unpaid: keep the state, say when to ask again, and tell somebody of a missing record.

    Somebody is told of an answer about another payment, too: see `Anothers`.
    """
    if error.code == bulkhead.NO_ROOM:
        # Nobody was asked, so there is nothing to write down.
        return Outcome(payment_id, db.session.get_one(Payment, payment_id).state, False, error)

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
        question_log.unanswered(payment, error, door=door)
        event_log.error(payment, error.code, door=door)
        return Outcome(payment_id, payment.state, False, error)

    return locks.in_one_transaction(work)


def give_up(
    payment_id: int,
    door: str,
    code: str,
    why: str = "",
    *,
    state: PaymentState = PaymentState.FAILED,
    quietly: bool = False,
    unasked: bool = False,
    unwanted: bool = False,
) -> Outcome:
    """Close a `created` payment of which the provider certainly has nothing; cancelled, where that was asked.

    `code` is for the buyer, `why` for the timeline and for staff. `unasked`: only if no call was begun;
    `unwanted`: only if its buyer has not asked for it meanwhile.
    """

    def work() -> Outcome:
        payment, order = locks.payment_and_order(payment_id)
        begun = (unasked and payment.asked_at is not None) or (unwanted and not payment.awaits_buyer)
        if payment.state is not PaymentState.CREATED or begun:
            return Outcome(payment_id, payment.state, False)
        asked = payment.cancel_asked_at is not None
        end, what = (PaymentState.CANCELLED, "") if asked else (state, code)
        told = why or failure_reasons.words(code)
        _close(order, payment, end, told, what, door=door, actor_id=None, quietly=quietly)
        return Outcome(payment_id, payment.state, True)

    outcome = locks.in_one_transaction(work)
    if outcome.changed:
        queue.soon("deliver_mail")
    return outcome


def replace(payment_id: int, door: str, why: str) -> int | None:
    """Put a fresh attempt in the place of a `created` one of which the provider certainly has nothing.

    Its id; None where the order is not kept any more, or was tried anew too often, or cannot be paid so: then
    the caller ends it. Commits.
    """

    def work() -> int | None:
        payment, order = locks.payment_and_order(payment_id)
        wanted = payment.state is PaymentState.CREATED and payment.cancel_asked_at is None
        tried = sum(other.reason_code == Reason.NOT_OPENED for other in order.payments)
        if not wanted or never_opened.is_over(payment) or tried >= _MOST_ANEW:
            return None
        db.session.expire(order, ["payments"])
        _enter(payment, PaymentState.FAILED)
        payment.reason, payment.reason_code = why[:300], Reason.NOT_OPENED
        try:
            # The old one first: an order has one active payment at a time.
            db.session.flush()
            fresh = creating.prepare_anew(order, payment)
        except DomainError:
            db.session.rollback()
            return None
        words = f"It was never opened, so another attempt takes its place: {fresh.reference}."
        timeline.note(order, "replaced", f"{words} {why}"[:1000], door=door, payment=payment)
        db.session.flush()
        return fresh.id

    return locks.in_one_transaction(work)


def override(payment_id: int, *, state: PaymentState, actor_id: int, note: str) -> Outcome:
    """A person takes a payment out of review: back to open or processing, or closed. Recorded; commits.

    They may also close one that is past its end and whose account cannot be asked, for nobody else ever
    would, and end one that a bank has been confirming for too long: its money, should it come, is theirs to
    decide.
    Goods for a payment in review are handed over by `incident_decisions.resolve(how="issue")`. One that
    bought its goods before can only be paid again, as it was.
    """
    if not note.strip():
        raise DomainError("note_needed", "Say why: the note is kept on the order's timeline.")

    def work() -> Outcome:
        payment, order = locks.payment_and_order(payment_id)
        stuck = is_stuck(payment, clock.now())
        ends = state in _FINAL_WORDS and (stuck or is_unreadable(payment, clock.now()))
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
            code = Reason.STAFF_ENDED if stuck else Reason.STAFF_CLOSED
            _close(order, payment, state, note, code, door="admin", actor_id=actor_id, quietly=quietly)
            payment.next_check_at = next_check(payment, payment.state_since)
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


def leave_review(payment: Payment) -> None:
    """A person has decided about a payment in review, other than by handing over goods: it waits no more.

    It was paid where its money came, else it is over. In another currency, or with something that was not
    decided yet, it stays. Rows locked by the caller; no commit.
    """
    if payment.state is not PaymentState.REVIEW or incidents.is_waiting(payment):
        return
    if payment.received_minor is not None:
        _enter(payment, PaymentState.PAID)
        payment.paid_at = payment.paid_at or payment.state_since
    elif not incidents.holds_money(payment):
        _enter(payment, PaymentState.CANCELLED)
        payment.url = None


def mark_done(event_id: int, outcome: str) -> None:
    """Mark a webhook event as acted on, once. Does not commit."""
    db.session.execute(
        update(WebhookEvent)
        .where(WebhookEvent.id == event_id, WebhookEvent.done_at.is_(None))
        .values(done_at=clock.now(), outcome=outcome[:200], names=None)
    )
