"""SumUp's answers as a test writes them by hand: a checkout, its attempts, and what became of the money."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

from domain.providers.contract import LineItem, Purchase
from tests.support.wire import Wire

CHECKOUT_ID = "4e425463-3e1b-431d-83fa-1e51c2925e99"
CHARGE_ID = "410fc44a-5956-44e1-b5cc-19c6f8d727a4"
AT = f"/v0.1/checkouts/{CHECKOUT_ID}"
HISTORY = "/v2.1/merchants/MC1/transactions"
REFUNDS = f"/v1.0/merchants/MC1/payments/{CHARGE_ID}/refunds"


def attempt(status: str = "SUCCESSFUL", **more: Any) -> dict[str, Any]:
    """One attempt to pay, as a checkout shows it."""
    return {
        "id": CHARGE_ID,
        "amount": 25.0,
        "currency": "EUR",
        "status": status,
        "merchant_code": "MC1",
    } | more


def checkout(status: str = "PENDING", *attempts: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A checkout as SumUp shows it."""
    return {
        "id": CHECKOUT_ID,
        "checkout_reference": "P-1",
        "amount": 25.0,
        "currency": "EUR",
        "merchant_code": "MC1",
        "status": status,
        "date": "2026-11-21T10:00:00.000+00:00",
        "hosted_checkout_url": "https://checkout.sumup.com/pay/x",
        "transactions": list(attempts),
    } | more


def transaction(*events: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A transaction with all that became of it."""
    return attempt(simple_status="SUCCESSFUL", transaction_events=list(events), events=[]) | more


def went(number: int, amount: float, status: str = "REFUNDED", kind: str = "REFUND") -> dict[str, Any]:
    """An event of a transaction."""
    return {"id": number, "event_type": kind, "status": status, "amount": amount}


def paid(wire: Wire, *events: dict[str, Any], **more: Any) -> None:
    """Let the checkout be paid, with such events of its transaction."""
    wire.say(f"GET {AT}", 200, checkout("PAID", attempt(), transaction_id=CHARGE_ID, **more))
    wire.say(f"GET {HISTORY}", 200, transaction(*events))


def purchase(**more: Any) -> Purchase:
    """What somebody wants to pay for."""
    return replace(
        Purchase(
            reference="P-1",
            order_code="ORD-7KQ2MPXA",
            amount_minor=2500,
            currency="EUR",
            lines=(LineItem("Concert – Seat", 2, 1250),),
            email="ada@example.org",
            success_url="http://localhost/pay/success/x/y?session_id={CHECKOUT_SESSION_ID}",
            cancel_url="http://localhost/pay/cancel/x/y",
            closes_at=datetime(2026, 11, 21, 12, 0, 30, 5, timezone(timedelta(hours=2))),
            account="MC1",
            doorbell_url="http://localhost/sumup/webhook/",
        ),
        **more,
    )
