"""Checkout Sessions: what Stripe's own page is asked for, and how a session is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from config import STRIPE_OUTLIVES_MINUTES
from domain import clock
from domain.providers.contract import Decline, Purchase, Report
from domain.providers.stripe_reading import (
    Shape,
    Thing,
    gave_back,
    last_four,
    moment,
    object_of,
    payer,
    used_method,
)
from domain.providers.stripe_reasons import why

# Stripe wants a session to live for 30 minutes from when it is made, by its own clock. It is asked to live so
# much longer than its order is kept: then a create whose answer was lost can be repeated unchanged until the
# hold ends, and a clock of ours that is slow does no harm. Kassa closes the session when the hold ends.
_OUTLIVES = timedelta(minutes=STRIPE_OUTLIVES_MINUTES)
# It refuses what is to live for more than a day. A hold may: one that a person has extended.
_LONGEST = timedelta(hours=24) - timedelta(minutes=1)


def params(purchase: Purchase, site: str) -> dict[str, Any]:
    """What a session is created with."""
    metadata = {"order": purchase.order_code, "reference": purchase.reference, "site": site}
    currency = purchase.currency.lower()
    return {
        "mode": "payment",
        "line_items": [
            {
                "quantity": line.quantity,
                "price_data": {
                    "currency": currency,
                    "unit_amount": line.unit_minor,
                    "product_data": {"name": line.name[:250]},
                },
            }
            for line in purchase.lines
        ],
        "client_reference_id": purchase.reference,
        "customer_email": purchase.email,
        "metadata": metadata,
        "payment_intent_data": {"metadata": metadata},
        "adaptive_pricing": {"enabled": False},
        "expires_at": int(min(purchase.closes_at + _OUTLIVES, clock.now() + _LONGEST).timestamp()),
        "success_url": purchase.success_url,
        "cancel_url": purchase.cancel_url,
    }


def report(session: Thing, account: str, page: Callable[[str], str]) -> Report:
    """What a session says of its payment; `page` is not asked for, as the session has one at Stripe."""
    intent = object_of(session.get("payment_intent"))
    charge = object_of(intent.get("latest_charge"))
    state, failure = _state(session, intent)
    code, reason = why(failure) if failure or state == "failed" else ("", "")
    amount = session["amount_total"]
    if state == "paid" and intent.get("amount_received") not in (None, amount):
        amount = intent["amount_received"]
    return Report(
        provider="stripe",
        provider_id=str(session["id"]),
        state=state,
        amount_minor=int(amount),
        currency=str(session["currency"]).upper(),
        reference=_reference(session),
        account=str(intent.get("on_behalf_of") or account),
        livemode=bool(session["livemode"]),
        created_at=datetime.fromtimestamp(session["created"], UTC),
        expires_at=datetime.fromtimestamp(session["expires_at"], UTC),
        url=session.get("url"),
        charge_id=charge.get("id") if state == "paid" else None,
        charge_for=_charge_for(session, intent),
        used_method=used_method(charge) if state == "paid" else "",
        last_four=last_four(charge) if state == "paid" else "",
        payer_email=payer(session.get("customer_details"), "email"),
        payer_name=payer(session.get("customer_details"), "name"),
        paid_at=moment(charge.get("created")) if state == "paid" else None,
        reason=reason,
        reason_code=code,
        declines=_declines(session, failure, code, reason),
        incomplete=gave_back(charge),
        raw=_evidence(session, intent),
    )


def _state(session: Thing, intent: Thing) -> tuple[str, Thing]:
    """Our word for the pair (status, payment_status), and Stripe's account of the last failed attempt."""
    status, payment_status = session["status"], session["payment_status"]
    if payment_status in ("paid", "no_payment_required") and status != "open":
        return "paid", {}
    failure = object_of(intent.get("last_payment_error"))
    if status == "open":
        # A refused card leaves the session open: the reason is told, and the buyer may try another.
        return "open", failure
    if status == "expired":
        # Who was refused and did not try again was not too slow.
        return ("failed" if failure else "expired"), failure
    if status != "complete":
        raise ValueError(f"unknown session status {status!r}")
    # Complete but unpaid: a delayed method. Its payment intent has the last word.
    if intent.get("status") in ("requires_payment_method", "canceled"):
        return "failed", failure
    return "processing", {}


def _declines(session: Thing, failure: Thing, code: str, reason: str) -> tuple[Decline, ...]:
    """The attempt that failed last, of a payment that could be tried again after it."""
    again = session["status"] in ("open", "expired")
    return (Decline(str(failure.get("charge") or ""), code, reason),) if failure and again else ()


def _reference(session: Thing) -> str:
    """Our reference, when both places that keep it agree; both of them, when they differ."""
    told = session.get("client_reference_id") or ""
    kept = object_of(session.get("metadata")).get("reference") or ""
    return str(told) if told == kept else f"{told} / {kept}"


def _charge_for(session: Thing, intent: Thing) -> str:
    """The reference that was given to the payment intent, where it is not the session's."""
    kept = object_of(intent.get("metadata")).get("reference")
    return str(kept) if kept and kept != object_of(session.get("metadata")).get("reference") else ""


def _evidence(session: Thing, intent: Thing) -> dict[str, Any]:
    names = ("id", "status", "payment_status", "amount_total", "currency", "client_reference_id", "livemode")
    return {name: session.get(name) for name in names} | {
        "payment_intent": intent.get("id"),
        "payment_intent_status": intent.get("status"),
    }


def _intent(session: Thing) -> Mapping[str, Any]:
    return object_of(session.get("payment_intent"))


SESSIONS = Shape(
    path="/v1/checkout/sessions",
    ids=re.compile(r"cs_(test|live)_[A-Za-z0-9]{1,250}"),
    expand="payment_intent.latest_charge",
    end="expire",
    report=report,
    reference=_reference,
    intent=_intent,
    counts=lambda session: True,
)
