"""Steps 2 and 3 of Start: the call that opens a payment at its provider, and what it made, kept.

Step 1, the row with the exact parameters of the call, is in domain/starting.py.
"""

from __future__ import annotations

from datetime import timedelta
from time import perf_counter

from sqlalchemy import select

from domain import clock, ledger, opening, providers
from domain.errors import NotFound
from domain.payments import settling
from domain.providers import ProviderError, Report
from extensions import db
from models import PAYMENT_ACTIVE, Order, Payment, PaymentState

# After this a provider may have forgotten our idempotency key, so a lost create is only looked for.
KEY_LIFE = timedelta(hours=23)


def open_at_provider(order: Order, *, door: str = "checkout") -> Payment | None:
    """Steps 2 and 3 of Start: make the call outside any transaction, then commit the provider's id and URL.

    Returns the order's active or just paid payment; its `url` is None where the provider did not answer,
    and then the sweep or the order page finishes the start. Raises InsufficientFunds for a wallet.
    """
    payment = _active_of(order.id)
    if payment is None or payment.state is not PaymentState.CREATED:
        return payment
    payment_id = payment.id
    try:
        finish_start(payment_id, door=door, patient=False)
    except ledger.InsufficientFunds as error:
        settling.give_up(payment_id, door, error.message)
        raise
    return db.session.get(Payment, payment_id, populate_existing=True)


def finish_start(payment_id: int, *, door: str, patient: bool) -> settling.Outcome:
    """Open a `created` payment by repeating the stored call, or find what a lost call made."""
    payment = read(payment_id)
    provider = providers.get(payment.provider, payment.account)
    params, key, created_at = payment.params, payment.idempotency_key, payment.created_at
    reference, first, is_over = payment.reference, payment.asked_at is None, opening.is_over(payment)
    cannot = opening.begin(payment)
    if cannot is not None and is_over:
        return settling.give_up(
            payment_id, door, opening.NEVER_OPENED, state=PaymentState.EXPIRED, quietly=False
        )
    if cannot is not None:
        return settling.unanswered(payment_id, cannot, door=door)
    started = perf_counter()
    try:
        if clock.now() - created_at < KEY_LIFE:
            try:
                report: Report | None = provider.create(params, key, patient=patient)
            except ProviderError as error:
                if not patient and not error.permanent:
                    raise
                # Refused, or failing again: what the first call made is in the provider's list.
                report = provider.find(reference, created_at, patient=patient)
                if report is None:
                    return settling.give_up(payment_id, door, str(error))
        else:
            report = provider.find(reference, created_at, patient=patient)
    except ProviderError as error:
        if first and not patient:
            opening.take_back(payment_id, error)
        return settling.unanswered(payment_id, error, door=door)
    if report is None:
        return settling.give_up(payment_id, door, "The payment was never opened at the provider.")
    return settling.settle(payment_id, report, door=door, latency=perf_counter() - started)


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
