"""A provider that can be asked and nothing else: attempts end by themselves, and no call is made twice."""

from __future__ import annotations

from datetime import timedelta
from threading import Barrier

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func, select

from domain import clock
from domain.errors import DomainError
from domain.office import invariants
from domain.orders import managing
from domain.payments import (
    incident_decisions,
    never_opened,
    reconciling,
    refunds,
    refunds_by_hand,
    starting,
)
from domain.sweep import sweeping
from extensions import db
from models import (
    Incident,
    Order,
    OrderState,
    Payment,
    PaymentState,
    RefundState,
    StockState,
    Ticket,
    TicketState,
)
from tests.support import quartz
from tests.support.people import mails
from tests.support.sandbox import Sandbox
from tests.support.shop import address, make_event, make_user, place
from tests.support.threads import at_once


@pytest.fixture
def bank(app: Flask, monkeypatch: pytest.MonkeyPatch) -> quartz.Bank:
    return quartz.use(monkeypatch)


def ordered(capacity: int = 1) -> Order:
    return place(make_event(capacity=capacity, providers=["quartz"]))


def opened(capacity: int = 1) -> Payment:
    payment = starting.open_at_provider(ordered(capacity))
    assert payment is not None and payment.state is PaymentState.OPEN
    return payment


def fresh(payment: Payment) -> Payment:
    db.session.rollback()
    return db.session.get_one(Payment, payment.id, populate_existing=True)


def newest(order: Order) -> Payment:
    db.session.rollback()
    query = select(Payment).filter_by(order_id=order.id).order_by(Payment.attempt.desc()).limit(1)
    return db.session.scalars(query.execution_options(populate_existing=True)).one()


def holds() -> bool:
    return invariants.look() == []


# --- A create whose answer is lost ----------------------------------------------------------------------


def test_a_lost_create_is_never_repeated_and_its_buyer_is_told(
    app: Flask, bank: quartz.Bank, client: FlaskClient
) -> None:
    bank.trouble = "after"
    order = ordered()
    payment = starting.open_at_provider(order)
    assert payment is not None and payment.state is PaymentState.REVIEW
    bank.trouble = ""
    for _ in range(3):
        sweeping.run("test")
        client.get(address(order))
    assert bank.creates == 1
    payment = fresh(payment)
    assert (payment.state, payment.order.state) == (PaymentState.REVIEW, OrderState.REVIEW)
    assert payment.order.stock_state is StockState.HELD
    assert [mail.to for mail in mails("payment_unclear")] == [order.email]
    assert "do not know whether it has begun a payment" in client.get(address(order)).text
    assert "critical" in str([mail.context for mail in mails("alert")]).lower()
    assert holds()
    # A person looks it up, and finds nothing.
    incident = db.session.scalars(select(Incident)).one()
    incident_decisions.resolve(incident.id, how="dismiss", reason="Not there", actor_id=make_user().id)
    payment = fresh(payment)
    assert (payment.state, payment.order.state) == (PaymentState.CANCELLED, OrderState.CANCELLED)
    assert payment.order.stock_state is StockState.RELEASED
    assert len(mails("order_cancelled")) == 1 and holds()


def test_a_process_that_died_in_the_call_leaves_it_to_a_person(
    app: Flask, bank: quartz.Bank, sandbox: Sandbox
) -> None:
    """Who comes while it may be under way waits; afterwards nobody makes the call again."""
    payment = ordered().payments[0]
    assert never_opened.claim(payment.id)
    assert reconciling.reconcile(payment.id, door="test").state is PaymentState.CREATED
    sandbox.advance(70)
    assert reconciling.reconcile(payment.id, door="test").state is PaymentState.REVIEW
    assert bank.creates == 0


@pytest.mark.parametrize(
    ("trouble", "state"), [("before", PaymentState.CREATED), ("refused", PaymentState.FAILED)]
)
def test_what_was_certainly_not_made_may_be_asked_for_again(
    app: Flask, bank: quartz.Bank, trouble: str, state: PaymentState
) -> None:
    bank.trouble = trouble
    order = ordered()
    payment = starting.open_at_provider(order)
    assert payment is not None and payment.state is state and not mails("payment_unclear")
    bank.trouble = ""
    if state is PaymentState.CREATED:
        sweeping.run("test", everything=True)
        assert fresh(payment).state is PaymentState.OPEN and bank.creates == 2


def test_many_who_open_it_at_once_make_one_call(app: Flask, bank: quartz.Bank) -> None:
    payment_id = ordered().payments[0].id
    results = at_once(app, 4, lambda n: starting.finish_start(payment_id, door=f"door{n}", patient=False))
    assert [r for r in results if isinstance(r, Exception)] == [] and bank.creates == 1
    assert db.session.get_one(Payment, payment_id, populate_existing=True).state is PaymentState.OPEN


