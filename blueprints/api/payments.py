"""Payments of entries: begun, looked at, cancelled."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, NoReturn

from flask import request
from pydantic import Field

from blueprints.api.caller import caller
from blueprints.api.endpoint import PUBLIC, Area
from blueprints.api.errors import ApiProblem, Problem
from blueprints.api.participants import CONSENT_NEEDED, NO_PARTICIPANT, NO_PLACE, NOT_ON_SALE
from blueprints.api.shapes import Answer, Choice, Currency, Id, Moment, Money, Priced, example, sums
from domain.catalogue.prices import PriceChanged
from domain.errors import DomainError
from domain.office import provider_health
from domain.orders import entries, entry_payments
from domain.payments import for_programs, status_words, webhooks
from domain.payments.status_words import PaymentStatus
from domain.security import return_origins
from domain.security.scopes import Scope
from models import Participant, Payment

area = Area("payments", "Payments", "Begin to pay an entry’s fee, look at what became of it, or end it.")


class Method(StrEnum):
    """The ways to pay. Which of them an entry can be paid by depends on its currency and its organiser."""

    KASPI_QR = "kaspi_qr"
    APPLE_PAY = "apple_pay"
    GOOGLE_PAY = "google_pay"
    CARD = "card"
    SUMUP = "sumup"
    WALLET = "wallet"


class Initiate(Priced):
    """What is to be paid, and how. The amount is the entry fee."""

    participant_id: Id = Field(description="Whose place it is.")
    method: Choice[Method]
    return_url: str | None = Field(
        None,
        max_length=2000,
        description="Where the buyer’s browser is sent after paying, with `payment_id` added. Its origin "
        "must be one that the operator has listed.",
    )

    model_config = example(
        {
            "participant_id": "participant_H2vGq0sJ1xkQ3mZpT8nB",
            "method": "kaspi_qr",
            "amount": 5000.00,
            "currency": "KZT",
            "return_url": "https://app.example.org/payment/success",
        }
    )


class Told(Answer):
    """A payment, as it is known now."""

    payment_id: Id
    participant_id: Id | None
    status: PaymentStatus
    method: str = Field(description="The way to pay that was asked for.")
    used_method: str | None = Field(description="What it was paid with, where the provider tells.")
    amount: Money
    amount_minor: int
    currency: Currency
    created_at: Moment
    updated_at: Moment
    failure_reason: str | None
    expires_at: Moment | None = Field(description="Until when it can be paid.")


class Started(Told):
    """A payment that can be made now, and how: by one of the three addresses, or by the secret."""

    payment_url: str | None = Field(
        description="Send the buyer there. On a phone it opens the bank’s app, where there is one."
    )
    qr_image_url: str | None = Field(description="A picture of the code that the bank’s app scans.")
    client_secret: str | None = Field(
        description="What Stripe’s script confirms the payment with. It is stored nowhere: keep it from logs."
    )

    model_config = example(
        {
            "payment_id": "payment_0b5c3f1e8a7d4c52b6f0e9d8c7b6a594",
            "participant_id": "participant_H2vGq0sJ1xkQ3mZpT8nB",
            "status": "PENDING",
            "method": "kaspi_qr",
            "used_method": None,
            "amount": 5000.00,
            "amount_minor": 500000,
            "currency": "KZT",
            "created_at": "2026-01-15T14:00:00Z",
            "updated_at": "2026-01-15T14:00:01Z",
            "failure_reason": None,
            "expires_at": "2026-01-15T14:30:00Z",
            "payment_url": "https://pay.kaspi.kz/pay/1234567890",
            "qr_image_url": "https://kassa.example.org/pay/qr/payment_0b5c3f1e8a7d4c52b6f0e9d8c7b6a594.png",
            "client_secret": None,
        }
    )


class History(Answer):
    """Every attempt to pay an entry, the newest first."""

    participant_id: Id
    items: list[Told]


class Health(Answer):
    """What is known of the payment providers, from the last minute."""

    status: str = Field(
        description="`healthy`; `degraded` where a provider does not answer; `unhealthy` without a database."
    )
    services: dict[str, str] = Field(description="`connected`, `configured`, `unavailable` or `off`.")
    timestamp: Moment

    model_config = example(
        {
            "status": "healthy",
            "services": {"stripe": "connected", "kaspi": "configured"},
            "timestamp": "2026-01-15T14:00:00Z",
        }
    )


NO_PAYMENT = Problem(404, "no_payment", "No payment has been begun for this entry.")
IN_PROGRESS = Problem(
    409,
    "payment_in_progress",
    "Another payment of this entry is under way. Wait until it has ended, or cancel it.",
    lasting=False,
)
SILENT = Problem(
    503, "provider_silent", "The payment service does not answer just now. We keep asking.", lasting=False
)


# What a way to pay cannot do for this entry, or not here.
_OTHER_METHOD = (
    Problem(400, "currency_not_supported", "Kaspi QR cannot take EUR."),
    Problem(400, "not_in_steps", "Kaspi QR takes amounts in steps of 1.00 KZT."),
    Problem(400, "below_minimum", "The amount is too small to be paid by card: it takes 0.50 EUR or more."),
    Problem(400, "above_maximum", "That is more than can be paid at once."),
    Problem(400, "provider_not_offered", "This event is not sold through that.", lasting=False),
    Problem(400, "method_not_set_up", "This way to pay is not set up here.", lasting=False),
    Problem(400, "not_connected", "Card is not set up for this event.", lasting=False),
)


def _client_secret(answer: dict[str, Any]) -> str | None:
    """The secret of an answer that is given again: it was not kept with it."""
    payment = entry_payments.own(caller().user, str(answer["payment_id"]))
    try:
        return entry_payments.client_secret(payment)
    except DomainError as error:
        _refuse(error)


def _payment_url(answer: dict[str, Any]) -> str | None:
    """The address of an answer that is given again: it may be the order's own, which is a secret."""
    if answer["status"] not in (PaymentStatus.PENDING, PaymentStatus.PROCESSING):
        return None
    return for_programs.address(entry_payments.own(caller().user, str(answer["payment_id"])))


