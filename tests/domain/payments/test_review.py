"""Payments that a person looks at, and late words about attempts that were over."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select

from domain import clock
from domain.errors import DomainError
from domain.ledger import transfers
from domain.office import invariants
from domain.payments import creating, fulfilment, incident_decisions, poll_schedule, settling
from domain.providers.contract import DisputeReport, ProviderError, RefundReport
from domain.providers.stripe import StripeProvider
from extensions import db
from models import (
    Incident,
    Order,
    OrderState,
    OutboxMail,
    Payment,
    PaymentState,
    Refund,
    Ticket,
    TicketType,
)
from tests.support.people import mails
from tests.support.shop import make_event, make_user, place, report_on


def settle(payment: Payment, state: str, **changes: Any) -> settling.Outcome:
    payment = fresh(payment)
    return settling.settle(payment.id, report_on(payment, state, **changes), door="test")


def fresh(payment: Payment) -> Payment:
    return db.session.get_one(Payment, payment.id, populate_existing=True)


def state_of(order: Order) -> OrderState:
    return db.session.get_one(Order, order.id, populate_existing=True).state


def second_attempt(order: Order) -> Payment:
    """The payment after the first, which is made here where there is none."""
    found = db.session.get_one(Order, order.id, populate_existing=True)
    creating.prepare(found, "stripe")
    found.state = OrderState.PENDING
    fulfilment.hold(found)
    db.session.commit()
    return found.payments[-1]


def incident() -> Incident:
    return db.session.scalars(select(Incident).execution_options(populate_existing=True)).one()


def test_deciding_about_a_second_payment_leaves_the_paid_order_alone(app: Flask) -> None:
    order = place(make_event())
    first = order.payments[0]
    settle(first, "open")
    settle(first, "expired")
    second = second_attempt(order)
    settle(second, "open")
    settle(first, "paid")
    settle(second, "open", amount_minor=1)
    assert fresh(second).state is PaymentState.REVIEW
    admin = make_user("admin@example.org")
    settling.override(second.id, state=PaymentState.EXPIRED, actor_id=admin.id, note="It was never paid.")
    assert state_of(order) is OrderState.COMPLETED


def test_an_old_attempt_that_turns_to_processing_stays_closed_beside_a_newer_one(app: Flask) -> None:
    order = place(make_event())
    first = order.payments[0]
    settle(first, "open")
    settle(first, "failed")
    second = second_attempt(order)
    settle(second, "open")
    assert settle(first, "processing").state is PaymentState.FAILED
    waits = fresh(first).next_check_at
    assert waits is not None and waits <= clock.now() + poll_schedule.ASK_AGAIN
    settle(second, "paid")
    settle(second, "paid", refunds=(RefundReport("re_1", 2500, "EUR", "succeeded"),))
    assert settle(first, "processing").state is PaymentState.PROCESSING
    assert state_of(order) is OrderState.REFUNDED


def test_an_outage_does_not_lose_the_reading_of_a_closed_payment(app: Flask) -> None:
    payment = place(make_event()).payments[0]
    settle(payment, "open")
    settle(payment, "expired")
    payment = fresh(payment)
    payment.state_since = clock.now() - timedelta(days=2)
    payment.next_check_at = clock.now() - timedelta(minutes=1)
    db.session.commit()
    settling.unanswered(payment.id, ProviderError("down", permanent=False), door="test")
    again = fresh(payment).next_check_at
    assert again is not None and again > clock.now()


def test_what_waits_for_a_decision_is_what_arrived(app: Flask) -> None:
    """An unpaid session that differs, then money, then another sum, then another currency."""
    payment = place(make_event()).payments[0]
    settle(payment, "open")
    settle(payment, "open", amount_minor=100)
    for changes in ({}, {"amount_minor": 100}, {"currency": "USD"}, {"amount_minor": 2500}):
        told = report_on(fresh(payment), "paid", **changes)
        settling.settle(payment.id, told, door="test")
        assert (incident().amount_minor, incident().currency) == (told.amount_minor, told.currency)
        assert transfers.balance(transfers.SUSPENSE, told.currency) == told.amount_minor
        other = "EUR" if told.currency == "USD" else "USD"
        assert transfers.balance(transfers.SUSPENSE, other) == 0
    incident_decisions.resolve(incident().id, how="issue", reason="It is the buyer's money.", actor_id=None)
    assert transfers.balance(transfers.SUSPENSE, "EUR") == 0
    assert transfers.balance(transfers.sales_account(None), "EUR") == 2500


def test_money_that_was_given_back_meanwhile_buys_nothing(app: Flask) -> None:
    """A refund made in the provider's dashboard is seen while the payment waits for a decision."""
    payment = place(make_event()).payments[0]
    settle(payment, "open")
    settle(payment, "paid", reference="ORD-ANOTHER-1")
    settle(
        payment,
        "paid",
        reference="ORD-ANOTHER-1",
        refunds=(RefundReport("re_1", 2500, "EUR", "succeeded"),),
    )
    assert db.session.scalars(select(Refund.amount_minor)).one() == 2500
    assert transfers.balance(transfers.SUSPENSE, "EUR") == 0
    with pytest.raises(DomainError) as refused:
        incident_decisions.resolve(incident().id, how="issue", reason="Why not", actor_id=None)
    assert refused.value.code == "given_back"


