"""Settle: every pair of states, and the ways in which money and goods could come to disagree."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from sqlalchemy import func, select

from domain.errors import DomainError
from domain.ledger import transfers
from domain.orders import managing
from domain.payments import refunds, settling, starting
from domain.providers.contract import RefundReport
from extensions import db
from models import (
    PAYMENT_NEXT,
    Incident,
    MailState,
    Order,
    OrderState,
    OutboxMail,
    Payment,
    PaymentState,
    StockState,
    Ticket,
    TicketState,
    TicketType,
    Transfer,
)
from tests.support.shop import make_event, make_user, place, report_on

REPORTED = ("open", "processing", "paid", "failed", "cancelled", "expired")
PATHS: dict[PaymentState, tuple[str, ...]] = {
    PaymentState.CREATED: (),
    PaymentState.OPEN: ("open",),
    PaymentState.PROCESSING: ("open", "processing"),
    PaymentState.PAID: ("open", "paid"),
    PaymentState.FAILED: ("open", "processing", "failed"),
    PaymentState.CANCELLED: ("open", "cancelled"),
    PaymentState.EXPIRED: ("open", "expired"),
}


def settle(payment: Payment, state: str, **changes: Any) -> settling.Outcome:
    payment = db.session.get_one(Payment, payment.id, populate_existing=True)
    return settling.settle(payment.id, report_on(payment, state, **changes), door="test")


def stock() -> tuple[int, int]:
    """Held and sold of the only ticket type."""
    row = db.session.execute(select(TicketType.held, TicketType.sold)).one()
    return row.held, row.sold


def mails(kind: str) -> int:
    return db.session.scalars(select(func.count()).select_from(OutboxMail).filter_by(kind=kind)).one()


def the_only(order: Order) -> Payment:
    return db.session.scalars(select(Payment).filter_by(order_id=order.id)).one()


@pytest.mark.parametrize("reported", REPORTED)
@pytest.mark.parametrize("before", list(PATHS))
def test_every_pair_of_states(app: Flask, before: PaymentState, reported: str) -> None:
    order = place(make_event(), 2)
    payment = the_only(order)
    for step in PATHS[before]:
        settle(payment, step)
    outcome = settle(payment, reported)
    target = PaymentState(reported)
    allowed = target in PAYMENT_NEXT[before]
    assert outcome.state is (target if allowed else before)
    order = db.session.get_one(Order, order.id, populate_existing=True)
    paid = outcome.state is PaymentState.PAID
    waiting = outcome.state in (PaymentState.CREATED, PaymentState.OPEN, PaymentState.PROCESSING)
    assert len(order.tickets) == (2 if paid else 0)
    assert order.state is (OrderState.COMPLETED if paid else order.state)
    # A closed payment that turns to processing again holds nothing; its goods are claimed when it is paid.
    holds = waiting and order.stock_state is StockState.HELD
    assert stock() == ((2 if holds else 0), (2 if paid else 0))
    assert waiting <= (payment.next_check_at is not None)


def test_paid_twice_and_late_is_credited_once(app: Flask) -> None:
    order = place(make_event(), 2)
    payment = the_only(order)
    for state in ("open", "paid", "paid", "expired", "processing", "paid"):
        settle(payment, state)
    assert db.session.scalars(select(func.count()).select_from(Ticket)).one() == 2
    assert db.session.scalars(select(func.count()).select_from(Transfer)).one() == 1
    assert mails("tickets") == 1
    assert transfers.balance(transfers.sales_account(None), "EUR") == 5000


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"amount_minor": 2499}, "amount"),
        ({"amount_minor": 2501}, "amount"),
        ({"currency": "USD"}, "currency"),
        ({"reference": "ORD-SOMEBODY-1"}, "reference"),
        ({"account": "acct_other"}, "account"),
        ({"livemode": True}, "mode"),
    ],
)
def test_a_report_that_does_not_match_is_quarantined(app: Flask, changes: dict[str, Any], what: str) -> None:
    order = place(make_event())
    payment = the_only(order)
    settle(payment, "open")
    outcome = settle(payment, "paid", **changes)
    assert outcome.verdict == "review"
    order = db.session.get_one(Order, order.id, populate_existing=True)
    assert (order.state, order.tickets) == (OrderState.REVIEW, [])
    incident = db.session.scalars(select(Incident)).one()
    assert (incident.kind, incident.evidence["what"]) == ("mismatch", what)
    alert = db.session.scalars(select(OutboxMail).filter_by(kind="alert")).one()
    assert alert.context["subject"].startswith("[Kassa CRITICAL] ")
    # Saying it again, rightly or wrongly, changes nothing until a person decides.
    assert settle(payment, "paid").verdict == "review"
    assert db.session.scalars(select(func.count()).select_from(Incident)).one() == 1


def test_late_money_takes_the_stock_that_is_still_there(app: Flask) -> None:
    order = place(make_event(capacity=1))
    payment = the_only(order)
    settle(payment, "open")
    settle(payment, "expired")
    assert stock() == (0, 0)
    assert settle(payment, "paid").verdict == "verified"
    assert stock() == (0, 1)
    assert len(db.session.get_one(Order, order.id, populate_existing=True).tickets) == 1


def test_late_money_without_stock_waits_for_a_person(app: Flask) -> None:
    event = make_event(capacity=1)
    first = the_only(place(event))
    settle(first, "open")
    settle(first, "expired")
    second = the_only(place(event, email="bob@example.org"))
    settle(second, "open")
    settle(second, "paid")
    settle(first, "paid")
    assert stock() == (0, 1)
    incident = db.session.scalars(select(Incident)).one()
    assert (incident.kind, incident.amount_minor) == ("late_money", 2500)
    assert db.session.get_one(Order, first.order_id, populate_existing=True).state is OrderState.REVIEW
    assert transfers.balance(transfers.SUSPENSE, "EUR") == 2500


def test_a_second_payment_of_an_order_is_an_incident(app: Flask) -> None:
    order = place(make_event())
    first = the_only(order)
    settle(first, "open")
    settle(first, "expired")
    again = payments_of_retry(order)
    settle(again, "open")
    settle(again, "paid")
    settle(first, "paid")
    order = db.session.get_one(Order, order.id, populate_existing=True)
    assert (order.state, len(order.tickets)) == (OrderState.COMPLETED, 1)
    assert db.session.scalars(select(Incident)).one().kind == "double_payment"
    assert stock() == (0, 1)


def payments_of_retry(order: Order) -> Payment:
    """A new attempt, without a provider to call: its row only."""
    from domain import locks
    from domain.payments import creating, fulfilment

    def work() -> Payment:
        locked = locks.order(order.id)
        db.session.expire(locked, ["payments"])
        payment = creating.prepare(locked, "stripe")
        locked.state = OrderState.PENDING
        fulfilment.hold(locked)
        return payment

    return locks.in_one_transaction(work)


def test_only_one_payment_of_an_order_can_be_active(app: Flask) -> None:
    from sqlalchemy.exc import IntegrityError

    order = place(make_event())
    with pytest.raises(IntegrityError):
        payments_of_retry(order)


def test_free_orders_are_complete_at_once(app: Flask) -> None:
    order = place(make_event(price_minor=0), 3)
    assert (order.state, len(order.tickets), order.payments) == (OrderState.COMPLETED, 3, [])
    assert stock() == (0, 3)
    assert mails("tickets") == 1


def test_the_wallet_pays_at_once_or_not_at_all(app: Flask) -> None:
    user = make_user()
    event = make_event(capacity=5)
    transfers.post(
        key="gift",
        debit=transfers.PLATFORM,
        credit=transfers.wallet_account(user.id),
        amount_minor=6000,
        currency="EUR",
        kind="adjustment",
    )
    db.session.commit()
    order = place(event, 2, user=user, provider="wallet")
    starting.open_at_provider(order)
    assert transfers.wallet_of(user.id, "EUR").balance_minor == 1000
    assert len(order.tickets) == 2
    poor = place(event, 1, user=user, provider="wallet")
    with pytest.raises(transfers.InsufficientFunds):
        starting.open_at_provider(poor)
    assert transfers.wallet_of(user.id, "EUR").balance_minor == 1000
    poor = db.session.get_one(Order, poor.id, populate_existing=True)
    assert (poor.state, poor.tickets) == (OrderState.FAILED, [])
    assert stock() == (0, 2)


def test_a_repeated_form_is_the_same_order(app: Flask) -> None:
    event = make_event()
    one = place(event, 2, form_token="token")
    two = place(event, 2, form_token="token")
    assert one.id == two.id
    assert stock() == (2, 0)


def test_more_than_there_is_cannot_be_held(app: Flask) -> None:
    event = make_event(capacity=3)
    place(event, 2)
    with pytest.raises(DomainError):
        place(event, 2)
    assert stock() == (2, 0)


def test_a_dashboard_refund_is_mirrored_once_and_voids_the_tickets(app: Flask) -> None:
    order = place(make_event(), 2)
    payment = the_only(order)
    settle(payment, "open")
    settle(payment, "paid")
    back = RefundReport("re_1", 5000, "EUR", "succeeded")
    for _ in range(2):
        settle(payment, "paid", refunds=(back,))
    order = db.session.get_one(Order, order.id, populate_existing=True)
    assert order.state is OrderState.REFUNDED
    assert {ticket.state for ticket in order.tickets} == {TicketState.VOID}
    assert stock() == (0, 0)
    assert transfers.balance(transfers.sales_account(None), "EUR") == 0
    assert mails("refund") == 1


def test_refunds_never_exceed_what_was_paid(app: Flask) -> None:
    order = place(make_event(), 2)
    payment = the_only(order)
    settle(payment, "open")
    settle(payment, "paid")
    settle(payment, "paid", refunds=(RefundReport("re_1", 3000, "EUR", "succeeded"),))
    with pytest.raises(DomainError, match="20.00"):
        refunds.request(payment.id, 2001, actor_id=None, reason="too much")
    order = db.session.get_one(Order, order.id, populate_existing=True)
    assert order.state is OrderState.PARTIALLY_REFUNDED
    assert {ticket.state for ticket in order.tickets} == {TicketState.VALID}


def test_correcting_the_address_is_possible_until_it_is_paid(app: Flask) -> None:
    order = place(make_event())
    managing.correct_email(order, "Ada.Correct@example.org")
    assert db.session.get_one(Order, order.id, populate_existing=True).email == "ada.correct@example.org"
    assert mails("order_received") == 2
    payment = the_only(order)
    settle(payment, "open")
    settle(payment, "paid")
    with pytest.raises(DomainError):
        managing.correct_email(order, "late@example.org")


def test_mail_is_owed_and_not_yet_sent(app: Flask) -> None:
    place(make_event())
    assert {mail.state for mail in db.session.scalars(select(OutboxMail))} == {MailState.DUE}
