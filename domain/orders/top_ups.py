"""Topping up a wallet: the amounts on offer, the order, and what coming back from paying means."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import func, or_, select
from sqlalchemy.orm import contains_eager

import config
from domain import clock, money, timeline
from domain.catalogue import payees
from domain.catalogue.events import Way
from domain.errors import DomainError
from domain.orders import placing
from domain.payments import reconciling
from domain.providers import failure_reasons
from extensions import db
from models import PAYMENT_ACTIVE, LineKind, Order, OrderLine, Payment, PaymentState, TimelineEntry, User


class TopUp(StrEnum):
    """What coming back from the provider's page came to."""

    MISSING = "missing"
    UNKNOWN = "unknown"
    CREDITED = "credited"
    ALREADY = "already"
    UNPAID = "unpaid"
    PROCESSING = "processing"
    CLOSED = "closed"
    SILENT = "silent"
    REVIEW = "review"


@dataclass(frozen=True)
class Return:
    """The verdict on a session id that came back, with the words for the member."""

    verdict: TopUp
    words: str

    @property
    def is_problem(self) -> bool:
        return self.verdict not in (TopUp.CREDITED, TopUp.ALREADY, TopUp.PROCESSING)


def amounts() -> list[int]:
    """The amounts that may be topped up, in minor units of the wallet's currency: those of the settings."""
    settings = config.get()
    scale = 10 ** money.decimals(settings.wallet_currency)
    return [amount * scale for amount in settings.topup_amounts]


def chosen_amount(text: str) -> int:
    """A button's value (major units, as in the settings) in minor units. DomainError for anything else."""
    offered = dict(zip(map(str, config.get().topup_amounts), amounts(), strict=True))
    if text not in offered:
        words = ", ".join(money.show(amount, config.get().wallet_currency) for amount in offered.values())
        raise DomainError("amount_not_offered", f"Choose one of these amounts: {words}.")
    return offered[text]


def ways_to_pay() -> list[Way]:
    """How a wallet can be topped up: the providers that take its currency, into the house's accounts."""
    currency = config.get().wallet_currency
    return [Way(p.name, p.label) for p in payees.offered(None) if p.supports(currency)]


def start_top_up(
    user: User,
    amount_minor: int,
    *,
    form_token: str,
    provider: str | None = None,
    client_address: str = "",
) -> Order:
    """The order that a top-up form makes, the same again for the same form, amount and provider. Commits.

    `provider` is one of `ways_to_pay()`; None is the first of them.
    """
    if not config.get().sales_open:
        raise DomainError("sales_closed", closed_words())
    if provider is not None and provider not in [way.name for way in ways_to_pay()]:
        raise DomainError("provider", "Choose how to pay.")
    # A form that is sent again with another choice is another order; another member's never is this one.
    said = f"top-up:{user.id}:{amount_minor}:{form_token}" + (f":{provider}" if provider else "")
    token = hashlib.sha256(said.encode()).hexdigest() if form_token else None
    return placing.place_top_up(
        user, amount_minor, provider=provider, form_token=token, client_address=client_address
    )


def closed_words() -> str:
    """Why nobody can top up while payments are not set up."""
    return (
        "Top-ups are closed for now: payments are not set up here yet. "
        f"Write to {config.get().support_email} to hear when they open."
    )


def unfinished(user: User) -> Payment | None:
    """The member's newest top-up that can still be paid; its `url` leads to the provider's page."""
    return db.session.scalar(
        select(Payment)
        .join(Order, Payment.order_id == Order.id)
        .join(OrderLine, OrderLine.order_id == Order.id)
        .where(Order.user_id == user.id, OrderLine.kind == LineKind.TOP_UP)
        .where(
            Payment.state == PaymentState.OPEN,
            func.least(Payment.expires_at, Payment.closes_at) > clock.now(),
        )
        .options(contains_eager(Payment.order))
        .order_by(Payment.id.desc())
        .limit(1)
    )


