"""Kaspi's QR API over HTTP, as buyers, sweeps and people meet it: codes that end, calls without answer."""

from __future__ import annotations

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select

import config
from domain.office import invariants
from domain.payments import reconciling, refunds, starting
from domain.sweep import sweeping
from extensions import db
from models import Order, OrderState, Payment, PaymentState, RefundState, StockState
from tests.support.benches import kaspi_settings
from tests.support.kaspi_told import event_in_tenge
from tests.support.people import mails
from tests.support.sandbox import Sandbox
from tests.support.shop import address, place

CREATES = {"method": "POST", "path": "^/kaspi/.*create"}


@pytest.fixture(autouse=True)
def codes(app: Flask, sandbox: Sandbox) -> None:
    """A Kassa that is paid by Kaspi's codes, in the form r1."""
    config.use(kaspi_settings(sandbox, "r1"))


def ordered() -> Order:
    return place(event_in_tenge(capacity=1))


def newest(order: Order) -> Payment:
    db.session.rollback()
    query = select(Payment).filter_by(order_id=order.id).order_by(Payment.attempt.desc()).limit(1)
    return db.session.scalars(query.execution_options(populate_existing=True)).one()


def made(sandbox: Sandbox) -> int:
    return sum(payment["provider"] == "kaspi" for payment in sandbox.get("payments"))


def test_a_create_without_an_answer_is_made_once(app: Flask, sandbox: Sandbox, client: FlaskClient) -> None:
    sandbox.faults("timeout_after", match=CREATES, seconds=0.3)
    order = ordered()
    starting.open_at_provider(order)
    sandbox.faults()
    payment = newest(order)
    assert (payment.state, payment.order.state) == (PaymentState.REVIEW, OrderState.REVIEW)
    for _ in range(2):
        sandbox.advance(100)
        sweeping.run("test")
        client.get(address(order))
    assert made(sandbox) == 1 and newest(order).attempt == 1
    assert len(mails("payment_unclear")) == 1 and invariants.look() == []


def test_a_code_that_ends_is_followed_by_another_that_pays(
    app: Flask, sandbox: Sandbox, client: FlaskClient
) -> None:
    order = ordered()
    first = starting.open_at_provider(order)
    assert first is not None and first.state is PaymentState.OPEN and first.expires_at is not None
    page = client.get(address(order)).text
    assert "Pay in the app" in page and "qr.png" in page and str(first.url) in page
    sandbox.advance(200)
    client.get(address(order))
    assert newest(order).attempt == 1
    sandbox.advance(260)
    assert "New QR code" in client.get(address(order)).text
    waiting = newest(order)
    assert waiting.awaits_buyer and waiting.order.stock_state is StockState.HELD and made(sandbox) == 1
    second = starting.open_at_provider(waiting.order)
    assert second is not None and (second.attempt, second.state) == (2, PaymentState.OPEN)
    sandbox.do(second.provider_id or "", "pay")
    reconciling.reconcile(second.id, door="test")
    payment = newest(order)
    assert payment.order.state is OrderState.COMPLETED and invariants.look() == []
    # r1 sends nothing back: a person does.
    refund = refunds.request(payment.id, payment.amount_minor, actor_id=None, reason="Ill")
    assert refund.state is RefundState.CREATED and invariants.look() == []


def test_a_word_that_nobody_knows_holds_the_place_and_somebody_is_told(app: Flask, sandbox: Sandbox) -> None:
    order = ordered()
    payment = starting.open_at_provider(order)
    assert payment is not None
    sandbox.do(payment.provider_id or "", "tamper", set={"status": "Unheard"})
    for _ in range(3):
        sandbox.advance(3600)
        sweeping.run("test")
    kept = newest(order)
    assert kept.state is PaymentState.PROCESSING and kept.order.stock_state is StockState.HELD
    assert any("Stuck" in str(mail.context) for mail in mails("alert")) and invariants.look() == []