@area.post(
    "/payments/initiate",
    scope=Scope.PAYMENTS_WRITE,
    answers={201: Started, 200: Started},
    problems=(
        NO_PARTICIPANT,
        Problem(400, "amount_mismatch", "Payment amount must match tournament entry fee"),
        Problem(400, "free", "This category is free: the entry needs no payment."),
        Problem(400, "consent_needed", "A parent or guardian has to agree first."),
        Problem(409, "already_paid", "This entry is paid already."),
        Problem(409, "withdrawn", "This entry was withdrawn."),
        Problem(409, "price_changed", "The price has changed.", lasting=False),
        Problem(
            409, "sales_over", "The sale has ended, so this entry cannot be paid any more.", lasting=False
        ),
        Problem(409, "event_cancelled", "This tournament was cancelled, so it cannot be paid any more."),
        Problem(409, "sales_closed", "Payments are not set up here yet.", lasting=False),
        Problem(402, "insufficient_funds", "There is not enough money in the wallet.", lasting=False),
        *NO_PLACE,
        *NOT_ON_SALE,
        CONSENT_NEEDED,
        *_OTHER_METHOD,
        Problem(
            400, "return_url", "return_url must be at a site that the operator has listed.", lasting=False
        ),
        IN_PROGRESS,
        SILENT,
    ),
    secrets={"client_secret": _client_secret, "payment_url": _payment_url},
    limit="60 per minute",
)
def initiate(body: Initiate) -> tuple[Started, int]:
    """Begin to pay an entry’s fee.

    Asked again in the same way, it answers 200 and the payment that is open already. In another way, that one
    is closed at its provider first. The place is held while the payment is open. Where the provider does not
    answer, the answer is 503 with the `payment_id`, and the payment goes on: look at its status.
    """
    member = caller().user
    participant = entries.find(member, body.participant_id)
    back = return_origins.check(body.return_url) if body.return_url else ""
    try:
        begun = entry_payments.initiate(
            participant,
            body.method,
            amount_minor=body.amount_minor,
            currency=body.currency,
            payer=member,
            return_url=back,
        )
        return _started(begun.payment, participant), 200 if begun.again else 201
    except DomainError as error:
        _refuse(error)


def _refuse(error: DomainError) -> NoReturn:
    """What stands in the way of a payment, with its status."""
    if isinstance(error, entry_payments.Unanswered):
        raise ApiProblem(503, error.code, error.message, retry_after=5, payment_id=error.payment.public_id)
    conflicts = (entry_payments.AlreadyPaid, entry_payments.PaymentInProgress, PriceChanged)
    if isinstance(error, conflicts):
        raise ApiProblem(409, error.code, error.message)
    raise error