def test_without_its_turn_each_would_make_a_payment(
    app: Flask, bank: quartz.Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control of the test above: nobody takes a turn."""
    payment_id, together = ordered().payments[0].id, Barrier(4)

    def no_turn(payment_id: int) -> bool:
        together.wait(10)
        return True

    monkeypatch.setattr(never_opened, "claim", no_turn)
    at_once(app, 4, lambda n: starting.finish_start(payment_id, door=f"door{n}", patient=False))
    assert bank.creates == 4


# --- An end of its own ----------------------------------------------------------------------------------


def test_an_open_code_cannot_be_cancelled_or_replaced_and_says_until_when(
    app: Flask, bank: quartz.Bank, client: FlaskClient
) -> None:
    payment = opened()
    with pytest.raises(DomainError, match="cannot be cancelled") as refused:
        managing.cancel(payment.order, door="order_page")
    assert refused.value.code == "not_closable"
    with pytest.raises(DomainError, match="until") as other:
        managing.pay_again(payment.order_id, "stripe", payer_id=None)
    assert other.value.code == "not_closable"
    payment = fresh(payment)
    assert payment.state is PaymentState.OPEN and payment.cancel_asked_at is None
    page = client.get(address(payment.order)).text
    assert "Cancel this order" not in page and "cannot be cancelled before" in page


def test_a_new_code_is_a_new_attempt_while_the_place_is_held(
    app: Flask, bank: quartz.Bank, client: FlaskClient, sandbox: Sandbox
) -> None:
    first = opened()
    order = first.order
    page = client.get(address(order)).text
    assert "qr.png?1" in page and "The code is good until" in page
    assert client.get(f"{address(order)}/qr.png").data.startswith(b"\x89PNG")
    api = client.get(f"/pay/qr/{first.public_id}.png")
    assert api.status_code == 200 and api.headers["Cache-Control"] == "private, no-store"

    sandbox.advance(200)
    assert "That code has ended. We make sure" in client.get(address(order)).text
    assert fresh(first).state is PaymentState.OPEN
    sandbox.advance(110)
    page = client.get(address(order)).text
    assert "New QR code" in page and "nobody has paid with it" in page
    assert fresh(first).state is PaymentState.EXPIRED
    waiting = newest(order)
    assert (waiting.state, waiting.awaits_buyer, waiting.closes_at) == (
        PaymentState.CREATED,
        True,
        first.closes_at,
    )
    # The place is kept throughout, nobody is mailed, and no code is made that nobody asked for.
    assert fresh(first).order.stock_state is StockState.HELD and not mails("order_expired")
    sweeping.run("test", everything=True)
    client.get(f"{address(order)}.json")
    assert bank.creates == 1 and holds()
    assert client.get(f"/pay/qr/{first.public_id}.png").status_code == 404

    token = client.get(address(order)).text.split('name="csrf_token" value="')[1].split('"')[0]
    client.post(f"{address(order)}/pay", data={"csrf_token": token, "provider": "quartz"})
    second = newest(order)
    assert (second.attempt, second.state, bank.creates) == (2, PaymentState.OPEN, 2)
    bank.be("quartz-2", "paid")
    sandbox.advance(3)
    assert "You’re going to" in client.get(address(order)).text
    assert db.session.scalar(select(func.count()).select_from(Ticket)) == 1 and holds()


def test_the_hold_ends_after_the_codes_own_end_and_a_last_reading(
    app: Flask, bank: quartz.Bank, sandbox: Sandbox
) -> None:
    """A code that was made just before the hold's end keeps the place until nobody can pay it any more."""
    payment = opened()
    payment.closes_at = clock.now() + timedelta(minutes=1)
    db.session.commit()
    sandbox.advance(240)
    sweeping.run("test")
    assert fresh(payment).state is PaymentState.OPEN
    assert fresh(payment).order.stock_state is StockState.HELD
    sandbox.advance(70)
    sweeping.run("test")
    payment = fresh(payment)
    assert (payment.state, payment.order.state) == (PaymentState.EXPIRED, OrderState.EXPIRED)
    assert payment.order.stock_state is StockState.RELEASED and len(mails("order_expired")) == 1 and holds()


def test_a_code_that_nobody_asks_to_renew_ends_with_its_order(
    app: Flask, bank: quartz.Bank, sandbox: Sandbox
) -> None:
    order = opened().order
    sandbox.advance(310)
    sweeping.run("test")
    assert newest(order).awaits_buyer
    sandbox.advance(900)
    sweeping.run("test")
    last = newest(order)
    assert (last.state, last.order.state) == (PaymentState.EXPIRED, OrderState.EXPIRED)
    assert last.order.stock_state is StockState.RELEASED
    assert bank.creates == 1 and len(mails("order_expired")) == 1 and holds()


def test_paid_in_the_last_moment_wins_and_a_scanned_code_holds(
    app: Flask, bank: quartz.Bank, sandbox: Sandbox
) -> None:
    payment = opened()
    bank.be("quartz-1", "processing")
    sandbox.advance(3600)
    sweeping.run("test")
    assert fresh(payment).state is PaymentState.PROCESSING
    assert fresh(payment).order.stock_state is StockState.HELD
    bank.be("quartz-1", "paid")
    sweeping.run("test")
    assert fresh(payment).order.state is OrderState.COMPLETED and holds()


def test_a_refused_code_leaves_the_place_and_says_why(
    app: Flask, bank: quartz.Bank, client: FlaskClient
) -> None:
    order = opened().order
    bank.be("quartz-1", "failed")
    page = client.get(address(order)).text
    assert "The bank did not make the payment." in page and "New QR code" in page
    # Nothing of the next attempt is anywhere, so the order can be cancelled now.
    managing.cancel(db.session.get_one(Order, order.id), door="order_page")
    assert newest(order).order.state is OrderState.CANCELLED and holds()


def test_an_old_code_that_is_paid_after_all_has_its_goods(
    app: Flask, bank: quartz.Bank, sandbox: Sandbox
) -> None:
    first = opened()
    order = first.order
    sandbox.advance(310)
    sweeping.run("test")
    bank.be("quartz-1", "paid")
    sandbox.advance(3700)
    sweeping.run("test")
    sweeping.run("test")
    payment = fresh(first)
    assert payment.state is PaymentState.PAID and payment.order.state is OrderState.COMPLETED
    assert not newest(order).is_active and holds()


# --- Money back, by hand --------------------------------------------------------------------------------


def paid(bank: quartz.Bank) -> Payment:
    payment = opened()
    bank.be(payment.provider_id or "", "paid")
    reconciling.reconcile(payment.id, door="test")
    return fresh(payment)


def test_a_refund_waits_for_a_person_who_makes_it_and_records_it(
    app: Flask, bank: quartz.Bank, client: FlaskClient, sandbox: Sandbox
) -> None:
    payment, boss = paid(bank), make_user("boss@example.org")
    made = refunds.request(payment.id, 2500, actor_id=boss.id, reason="Ill")
    assert made.state is RefundState.CREATED and not mails("refund")
    alerts = [mail for mail in mails("alert") if "Refund To Make By Hand" in str(mail.context)]
    assert len(alerts) == 1 and holds()
    page = client.get(address(payment.order)).text
    assert "is to go back to you" in page and "You’re going to" in page
    assert all(ticket.state is TicketState.VALID for ticket in fresh(payment).order.tickets)
    # One is under way: another is refused, as for any provider, and somebody is reminded once a day.
    with pytest.raises(DomainError, match="At most|under way"):
        refunds.request(payment.id, 100, actor_id=boss.id, reason="More")
    sweeping.run("test")
    sandbox.advance(90_000)
    sweeping.run("test")
    alerts = [mail for mail in mails("alert") if "Refund To Make By Hand" in str(mail.context)]
    assert len(alerts) == 2 and holds()

    with pytest.raises(DomainError, match="Say how"):
        refunds_by_hand.record(made.id, reference="RB-20261129-7", note=" ", actor_id=boss.id)
    done = refunds_by_hand.record(made.id, reference="RB-20261129-7", note="In the app", actor_id=boss.id)
    assert done.state is RefundState.SUCCEEDED
    payment = fresh(payment)
    assert payment.order.state is OrderState.REFUNDED and payment.order.stock_state is not StockState.HELD
    assert [ticket.state for ticket in payment.order.tickets] == [TicketState.VOID]
    assert len(mails("refund")) == 1 and holds()
    assert "You were paid back" in client.get(address(payment.order)).text
    with pytest.raises(DomainError, match="already"):
        refunds_by_hand.record(made.id, reference="RB-20261129-8", note="Twice", actor_id=boss.id)


def test_a_refund_that_cannot_be_made_leaves_the_money_and_the_tickets(app: Flask, bank: quartz.Bank) -> None:
    payment, boss = paid(bank), make_user("boss@example.org")
    made = refunds.request(payment.id, 2500, actor_id=boss.id, reason="Ill")
    done = refunds_by_hand.refuse(made.id, why="Their account is closed", actor_id=boss.id)
    assert (done.state, done.failure_reason) == (RefundState.FAILED, "Their account is closed")
    payment = fresh(payment)
    assert payment.order.state is OrderState.COMPLETED and payment.asked_back_minor == 0
    assert not mails("refund") and holds()


def test_one_reference_is_of_one_refund(app: Flask, bank: quartz.Bank) -> None:
    boss = make_user("boss@example.org")
    first = refunds.request(paid(bank).id, 1000, actor_id=boss.id, reason="Some")
    refunds_by_hand.record(first.id, reference="RB-1234567", note="App", actor_id=boss.id)
    second = refunds.request(first.payment_id, 1000, actor_id=boss.id, reason="More")
    with pytest.raises(DomainError, match="recorded with this reference before"):
        refunds_by_hand.record(second.id, reference="RB-1234567", note="App", actor_id=boss.id)