@pytest.mark.parametrize("back_minor", [500, 2500])
def test_money_that_went_back_before_it_was_confirmed_buys_nothing(app: Flask, back_minor: int) -> None:
    """The dashboard gave it back, or some, while the payment was in review; then the record agrees again."""
    payment = place(make_event()).payments[0]
    back = (RefundReport("re_1", back_minor, "EUR", "succeeded"),)
    settle(payment, "open")
    settle(payment, "paid", livemode=True)
    settle(payment, "paid", livemode=True, refunds=back)
    admin = make_user("admin@example.org")
    settling.override(payment.id, state=PaymentState.EXPIRED, actor_id=admin.id, note="A mistake")
    settle(payment, "paid", refunds=back)
    kinds = db.session.scalars(select(Incident.kind).order_by(Incident.id)).all()
    assert (kinds, fresh(payment).fulfilled) == (["mismatch", "given_back"], False)
    assert db.session.scalars(select(Ticket.id)).all() == []
    assert transfers.balance(transfers.SUSPENSE, "EUR") == 2500 - back_minor
    assert invariants.look() == []


def test_money_that_was_credited_before_it_was_confirmed_buys_nothing(app: Flask) -> None:
    member = make_user()
    payment = place(make_event(), user=member, email=member.email).payments[0]
    settle(payment, "open")
    settle(payment, "paid", livemode=True)
    admin = make_user("admin@example.org")
    settling.override(payment.id, state=PaymentState.EXPIRED, actor_id=admin.id, note="A mistake")
    incident_decisions.resolve(incident().id, how="wallet", reason="They asked", actor_id=admin.id)
    settle(payment, "paid")
    assert db.session.scalars(select(Ticket.id)).all() == []
    assert transfers.wallet_of(member.id, "EUR").balance_minor == 2500
    assert transfers.balance(transfers.SUSPENSE, "EUR") == 0
    again = db.session.scalars(select(Incident.id).where(Incident.resolved_at.is_(None))).one()
    for how in ("issue", "wallet"):
        with pytest.raises(DomainError) as refused:
            incident_decisions.resolve(again, how=how, reason="Once more", actor_id=admin.id)
        assert refused.value.code == "given_back"
    assert invariants.look() == []


def test_nobody_is_told_that_nothing_was_charged_while_their_money_waits(app: Flask) -> None:
    payment = place(make_event()).payments[0]
    settle(payment, "open")
    settle(payment, "paid", reference="ORD-ANOTHER-1")
    admin = make_user("admin@example.org")
    settling.override(payment.id, state=PaymentState.FAILED, actor_id=admin.id, note="Gone")
    assert db.session.scalar(select(OutboxMail).filter_by(kind="payment_failed")) is None
    assert incident().resolved_at is None


def test_a_sum_that_changes_after_the_goods_changes_no_sum_of_ours(app: Flask) -> None:
    payment = place(make_event()).payments[0]
    settle(payment, "open")
    settle(payment, "paid")
    settle(payment, "paid", amount_minor=1)
    assert fresh(payment).received_minor == 2500


