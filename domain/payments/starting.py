"""Steps 2 and 3 of Start: the call that opens a payment at its provider, and what it made, kept.

Step 1, the row with the exact parameters of the call, is in domain/payments/creating.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from time import perf_counter
from typing import Any

from sqlalchemy import select

from domain import clock
from domain.errors import NotFound
from domain.ledger import transfers
from domain.payments import never_opened, settling, unknown_ends
from domain.providers import failure_reasons, registry
from domain.providers.contract import Presentation, Provider, ProviderError, Report
from domain.providers.failure_reasons import Reason
from extensions import db
from models import PAYMENT_ACTIVE, Order, Payment, PaymentState

# After this a provider may have forgotten our idempotency key, so a lost create is only looked for.
KEY_LIFE = timedelta(hours=23)
# Parameters that are refused so soon after they were made would be refused again, however fresh.
_FRESH = timedelta(minutes=1)
# An open page without an address is asked for so often, and for so long, before it is closed and given up.
_UNREADABLE_OFTEN = 3
_UNREADABLE_FOR = timedelta(minutes=1)


@dataclass(frozen=True)
class _Stored:
    """What the row says about the call, read before it is made."""

    params: dict[str, Any]
    key: str
    reference: str
    created_at: datetime
    is_over: bool
    is_cancelled: bool
    method: str

    @property
    def age(self) -> timedelta:
        return clock.now() - self.created_at


def open_at_provider(order: Order, *, door: str = "checkout") -> Payment | None:
    """Steps 2 and 3 of Start: make the call outside any transaction, then commit the provider's id and URL.

    Returns the order's active or just paid payment; its `url` is None where the provider did not answer,
    and then the sweep or the order page finishes the start. Raises InsufficientFunds for a wallet.
    """
    payment = _active_of(order.id)
    if payment is None or payment.state is not PaymentState.CREATED:
        return payment
    payment_id = payment.id
    if payment.awaits_buyer and not never_opened.ask_for(payment):
        # It has ended, or ends at this moment: what it kept is others'.
        return db.session.get(Payment, payment_id, populate_existing=True)
    try:
        outcome = finish_start(payment_id, door=door, patient=False)
    except transfers.InsufficientFunds as error:
        settling.give_up(payment_id, door, Reason.WALLET_SHORT, error.message)
        raise
    return db.session.get(Payment, outcome.payment_id, populate_existing=True)


def finish_start(payment_id: int, *, door: str, patient: bool, anew: bool = True) -> settling.Outcome:
    """Open a `created` payment by repeating the stored call, or find what a lost call made.

    Where the call is refused or too old, and the provider certainly has nothing of it, another attempt takes
    its place while the order is kept (`anew`; the outcome is then of that one); otherwise it ends.
    """
    payment = read(payment_id)
    provider, first = registry.get(payment.provider, payment.account), payment.asked_at is None
    stored = _Stored(
        payment.params,
        payment.idempotency_key,
        payment.reference,
        payment.created_at,
        never_opened.is_over(payment),
        payment.cancel_asked_at is not None,
        payment.method,
    )
    if not provider.can.search:
        return _once(payment, provider, stored, door=door, patient=patient)
    cannot = never_opened.begin(payment)
    if cannot is not None and stored.is_over:
        return settling.give_up(payment_id, door, Reason.NOT_CONNECTED, state=PaymentState.EXPIRED)
    if cannot is not None:
        return settling.unanswered(payment_id, cannot, door=door)
    started = perf_counter()
    try:
        report, refusal = _call(provider, stored, patient)
    except ProviderError as error:
        if first and not patient:
            never_opened.take_back(payment_id, error)
        return settling.unanswered(payment_id, error, door=door)
    if report is None:
        return _absent(payment_id, stored, refusal, door=door, patient=patient, anew=anew)
    if _lacks_its_page(provider, report, stored):
        return _without_page(payment_id, provider, report, stored, door=door, patient=patient)
    return settling.settle(payment_id, report, door=door, latency=perf_counter() - started)


def _once(
    payment: Payment, provider: Provider, stored: _Stored, *, door: str, patient: bool
) -> settling.Outcome:
    """Open a payment where a lost call cannot be looked for: one is made, and never a second one after it.

    What was certainly not carried out may be asked for again; where that is not known, a person looks.
    """
    payment_id, asked_at = payment.id, payment.asked_at
    db.session.rollback()
    if asked_at is not None:
        if clock.now() - asked_at < never_opened.IN_FLIGHT:
            return settling.Outcome(payment_id, PaymentState.CREATED, False)
        return unknown_ends.lost_create(payment_id, door)
    if stored.is_over or stored.is_cancelled:
        return give_up_unmade(payment_id, door)
    if not never_opened.claim(payment_id):
        return settling.Outcome(payment_id, read(payment_id).state, False)
    started = perf_counter()
    try:
        report = provider.create(stored.params, stored.key, patient=patient)
    except ProviderError as error:
        if never_opened.was_not_asked(error):
            never_opened.take_back(payment_id, error)
        if error.permanent:
            return settling.give_up(payment_id, door, Reason.REFUSED_START, str(error))
        if never_opened.was_not_asked(error):
            return settling.unanswered(payment_id, error, door=door)
        return unknown_ends.lost_create(payment_id, door, error)
    return settling.settle(payment_id, report, door=door, latency=perf_counter() - started)


def give_up_unmade(
    payment_id: int, door: str, *, quietly: bool = False, unwanted: bool = False
) -> settling.Outcome:
    """End a payment of which nothing was ever asked for; whoever would ask now comes too late. Commits.

    `unwanted`: only where its buyer has not asked for it at this moment.
    """
    over = never_opened.is_over(read(payment_id))
    state = PaymentState.EXPIRED if over else PaymentState.CANCELLED
    words = "Nothing of it was asked for."
    return settling.give_up(
        payment_id, door, "", words, state=state, quietly=quietly, unasked=True, unwanted=unwanted
    )


def _call(provider: Provider, stored: _Stored, patient: bool) -> tuple[Report | None, ProviderError | None]:
    """What the call made, or made before; None where that is certainly absent. And why it was refused, if so.

    Raises ProviderError where it is not known.
    """
    refusal = None
    if stored.age < KEY_LIFE and not stored.is_over:
        try:
            return provider.create(stored.params, stored.key, patient=patient), None
        except ProviderError as error:
            if not error.permanent and not (patient and error.sticks):
                raise
            # Refused, or failing again: what the first call made is in the provider's list.
            refusal = error
    return provider.find(stored.reference, stored.created_at, patient=patient), refusal


def _absent(
    payment_id: int,
    stored: _Stored,
    refusal: ProviderError | None,
    *,
    door: str,
    patient: bool,
    anew: bool,
) -> settling.Outcome:
    """The provider has nothing of it: a fresh attempt while the order is kept, else the end, in words."""
    fault = refusal is not None and not refusal.permanent
    if refusal is not None and fault and not anew:
        # This attempt took the place of another just now; the provider's fault may pass until the next sweep.
        return settling.unanswered(payment_id, refusal, door=door)
    why = str(refusal) if refusal is not None else failure_reasons.words(Reason.NOT_OPENED)
    if anew and (fault or stored.age >= _FRESH):
        fresh = settling.replace(payment_id, door, why)
        if fresh is not None:
            return finish_start(fresh, door=door, patient=patient, anew=False)
    if refusal is not None and refusal.permanent:
        return settling.give_up(payment_id, door, Reason.REFUSED_START, why)
    return settling.give_up(payment_id, door, Reason.NOT_OPENED, why, state=PaymentState.EXPIRED)


def _lacks_its_page(provider: Provider, report: Report, stored: _Stored) -> bool:
    """Whether it is open, and does not say where, though its buyer is to be sent there."""
    led = provider.presents(stored.method) in (Presentation.PAGE, Presentation.QR)
    return report.state == "open" and not report.url and led and report.reference == stored.reference


def _without_page(
    payment_id: int, provider: Provider, report: Report, stored: _Stored, *, door: str, patient: bool
) -> settling.Outcome:
    """It is open, and does not say where: asked again, and then closed there, so that it ends with words."""
    error = ProviderError("The open page has no address.", permanent=False, code="unreadable")
    payment = read(payment_id)
    asked_enough = payment.error_count >= _UNREADABLE_OFTEN and stored.age >= _UNREADABLE_FOR
    count = payment.poll_count
    db.session.rollback()
    if not asked_enough and not stored.is_over:
        return settling.unanswered(payment_id, error, door=door)
    try:
        key = f"close-{report.provider_id[-40:]}-{count}"
        closed = provider.close(report.provider_id, key, patient=patient)
    except ProviderError as failure:
        return settling.unanswered(payment_id, failure, door=door)
    if closed.state == "open":
        return settling.unanswered(payment_id, error, door=door)
    if closed.state in ("expired", "cancelled", "failed"):
        state = "cancelled" if stored.is_cancelled else "failed"
        closed = replace(closed, state=state, reason=str(error), reason_code=Reason.NOT_OPENED)
    return settling.settle(payment_id, closed, door=door)


def _active_of(order_id: int) -> Payment | None:
    """The payment of an order that is created, open or processing, asked of the database."""
    return db.session.scalar(
        select(Payment).where(Payment.order_id == order_id, Payment.state.in_(PAYMENT_ACTIVE))
    )


def read(payment_id: int) -> Payment:
    """The payment; NotFound where there is none."""
    payment = db.session.get(Payment, payment_id)
    if payment is None:
        raise NotFound("no_payment", "There is no such payment.")
    return payment
