"""Until the provider's last word: what is said before it, and what is not said at the deadline.

Every provider that has a bench, those of the sandbox over HTTP and through their SDKs.
"""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select

from domain.payments import reconciling
from extensions import db
from models import PAYMENT_ACTIVE, PaymentState, TicketType
from tests.domain.payments.test_second_provider import again, later, opened, sold, told
from tests.support.benches import BENCHES, Bench
from tests.support.sandbox import Sandbox

# Where nothing can be closed, a payment has an end of its own, and other tests.
CLOSING = {name: bench for name, bench in BENCHES.items() if bench.closes}


@pytest.fixture(params=list(CLOSING.values()), ids=list(CLOSING))
def bank(
    app: Flask, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Bench:
    """Each provider at which payments can be closed, in turn."""
    made: Bench = request.param(sandbox, monkeypatch)
    return made


def to_the_deadline(bank: Bench, monkeypatch: pytest.MonkeyPatch, minutes: float) -> None:
    """Let the time go by here, and not at the provider, until so long after the payment is to be closed."""
    provider = bank.provider()
    later(monkeypatch, provider.open_minutes + minutes)


def test_a_refusal_is_told_and_may_be_followed_by_a_payment(bank: Bench) -> None:
    payment = opened(sold(bank.name))
    bank.do(payment.provider_id or "", "decline")
    assert reconciling.reconcile(payment.id, door="test").verdict == "still_pending"
    assert again(payment).reason
    bank.do(payment.provider_id or "", "pay")
    assert reconciling.reconcile(payment.id, door="test").verdict == "verified"
    assert told(payment) == ["open", "declined", "paid", "fulfilled"]


def test_paid_between_the_reading_and_the_close_wins(bank: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    payment = opened(sold(bank.name))
    adapter = type(bank.provider())
    close = adapter.close

    def just_paid(self: Any, provider_id: str, *rest: Any, **more: Any) -> Any:
        bank.do(provider_id, "pay")
        return close(self, provider_id, *rest, **more)

    monkeypatch.setattr(adapter, "close", just_paid)
    to_the_deadline(bank, monkeypatch, 1)
    assert reconciling.reconcile(payment.id, door="sweep").verdict == "verified"
    assert again(payment).fulfilled


def test_at_its_deadline_it_is_closed_at_the_provider(bank: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    payment = opened(sold(bank.name))
    to_the_deadline(bank, monkeypatch, -1)
    assert reconciling.reconcile(payment.id, door="sweep").verdict == "still_pending"
    later(monkeypatch, 2)
    assert reconciling.reconcile(payment.id, door="sweep").verdict == "failed"
    closed = again(payment)
    assert closed.state not in PAYMENT_ACTIVE
    assert bank.provider().fetch(closed.provider_id or "").state == closed.state
    assert db.session.scalars(select(TicketType.held)).all() == [0]


@pytest.mark.parametrize("trouble", ["timeout_before", "http_500", "http_429", "garbage"])
def test_silence_at_the_deadline_is_no_last_word(
    bank: Bench, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    payment = opened(sold(bank.name))
    bank.trouble(trouble)
    to_the_deadline(bank, monkeypatch, 500)
    assert reconciling.reconcile(payment.id, door="sweep").verdict == "error"
    assert again(payment).state is PaymentState.OPEN
    bank.trouble()
    bank.do(payment.provider_id or "", "pay")
    assert reconciling.reconcile(payment.id, door="sweep").verdict == "verified"