@pytest.mark.parametrize(
    "changes",
    [{"amount_minor": 1000}, {"currency": "USD"}, {"reference": "ORD-ANOTHER-1"}, {"livemode": True}],
)
def test_what_a_person_has_accepted_is_not_taken_back_by_the_next_reading(
    app: Flask, changes: dict[str, Any]
) -> None:
    order = place(make_event())
    payment = order.payments[0]
    settle(payment, "open")
    settle(payment, "open", **changes)
    settle(payment, "paid", **changes)
    incident_decisions.resolve(incident().id, how="issue", reason="It is the buyer's money.", actor_id=None)
    settle(payment, "paid", **changes)
    assert fresh(payment).state is PaymentState.PAID
    assert state_of(order) is OrderState.COMPLETED
    alerts = db.session.scalars(select(OutboxMail).filter_by(kind="alert").order_by(OutboxMail.id)).all()
    assert len(alerts) == 1
    # Another difference was not what the person looked at.
    settle(payment, "paid", **{**changes, "account": "acct_another"})
    assert fresh(payment).state is PaymentState.REVIEW


def test_an_order_is_refunded_when_all_that_was_accepted_for_it_went_back(app: Flask) -> None:
    order = place(make_event())
    payment = order.payments[0]
    settle(payment, "open")
    settle(payment, "paid", amount_minor=1000)
    incident_decisions.resolve(incident().id, how="issue", reason="A discount.", actor_id=None)
    back = (RefundReport("re_1", 1000, "EUR", "succeeded"),)
    settle(payment, "paid", amount_minor=1000, refunds=back)
    assert state_of(order) is OrderState.REFUNDED


def test_a_dispute_that_is_won_after_its_money_was_to_be_refunded_is_decided_anew(app: Flask) -> None:
    """The bank had the money when somebody decided to give it back, so that nothing went; now it is here."""
    order = place(make_event())
    payment = order.payments[0]
    settle(payment, "open")
    settle(payment, "paid", amount_minor=2400)
    claim = DisputeReport("dp_1", 2400, "EUR", "open", "needs_response")
    settle(payment, "paid", amount_minor=2400, disputes=(claim,))
    admin = make_user("admin@example.org")
    incident_decisions.resolve(incident().id, how="refund", reason="They want it back.", actor_id=admin.id)
    assert (state_of(order), fresh(payment).refunds) == (OrderState.REFUNDED, [])
    won = replace(claim, state="won", status="won")
    for _ in range(2):
        settle(payment, "paid", amount_minor=2400, disputes=(won,))
    again = db.session.scalars(select(Incident).where(Incident.resolved_at.is_(None))).one()
    assert (again.kind, again.amount_minor, state_of(order)) == ("dispute_won", 2400, OrderState.REVIEW)
    assert transfers.balance(transfers.SUSPENSE, "EUR") == 2400
    assert invariants.look() == []


@pytest.mark.parametrize("opened", [True, False])
@pytest.mark.parametrize("how", ["refund", "dismiss", "close"])
def test_a_decision_about_one_payment_leaves_what_another_is_paying_for(
    app: Flask, monkeypatch: pytest.MonkeyPatch, how: str, opened: bool
) -> None:
    """The buyer pays anew meanwhile: the places stay theirs, and the second money buys them."""
    event = make_event(capacity=1)
    order = place(event)
    first = order.payments[0]
    settle(first, "open")
    settle(first, "failed")
    second = second_attempt(order)
    if opened:
        settle(second, "open")
    settle(first, "open" if how == "close" else "paid", livemode=True)
    assert state_of(order) is OrderState.REVIEW
    if how == "close":
        admin = make_user("admin@example.org")
        settling.override(first.id, state=PaymentState.EXPIRED, actor_id=admin.id, note="It was never paid.")
    else:
        made = RefundReport("re_1", 2500, "EUR", "succeeded")
        monkeypatch.setattr(StripeProvider, "refund", lambda *args, **more: made)
        incident_decisions.resolve(incident().id, how=how, reason="I looked at it.", actor_id=None)
    goes_on = OrderState.PENDING_VERIFICATION if opened or how == "close" else OrderState.PENDING
    assert state_of(order) is goes_on
    assert db.session.scalars(select(TicketType.held)).all() == [1]
    assert mails("order_expired") == mails("order_cancelled") == []
    settle(second, "open")
    settle(second, "paid")
    assert (state_of(order), fresh(second).fulfilled) == (OrderState.COMPLETED, True)
    assert db.session.scalars(select(Incident.kind)).all() == ["mismatch"]
    assert invariants.look() == [] or how == "close"
