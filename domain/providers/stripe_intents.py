"""PaymentIntents without a session: how a wallet on our own page pays, and how such an intent is read.

A Checkout Session makes an intent, too, as it is paid. That one is the session's and never a payment of its
own; ours say in their metadata that they stand alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from config import Settings
from domain.providers.contract import Decline, Element, Purchase, Report
from domain.providers.stripe_reading import (
    OWN,
    Shape,
    Thing,
    gave_back,
    is_own,
    last_four,
    moment,
    object_of,
    payer,
    used_method,
)
from domain.providers.stripe_reasons import why

# What the buyer pays with, in the words of the API; each is a card in a wallet.
METHODS = ("apple_pay", "google_pay")
# Stripe's script is never kept by us: it must come from there. Its release goes with the SDK's API version.
SCRIPT = "https://js.stripe.com/endive/stripe.js"
# What a page with that script must allow, as docs.stripe.com/security/guide lists it. (Maps of Google, which
# it lists too, are for an element that asks for addresses.)
SOURCES = {
    "script-src": ("https://js.stripe.com", "https://*.js.stripe.com"),
    "frame-src": ("https://js.stripe.com", "https://*.js.stripe.com", "https://hooks.stripe.com"),
    "connect-src": ("https://api.stripe.com",),
}
# An intent waits for ever, until somebody ends it: so it says that nobody came, as Kassa does when the hold
# ends. By other reasons a person ended it at Stripe.
_NOBODY_CAME = "abandoned"
_TOO_LATE = frozenset({_NOBODY_CAME, "automatic", "expired"})
# The buyer has done what is theirs to do. That money is only kept on a card, for somebody to take it later,
# is nothing that Kassa asks for: whoever has set that at Stripe takes it there, or lets it go.
_ON_ITS_WAY = frozenset({"processing", "requires_capture"})
_PAYABLE = frozenset({"requires_payment_method", "requires_confirmation", "requires_action"})


def element(settings: Settings) -> Element:
    """The Express Checkout Element, or, where the sandbox stands for Stripe, its stand-in."""
    if not settings.stripe_api_base:
        return Element(SCRIPT, settings.stripe_publishable_key, SOURCES)
    parts = urlsplit(settings.stripe_api_base)
    origin = (f"{parts.scheme}://{parts.netloc}",)
    script = f"{settings.stripe_api_base.rstrip('/')}/js/stripe.js"
    return Element(script, settings.stripe_publishable_key, dict.fromkeys(SOURCES, origin))


def params(purchase: Purchase, site: str) -> dict[str, Any]:
    """What an intent is created with. A card in a wallet is a card to Stripe, and nothing else may pay it.

    There is no `receipt_email`: Kassa's own mail is the buyer's receipt.
    """
    what = "; ".join(f"{line.quantity} × {line.name}" for line in purchase.lines)
    return {
        "amount": purchase.amount_minor,
        "currency": purchase.currency.lower(),
        "allowed_payment_method_types": ["card"],
        "description": f"{purchase.order_code}: {what}"[:500],
        "metadata": {
            "order": purchase.order_code,
            "reference": purchase.reference,
            "site": site,
            "payment": OWN,
        },
    }


def report(intent: Thing, account: str, page: Callable[[str], str]) -> Report:
    """What an intent says of its payment. While it can be paid, that is done on our own `page`."""
    charge = object_of(intent.get("latest_charge"))
    state, failure = _state(intent)
    code, reason = why(failure) if failure or state == "failed" else ("", "")
    paid = state == "paid"
    reference = _reference(intent)
    return Report(
        provider="stripe",
        provider_id=str(intent["id"]),
        state=state,
        amount_minor=int(intent["amount_received"] if paid else intent["amount"]),
        currency=str(intent["currency"]).upper(),
        reference=reference,
        account=str(intent.get("on_behalf_of") or account),
        livemode=bool(intent["livemode"]),
        created_at=datetime.fromtimestamp(intent["created"], UTC),
        url=page(reference) if state == "open" else None,
        charge_id=charge.get("id") if paid else None,
        used_method=used_method(charge) if paid else "",
        last_four=last_four(charge) if paid else "",
        payer_email=payer(charge.get("billing_details"), "email"),
        payer_name=payer(charge.get("billing_details"), "name"),
        paid_at=moment(charge.get("created")) if paid else None,
        reason=reason,
        reason_code=code,
        declines=(Decline(str(failure.get("charge") or ""), code, reason),) if failure else (),
        incomplete=gave_back(charge),
        raw=_evidence(intent),
    )


def _reference(intent: Thing) -> str:
    return str(object_of(intent.get("metadata")).get("reference") or "")


def _state(intent: Thing) -> tuple[str, Thing]:
    """Our word for an intent's status, and Stripe's account of the last failed attempt."""
    status = intent["status"]
    if status == "succeeded":
        return "paid", {}
    if status in _ON_ITS_WAY:
        return "processing", {}
    failure = object_of(intent.get("last_payment_error"))
    if status in _PAYABLE:
        # Whatever was refused, another card may be tried.
        return "open", failure
    if status != "canceled":
        raise ValueError(f"unknown status of an intent {status!r}")
    if failure:
        # Who was refused and did not try again was not too slow.
        return "failed", failure
    return ("expired" if intent.get("cancellation_reason") in _TOO_LATE else "cancelled"), {}


def _evidence(intent: Thing) -> dict[str, Any]:
    """What an admin sees. The secret by which a browser pays it is not among it."""
    names = ("id", "status", "amount", "amount_received", "currency", "livemode", "cancellation_reason")
    return {name: intent.get(name) for name in names} | {"payment_intent": intent.get("id")}


def _itself(intent: Thing) -> Thing:
    return intent


INTENTS = Shape(
    path="/v1/payment_intents",
    ids=re.compile(r"pi_[A-Za-z0-9]{1,250}"),
    expand="latest_charge",
    end="cancel",
    report=report,
    reference=_reference,
    intent=_itself,
    counts=is_own,
    end_params={"cancellation_reason": _NOBODY_CAME},
)