def confirm_top_up(user: User, session_id: str) -> Return:
    """Verify a top-up at the provider now, and credit it. Commits.

    Another member's session gets the words of an unknown one. Asking any number of times credits once.
    """
    if not session_id:
        return _return(TopUp.MISSING)
    payment = _own_top_up(user, session_id)
    if payment is None:
        return _return(TopUp.UNKNOWN)
    payment_id, amount = payment.id, money.show(payment.amount_minor, payment.currency)
    error = None
    if payment.state is not PaymentState.PAID:
        error = reconciling.reconcile(payment_id, door="success").error
        payment = db.session.get_one(Payment, payment_id, populate_existing=True)
    if payment.state is PaymentState.PAID and payment.fulfilled:
        return _return(TopUp.CREDITED if _is_first_return(payment) else TopUp.ALREADY, amount)
    if payment.state in (PaymentState.PAID, PaymentState.REVIEW):
        return _return(TopUp.REVIEW, amount)
    if error is not None or payment.state is PaymentState.CREATED:
        return _return(TopUp.SILENT, amount)
    if payment.state is PaymentState.PROCESSING:
        return _return(TopUp.PROCESSING, amount)
    verdict = TopUp.UNPAID if payment.state in PAYMENT_ACTIVE else TopUp.CLOSED
    return _return(verdict, amount, failure_reasons.words(payment.reason_code))


def _is_first_return(payment: Payment) -> bool:
    """Whether the member is told for the first time that this top-up is credited. Commits.

    A webhook may have settled it before they came back, which is nothing that they should hear of.
    """
    told = select(TimelineEntry.id).filter_by(order_id=payment.order_id, payment_id=payment.id, what="told")
    if db.session.scalar(told.limit(1)) is not None:
        return False
    words = "The member came back and saw the money in the wallet."
    timeline.note(payment.order, "told", words, door="success", payment=payment)
    db.session.commit()
    return True


def _own_top_up(user: User, session_id: str) -> Payment | None:
    if len(session_id) > 255 or not session_id.isprintable():
        return None
    # A provider that fills no id of its own into the address sends the buyer back with our reference.
    payment = db.session.scalar(
        select(Payment)
        .join(Order, Payment.order_id == Order.id)
        .where(
            Order.user_id == user.id,
            or_(Payment.provider_id == session_id, Payment.reference == session_id),
        )
        .limit(1)
    )
    if payment is None:
        return None
    return payment if any(line.kind is LineKind.TOP_UP for line in payment.order.lines) else None


_WORDS = {
    TopUp.MISSING: "No payment session was found in that address. If you paid, your wallet shows it within "
    "minutes. If it does not, write to {support}.",
    TopUp.UNKNOWN: "We could not find that payment session. If you were charged and your wallet does not "
    "show it within ten minutes, write to {support} with the time and the amount.",
    TopUp.CREDITED: "Thank you. {amount} is in your wallet now.",
    TopUp.ALREADY: "{amount} is in your wallet. This session was already processed, so nothing was added "
    "twice.",
    TopUp.UNPAID: "Payment not completed: the {amount} top-up is not paid yet, and nothing was "
    "charged.{reason} Continue it below, or choose an amount again. If your bank shows a charge, write to "
    "{support}.",
    TopUp.PROCESSING: "Payment received: your bank is still confirming the {amount}. You don't need to pay "
    "again; it will be in your wallet as soon as the bank says so. Questions: {support}.",
    TopUp.CLOSED: "Payment not completed: the {amount} top-up was closed without a charge.{reason} You can "
    "start another one. If your bank shows a charge, write to {support}.",
    TopUp.SILENT: "We could not reach the payment provider just now, so the {amount} top-up is not confirmed "
    "yet. If you paid, do not pay again: we keep asking, and it will be in your wallet within minutes. If it "
    "is not there in half an hour, write to {support}.",
    TopUp.REVIEW: "Your {amount} top-up needs a person to look at it, who has been told. Do not pay again. "
    "Questions: {support}.",
}


def _return(verdict: TopUp, amount: str = "", reason: str = "") -> Return:
    words = _WORDS[verdict].format(
        amount=amount,
        support=config.get().support_email,
        reason=f" {reason}" if reason else "",
    )
    return Return(verdict, words)


def cancelled_words(user: User) -> str:
    """What a member reads who came back from the provider's page without paying."""
    left = unfinished(user)
    if left is None:
        return "The top-up was cancelled, and nothing was charged. Choose an amount to try again."
    amount = money.show(left.amount_minor, left.currency)
    return f"The {amount} top-up is not paid, and nothing was charged. Continue it, or choose another amount."
