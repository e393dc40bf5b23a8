"""How anything of Stripe's is read: refunds, disputes, what was paid with, and what its errors mean.

What is read of the two shapes of a payment is in stripe_sessions.py and stripe_intents.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import stripe

from domain.providers.contract import (
    Anothers,
    DisputeReport,
    Missing,
    ProviderError,
    RefundReport,
    Report,
)

Thing = Mapping[str, Any]
# Which payment of ours an intent is of: one of its own says so here, for one that a Checkout Session made
# carries our reference as well, and is no payment of its own.
OWN = "alone"
_REFUND_STATES = {
    "pending": "pending",
    "requires_action": "pending",
    "succeeded": "succeeded",
    "failed": "failed",
    "canceled": "cancelled",
}
_DISPUTE_STATES = {"won": "won", "lost": "lost", "prevented": "won", "warning_closed": "won"}
# The wallets whose cards are told apart. Others are plain cards to us.
_WALLETS = ("apple_pay", "google_pay", "samsung_pay", "link")
# So much of a word is kept as the way in which somebody paid.
_LONGEST_METHOD = 20


@dataclass(frozen=True)
class Shape:
    """One of the two shapes in which Stripe keeps a payment: where it is, how it is closed, how it is read.

    `report` is given the object, our account, and what gives the address of our own page for a reference.
    """

    path: str
    ids: re.Pattern[str]
    # What is asked for with it: the charge that was made.
    expand: str
    # The last part of the path by which it is closed, and what that call says.
    end: str
    report: Callable[[Thing, str, Callable[[str], str]], Report]
    # Our reference, as the object has it; "" where it has none.
    reference: Callable[[Thing], str]
    # The payment intent in it; empty where there is none yet.
    intent: Callable[[Thing], Thing]
    # Whether it is a payment of its own.
    counts: Callable[[Thing], bool]
    end_params: Mapping[str, str] = field(default_factory=dict)


def object_of(value: Any) -> Thing:
    """An expanded object, or an empty one where it is null or only an id."""
    return value if isinstance(value, Mapping) else {}


def moment(seconds: Any) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds is not None else None


def is_own(thing: Thing) -> bool:
    """Whether an intent, or a charge of one, is of a payment that no Checkout Session made."""
    return object_of(thing.get("metadata")).get("payment") == OWN


def gave_back(charge: Thing) -> bool:
    """Whether a charge hints at refunds or disputes."""
    return any(charge.get(name) for name in ("refunded", "amount_refunded", "disputed"))


def used_method(charge: Thing) -> str:
    """With what a charge was paid: the wallet that the card was in, a plain card, or another way."""
    details = object_of(charge.get("payment_method_details"))
    kind = str(details.get("type") or "")
    if kind != "card":
        return kind[:_LONGEST_METHOD]
    wallet = object_of(object_of(details.get("card")).get("wallet")).get("type")
    return str(wallet) if wallet in _WALLETS else "card"


def last_four(charge: Thing) -> str:
    """The last digits of the card or bank account that a charge was paid with; "" where it has none."""
    details = object_of(charge.get("payment_method_details"))
    return str(object_of(details.get(str(details.get("type")))).get("last4") or "")[-4:]


def payer(details: Any, name: str) -> str:
    """What who paid told Stripe of themselves: `name` or `email`; "" where nothing."""
    return str(object_of(details).get(name) or "")[:254]


def refund_report(refund: Thing) -> RefundReport:
    return RefundReport(
        provider_id=str(refund["id"]),
        amount_minor=int(refund["amount"]),
        currency=str(refund["currency"]).upper(),
        state=_REFUND_STATES[refund["status"]],
        reason=str(refund.get("failure_reason") or ""),
        our_key=str((refund.get("metadata") or {}).get("refund") or ""),
    )


def dispute_report(dispute: Thing) -> DisputeReport:
    status = str(dispute["status"])
    return DisputeReport(
        provider_id=str(dispute["id"]),
        amount_minor=int(dispute["amount"]),
        currency=str(dispute["currency"]).upper(),
        state=_DISPUTE_STATES.get(status, "open"),
        status=status,
        reason=str(dispute.get("reason") or ""),
        inquiry=status.startswith("warning_"),
    )


def check_id(thing: Thing, provider_id: str) -> None:
    if thing["id"] != provider_id:
        raise Anothers(f"its id is {thing['id']}, not {provider_id}")


def check_of(things: Iterable[Thing], intent: str) -> None:
    """Refunds and disputes say of which payment they are."""
    for thing in things:
        if thing["payment_intent"] != intent:
            raise Anothers(f"{thing['id']} is of {thing['payment_intent']}, not of {intent}")


@contextmanager
def readable() -> Iterator[None]:
    """Turn what cannot be read into a ProviderError."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProviderError(f"Unreadable answer: {error!r}", permanent=False, code="unreadable") from error


def provider_error(error: stripe.StripeError) -> ProviderError:
    """Which of the SDK's errors cannot be helped by asking again."""
    status = error.http_status
    code = str(getattr(error.error, "code", None) or error.code or type(error).__name__)
    words = str(error.user_message or error).split("\n\n")[0][:300]
    if status == 404 or code == "resource_missing":
        return Missing(words)
    if status == 403:
        # A restricted key that lacks a right: given it, the same call is answered.
        return ProviderError(words, permanent=False, code="forbidden")
    permanent = isinstance(error, stripe.InvalidRequestError | stripe.IdempotencyError | stripe.CardError)
    # Stripe keeps the answer to a key, that of a fault of its own included.
    sticks = permanent or (status or 0) >= 500
    silent = isinstance(error, stripe.APIConnectionError)
    return ProviderError(words, permanent=permanent, code=code, sticks=sticks, silent=silent)
