"""SumUp has no keys for refunds, and its sum may be slow: what was asked for once is not asked for again."""

from __future__ import annotations

import pytest
from flask import Flask

from domain.office import invariants
from domain.payments import reconciling, refunds, starting
from domain.sweep import sweeping
from extensions import db
from models import OrderState, Payment, PaymentState, Refund, RefundState
from tests.support.merchants import use_sumup
from tests.support.people import mails
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, place


@pytest.fixture
def paid(app: Flask, environ: dict[str, str], sandbox: Sandbox) -> Payment:
    """A payment of 50.00 through SumUp, whose refunds show there after half an hour."""
    use_sumup(environ, sandbox)
    payment = starting.open_at_provider(place(make_event(providers=["sumup"]), 2))
    assert payment is not None
    sandbox.do(payment.provider_id or "", "pay")
    reconciling.reconcile(payment.id, door="test")
    sandbox.post("settings", {"sumup": {"refund_shows_after": 1800}})
    return again(payment)


def again(payment: Payment) -> Payment:
    db.session.rollback()
    return db.session.get_one(Payment, payment.id, populate_existing=True)


def asked(sandbox: Sandbox) -> int:
    """How often SumUp was asked to send money back."""
    return sum(1 for c in sandbox.calls() if c["method"] == "POST" and c["path"].endswith("/refunds"))


def lose_the_answer(payment: Payment, sandbox: Sandbox, kind: str) -> Refund:
    """A refund of 10.00 that is asked for while the answer gets lost."""
    sandbox.faults(kind, rate=1, seed=1, times=1, match={"method": "POST"})
    made = refunds.request(payment.id, 1000, actor_id=None, reason="Asked for")
    sandbox.faults()
    assert made.state is RefundState.CREATED and made.asked_at is not None
    return made


def test_a_sum_that_shows_later_is_waited_for(paid: Payment, sandbox: Sandbox) -> None:
    made = lose_the_answer(paid, sandbox, "timeout_after")
    for _ in range(4):
        sandbox.advance(400)
        sweeping.run("test")
    assert db.session.get_one(Refund, made.id, populate_existing=True).state is RefundState.CREATED
    sandbox.advance(400)
    sweeping.run("test")
    payment = again(paid)
    assert [refund.state for refund in payment.refunds] == [RefundState.SUCCEEDED]
    assert payment.order.state is OrderState.PARTIALLY_REFUNDED
    assert asked(sandbox) == 1 and sandbox.get("payments")[0]["refunded_minor"] == 1000
    assert len(mails("refund")) == 1 and invariants.look() == []


def test_what_never_shows_is_for_a_person_and_not_asked_for_again(paid: Payment, sandbox: Sandbox) -> None:
    lose_the_answer(paid, sandbox, "timeout_before")
    for hours in (0.2, 1, 1, 12, 12, 2):
        sandbox.advance(hours * 3600)
        sweeping.run("test")
    payment = again(paid)
    assert [refund.state for refund in payment.refunds] == [RefundState.REVIEW]
    assert asked(sandbox) == 1 and payment.state is PaymentState.PAID
    subjects = [mail.key for mail in mails("alert")]
    assert len([key for key in subjects if key.startswith("refund_unclear")]) == 1
    assert len([key for key in subjects if key.startswith("incident:refund_ambiguous")]) == 1


def test_a_refund_that_certainly_was_not_made_is_asked_for_again(paid: Payment, sandbox: Sandbox) -> None:
    sandbox.faults("http_429", rate=1, seed=1, times=1, match={"method": "POST"})
    made = refunds.request(paid.id, 1000, actor_id=None, reason="Asked for")
    assert (made.state, made.asked_at) == (RefundState.CREATED, None)
    sandbox.advance(400)
    sweeping.run("test")
    assert [refund.state for refund in again(paid).refunds] == [RefundState.SUCCEEDED]
    assert sandbox.get("payments")[0]["refunded_minor"] == 1000