def _started(payment: Payment, participant: Participant) -> Started:
    shown = entry_payments.shown(payment)
    return Started(
        **told(payment, participant),
        payment_url=shown.url,
        qr_image_url=shown.qr_image_url,
        client_secret=shown.client_secret,
    )


def told(payment: Payment, participant: Participant | None) -> dict[str, Any]:
    """A payment's fields, as every answer about one has them."""
    until: datetime | None = payment.held_until
    return {
        "payment_id": payment.public_id,
        "participant_id": participant.public_id if participant is not None else None,
        "status": status_words.status(payment),
        "method": payment.method or payment.provider,
        "used_method": payment.used_method or None,
        **sums(payment.amount_minor, payment.currency),
        "created_at": payment.created_at,
        "updated_at": status_words.updated_at(payment),
        "failure_reason": status_words.failure_reason(payment),
        "expires_at": until if payment.is_active else None,
    }


@area.get(
    "/payments/status/<participant_id>",
    scope=Scope.PAYMENTS_READ,
    answers=Told,
    problems=(NO_PARTICIPANT, NO_PAYMENT),
)
def payment_status(participant_id: str) -> Told:
    """What became of an entry’s payment.

    The provider itself is asked, at most every two seconds. The answer is about the payment that paid the
    fee, else about the newest.
    """
    participant = entries.find_with_payments(caller().user, participant_id)
    payment = entry_payments.told_of(participant)
    return Told(**told(payment, participant))


@area.get(
    "/payments/participant/<participant_id>/history",
    scope=Scope.PAYMENTS_READ,
    answers=History,
    problems=(NO_PARTICIPANT,),
)
def payment_history(participant_id: str) -> History:
    """Every attempt to pay an entry."""
    participant = entries.find_with_payments(caller().user, participant_id)
    attempts = reversed(participant.order.payments)
    return History(
        participant_id=participant.public_id, items=[Told(**told(one, participant)) for one in attempts]
    )


@area.post(
    "/payments/<payment_id>/cancel",
    scope=Scope.PAYMENTS_WRITE,
    answers=Told,
    problems=(
        Problem(404, "no_payment", "There is no such payment."),
        Problem(409, "not_cancellable", "This payment is paid already."),
        IN_PROGRESS,
    ),
)
def cancel_payment(payment_id: str) -> Told:
    """End an open payment.

    It is closed at its provider, and its place is given back. Paid in between wins: then the answer says so.
    """
    member = caller().user
    payment = entry_payments.own(member, payment_id)
    try:
        ended = entry_payments.cancel(payment, actor_id=member.id)
    except entry_payments.PaymentInProgress as error:
        raise ApiProblem(409, error.code, error.message) from error
    return Told(**told(ended, entry_payments.participant_of(ended.order)))


@area.get("/payments/health", scope=PUBLIC, answers=Health)
def payments_health() -> Health:
    """Whether the payment providers answer, from what was seen in the last minute. Nobody is asked for it."""
    known = provider_health.told()
    return Health(status=known.status, services=known.services, timestamp=known.timestamp)


class Heard(Answer):
    """Nothing: the ring was heard."""


_UNHEARD = {
    400: Problem(400, "bad_signature", "The signature does not match, or the ring cannot be read."),
    404: Problem(404, "no_doorbell", "Nobody answers the door here for such a provider."),
    429: Problem(429, "too_many_rings", "That was too often. Ring again later.", lasting=False),
    503: Problem(503, "later", "It cannot be heard now. Ring again.", lasting=False),
}
_RING_AGAIN_SECONDS = 60


@area.post(
    "/payments/webhooks/<provider>",
    scope=PUBLIC,
    answers={200: Heard},
    problems=tuple(_UNHEARD.values()),
    raw=True,
    limit=None,
)
def ring(provider: str) -> Heard:
    """A provider’s doorbell, the same as `/<provider>/webhook/`.

    For providers alone. What it says is never believed: the provider is asked.
    """
    headers = {name.lower(): value for name, value in request.headers.items()}
    status = webhooks.ring(provider, request.get_data(), headers, address=request.remote_addr or "")
    if status in _UNHEARD:
        told = _UNHEARD[status]
        wait = None if told.lasting else _RING_AGAIN_SECONDS
        raise ApiProblem(told.status, told.code, told.detail, retry_after=wait)
    return Heard()
