"""What the suites of the provider contract share: a payment, opened and paid, and the calls there are."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from domain import clock
from domain.providers.contract import LineItem, Provider, Purchase, Report
from tests.support.benches import Bench

# Words a report may say.
STATES = {"open", "processing", "paid", "failed", "cancelled", "expired"}
# What a buyer pays unless a test says otherwise, in the provider's first currency.
AMOUNT = 2500


def currency_of(provider: Provider) -> str:
    """EUR where that is taken, else the first that is."""
    return next(code for code in ("EUR", "KZT") if provider.supports(code))


def purchase(
    provider: Provider, reference: str = "P-1", amount_minor: int = AMOUNT, currency: str = ""
) -> Purchase:
    """What somebody wants to pay for: one line."""
    return Purchase(
        reference=reference,
        order_code="ORD-7KQ2MPXA",
        amount_minor=amount_minor,
        currency=currency or currency_of(provider),
        lines=(LineItem("Concert – Seat", 1, amount_minor),),
        email="ada@example.org",
        success_url="http://localhost/pay/success/x/y?session_id={CHECKOUT_SESSION_ID}",
        cancel_url="http://localhost/pay/cancel/x/y",
        closes_at=clock.now() + timedelta(minutes=provider.open_minutes),
        account=provider.account,
        doorbell_url=f"http://localhost/{provider.name}/webhook/",
    )


def opened(provider: Provider, reference: str = "P-1", **more: Any) -> Report:
    """A payment that waits for its buyer."""
    wanted = purchase(provider, reference, **more)
    return provider.create(provider.params(wanted), f"key-{reference}")


def paid(bench: Bench, reference: str = "P-1") -> str:
    """The id of a payment that was paid."""
    made = opened(bench.provider(), reference)
    bench.do(made.provider_id, "pay")
    return made.provider_id


def assert_about(report: Report, provider: Provider, reference: str = "P-1") -> None:
    """The report names the payment as settle compares it: all of it that is told, whatever the state."""
    assert report.untold <= {"reference", "amount"}
    assert report.provider == provider.name
    assert report.amount_minor == (0 if "amount" in report.untold else AMOUNT)
    assert report.currency == currency_of(provider)
    assert report.reference == ("" if "reference" in report.untold else reference)
    assert report.account == provider.account
    assert report.livemode is provider.livemode
    assert report.state in STATES
    assert report.created_at is None or report.created_at.tzinfo is not None
    json.dumps(dict(report.raw))


Call = Callable[[Provider, str], object]
CALLS: dict[str, Call] = {
    "create": lambda provider, made: opened(provider, "P-2"),
    "find": lambda provider, made: provider.find("P-9", clock.now()),
    "fetch": lambda provider, made: provider.fetch(made),
    "close": lambda provider, made: provider.close(made, "close-1"),
    "refund": lambda provider, made: provider.refund(made, 1000, "refund-1"),
    "find_refund": lambda provider, made: (
        provider.find_refund(made, "refund-1") if provider.keeps_refund_keys else provider.fetch(made)
    ),
    "refunded_minor": lambda provider, made: provider.refunded_minor(made),
    "happened": lambda provider, made: list(
        provider.happened(clock.now() - timedelta(days=1), clock.now()) or ()
    ),
    "health": lambda provider, made: provider.health(),
}


def is_called(provider: Provider, name: str) -> bool:
    """Whether a call is made at all, by what the adapter declares."""
    if name in ("refund", "refunded_minor"):
        return provider.can.refund
    return name != "happened" or provider.happened(clock.now(), clock.now()) is not None


# Those of them that name a payment.
BY_ID = {name: CALLS[name] for name in ("fetch", "close", "refund", "refunded_minor")}
