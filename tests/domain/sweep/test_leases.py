"""What a sweep that died had claimed is left alone while its lease lasts, and taken over when it ends."""

from __future__ import annotations

import pytest
from flask import Flask
from sqlalchemy import select

from domain import clock
from domain.payments import reconciling, refunds, starting
from domain.sweep import account_history, lanes, sweeping
from extensions import db
from models import Payment, PaymentState, Refund, RefundState
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, place


@pytest.fixture(autouse=True)
def _only_what_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """An account that is asked what happened tells of what was paid, whoever has claimed it."""
    monkeypatch.setattr(account_history, "ask_accounts", lambda work: None)


def paid_there(sandbox: Sandbox, number: int = 0) -> Payment:
    """A payment that was paid, of which nobody has heard yet."""
    payment = starting.open_at_provider(place(make_event(f"concert-{number}"), form_token=f"t{number}"))
    assert payment is not None and payment.provider_id is not None
    sandbox.do(payment.provider_id, "pay")
    return payment


@pytest.mark.parametrize("everything", [False, True], ids=["due", "everything"])
@pytest.mark.parametrize("many", [1, 4], ids=["read by id", "read from the list"])
def test_payments_claimed_by_a_sweep_that_died(
    app: Flask, sandbox: Sandbox, many: int, everything: bool
) -> None:
    theirs = [paid_there(sandbox, number) for number in range(many)]
    sandbox.advance(400)
    # It claimed them all, and never came back.
    assert len(lanes.claim(select(Payment.id))) == many
    before = len(sandbox.calls())
    run = sweeping.run("test", everything=everything)
    assert (run.verified, run.errors) == (0, 0)
    asked = [call for call in sandbox.calls()[before:] if "/checkout/sessions/" in call["path"]]
    assert asked == [] and {payment.state for payment in theirs} == {PaymentState.OPEN}
    sandbox.advance(int(reconciling.LEASE.total_seconds()) + 1)
    run = sweeping.run("test", everything=everything)
    assert (run.verified, run.errors) == (many, 0)
    assert {payment.state for payment in theirs} == {PaymentState.PAID}
    assert {payment.leased_until for payment in theirs} == {None}


def test_a_refund_claimed_by_a_sweep_that_died(app: Flask, sandbox: Sandbox) -> None:
    payment = paid_there(sandbox)
    reconciling.reconcile(payment.id, door="test")
    sandbox.faults("timeout_before", seconds=0.1, match={"method": "POST", "path": "/v1/refunds"})
    refund = refunds.request(payment.id, 1000, actor_id=None, reason="Ill")
    assert refund.state is RefundState.CREATED
    sandbox.faults()
    sandbox.advance(400)
    assert refunds.due(clock.now(), 16) == [refund.id]
    sweeping.run("test")
    assert refund.state is RefundState.CREATED
    sandbox.advance(int(refunds._LEASE.total_seconds()) + 1)
    sweeping.run("test")
    assert db.session.scalars(select(Refund.state)).all() == [RefundState.SUCCEEDED]
    assert refund.leased_until is None
