"""What empties its session as it goes has one of its own: rows that its caller holds stay the caller's."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from flask import Flask
from sqlalchemy.orm.exc import DetachedInstanceError

from domain.payments import reconciling, starting
from domain.post import outbox
from domain.sweep import sweeping
from extensions import db
from models import MailState, OutboxMail, Payment, PaymentState
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, place


def opened(number: int) -> Payment:
    payment = starting.open_at_provider(place(make_event(f"concert-{number}"), form_token=f"t{number}"))
    assert payment is not None
    return payment


@pytest.mark.parametrize("fault", ["", "http_500"])
def test_a_row_that_is_held_across_a_sweep_can_be_read_and_says_what_became_of_it(
    app: Flask, sandbox: Sandbox, fault: str
) -> None:
    """Whether all were answered, or none; whether it was looked at first, or last, or not at all."""
    paid, waiting, old = (opened(number) for number in range(3))
    sandbox.do(old.provider_id or "", "pay")
    reconciling.reconcile(old.id, door="test")
    sandbox.do(paid.provider_id or "", "pay")
    sandbox.advance(400)
    if fault:
        sandbox.faults(fault)
    for _ in range(2):
        db.session.rollback()
        sweeping.run("test", everything=True)
        expected = PaymentState.OPEN if fault else PaymentState.PAID
        assert (paid.state, waiting.state, old.state) == (expected, PaymentState.OPEN, PaymentState.PAID)
        assert paid.order.code and waiting.order.payments == [waiting] and old.order.lines
    sandbox.faults()
    sweeping.run("test", everything=True)
    assert paid.state is PaymentState.PAID


def test_without_a_session_of_its_own_a_sweep_takes_rows_from_its_caller(
    app: Flask, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control."""
    monkeypatch.setattr(sweeping, "own_session", nullcontext)
    held, other = opened(0), opened(1)
    sandbox.advance(400)
    db.session.rollback()
    sweeping.run("test", everything=True)
    with pytest.raises(DetachedInstanceError):
        [payment.order.lines for payment in (held, other)]


def test_a_mail_that_is_held_while_it_is_delivered_says_so(app: Flask, sandbox: Sandbox) -> None:
    order = place(make_event())
    mail = db.session.query(OutboxMail).filter_by(order_id=order.id).first()
    assert mail is not None and mail.attempts == 0
    outbox.deliver_due()
    assert mail.state is MailState.SENT and mail.order is order
