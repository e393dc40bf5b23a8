"""What is done at the provider after a payment is found by reading it again, also where a reading fails."""

from __future__ import annotations

import pytest
from flask import Flask

from domain import clock
from domain.payments import poll_schedule, reconciling, starting
from domain.sweep import sweeping
from extensions import db
from models import OrderState, Payment, PaymentState
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, place

_TRANSACTIONS = {"path": "^/sumup/v2.1/"}


@pytest.fixture
def paid(app: Flask, sandbox: Sandbox) -> Payment:
    """A ticket that was paid through a provider that tells nobody of refunds made there."""
    payment = starting.open_at_provider(place(make_event(providers=["sumup"])))
    assert payment is not None and payment.provider_id is not None
    sandbox.do(payment.provider_id, "pay")
    assert reconciling.reconcile(payment.id, door="success").state is PaymentState.PAID
    return payment


def read_again(sandbox: Sandbox, payment: Payment, seconds: float) -> Payment:
    sandbox.advance(seconds)
    sweeping.run("test")
    return db.session.get_one(Payment, payment.id, populate_existing=True)


def test_a_refund_that_could_not_be_read_is_looked_for_soon(sandbox: Sandbox, paid: Payment) -> None:
    assert paid.provider_id is not None
    sandbox.do(paid.provider_id, "refund")
    sandbox.faults("http_500", match=_TRANSACTIONS)
    unread = read_again(sandbox, paid, 3700)
    assert (unread.state, unread.refunds) == (PaymentState.PAID, [])
    assert unread.next_check_at is not None and unread.next_check_at <= clock.now() + poll_schedule.ASK_AGAIN
    sandbox.faults()
    read = read_again(sandbox, paid, poll_schedule.ASK_AGAIN.total_seconds() + 60)
    assert [refund.amount_minor for refund in read.refunds] == [2500]
    assert read.order.state is OrderState.REFUNDED


def test_what_can_never_be_read_is_let_be_after_two_days(sandbox: Sandbox, paid: Payment) -> None:
    sandbox.faults("http_500", match=_TRANSACTIONS)
    assert read_again(sandbox, paid, 2 * 24 * 3600 - 600).next_check_at is not None
    assert read_again(sandbox, paid, 3600).next_check_at is None
