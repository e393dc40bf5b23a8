"""A payment that was not opened when its organiser's connection broke: it ends, or somebody is told."""

from __future__ import annotations

from datetime import timedelta

import pytest
from flask import Flask
from sqlalchemy import func, select

from domain import clock
from domain.connections import credentials
from domain.office import invariants
from domain.payments import starting
from domain.sweep import sweeping
from extensions import db
from models import Connection, Order, OrderState, Payment, PaymentState, TicketType, User
from tests.support.merchants import connect, make_organiser, use_sumup
from tests.support.people import mails
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, place

ACCOUNT = "MHARBOUR"
CREATES = {"method": "POST", "path": "/v0.1/checkouts"}


@pytest.fixture
def olga(app: Flask, environ: dict[str, str], sandbox: Sandbox) -> User:
    """An organiser whose account is connected."""
    use_sumup(environ, sandbox)
    user = make_organiser()
    connect(user)
    return user


def break_off(sandbox: Sandbox) -> None:
    """The organiser takes the access back; the next look at the token tells."""
    sandbox.post(f"merchants/{ACCOUNT}", {"do": "revoke"})
    row = db.session.query(Connection).one()
    row.access_expires_at = clock.now() - timedelta(minutes=1)
    db.session.commit()
    credentials.use(db.engine)


def ordered(olga: User) -> Payment:
    """What comes of an order for the organiser's event."""
    event = make_event(organiser_id=olga.id, providers=["sumup"])
    payment = starting.open_at_provider(place(event, 2, provider="sumup"))
    assert payment is not None and payment.state is PaymentState.CREATED
    return payment


def again(payment: Payment) -> Payment:
    db.session.rollback()
    return db.session.get_one(Payment, payment.id, populate_existing=True)


def owner() -> User:
    """The organiser, read again: a sweep lets go of all that was read before."""
    return db.session.query(User).one()


def held() -> int:
    return db.session.scalars(select(func.sum(TicketType.held))).one()


def creates(sandbox: Sandbox) -> int:
    return sum(c["method"] == "POST" and c["path"].endswith(CREATES["path"]) for c in sandbox.calls())


def pass_deadline(payment: Payment, sandbox: Sandbox) -> None:
    """Move the clock to when the payment's page would close."""
    closes_at = again(payment).closes_at
    assert closes_at is not None
    sandbox.advance((closes_at - clock.now()).total_seconds() + 60)


def test_what_was_never_asked_for_ends_at_its_deadline(olga: User, sandbox: Sandbox) -> None:
    break_off(sandbox)
    payment = ordered(olga)
    assert (payment.asked_at, held(), creates(sandbox)) == (None, 2, 0)
    sandbox.advance(300)
    sweeping.run("test")
    assert (again(payment).state, held()) == (PaymentState.CREATED, 2)
    pass_deadline(payment, sandbox)
    for _ in range(2):
        sweeping.run("test")
    payment = again(payment)
    assert (payment.state, payment.next_check_at, held()) == (PaymentState.EXPIRED, None, 0)
    order = db.session.query(Order).one()
    assert (
        order.state is OrderState.EXPIRED
        and "not connected any more" in order.failure_reason
        and order.failure_code == "not_connected"
    )
    assert len(mails("order_expired")) == 1 and mails("payment_failed") == []
    assert creates(sandbox) == 0 and invariants.look() == []


def test_what_may_be_at_the_provider_waits_and_is_paid_once_it_can_be_read(
    olga: User, sandbox: Sandbox
) -> None:
    sandbox.faults("timeout_after", rate=1, seed=1, match=CREATES)
    payment = ordered(olga)
    assert payment.asked_at is not None
    sandbox.faults()
    (checkout,) = sandbox.get("payments")
    sandbox.do(checkout["id"], "pay")
    break_off(sandbox)
    pass_deadline(payment, sandbox)
    for _ in range(2):
        sweeping.run("test")
    assert (again(payment).state, held()) == (PaymentState.CREATED, 2)
    (letter,) = mails("connection_broken")
    assert (letter.to, letter.context["waiting"]) == ("olga@example.org", 1)
    told = [mail.context["text"] for mail in mails("alert") if "Stuck" in mail.context["subject"]]
    assert len(told) == 1 and payment.order.code in told[0]
    assert invariants.look() == []
    connect(owner())
    sweeping.run("test")
    payment = again(payment)
    assert payment.state is PaymentState.PAID
    assert payment.order.state is OrderState.COMPLETED and len(payment.order.tickets) == 2


def test_reconnected_in_time_it_is_opened(olga: User, sandbox: Sandbox) -> None:
    break_off(sandbox)
    payment = ordered(olga)
    sandbox.advance(60)
    sweeping.run("test")
    connect(owner())
    sweeping.run("test")
    payment = again(payment)
    assert payment.state is PaymentState.OPEN and payment.asked_at is not None and creates(sandbox) == 1
