"""Refunds, disputes and decisions beside others: the order of locks, deadlocks, and rows read afresh."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from flask import Flask
from psycopg.errors import LockNotAvailable
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError

from domain import locks
from domain.errors import DomainError
from domain.ledger import transfers
from domain.payments import incident_decisions, ledger_accounts, refundable, refunds, settling, starting
from domain.providers.contract import DisputeReport, RefundReport
from domain.providers.stripe import StripeProvider
from extensions import db
from models import (
    Incident,
    Order,
    OrderState,
    Payment,
    PaymentState,
    Refund,
    RefundState,
    Ticket,
    TicketType,
    Wallet,
)
from tests.support.shop import make_event, make_user, place, report_on
from tests.support.waiting import until_somebody_waits

SENT = RefundReport("re_1", 2500, "EUR", "succeeded")


@pytest.fixture
def other(app: Flask, database_url: str) -> Iterator[psycopg.Connection]:
    """Somebody else's transaction, which the test holds in its hand. It never finds out about a deadlock."""
    with psycopg.connect(database_url) as connection:
        connection.execute("SET deadlock_timeout = '60s'")
        connection.commit()
        yield connection


def settle(payment: Payment, state: str, **changes: Any) -> None:
    settling.settle(payment.id, report_on(fresh(payment), state, **changes), door="test")


def fresh(payment: Payment) -> Payment:
    return db.session.get_one(Payment, payment.id, populate_existing=True)


def paid(**more: Any) -> Payment:
    payment = place(make_event(), **more).payments[0]
    settle(payment, "open")
    settle(payment, "paid")
    return fresh(payment)


def by_wallet() -> Payment:
    """A ticket that a member paid from their wallet."""
    member = make_user()
    gift: Any = {"key": "gift", "debit": "platform", "credit": f"wallet:{member.id}", "kind": "adjustment"}
    transfers.post(amount_minor=3000, currency="EUR", **gift)
    db.session.commit()
    order = place(make_event(), user=member, email=member.email, provider="wallet")
    payment = starting.open_at_provider(order)
    assert payment is not None and payment.state is PaymentState.PAID
    return payment


def lock(connection: psycopg.Connection, table: str, more: str = "") -> None:
    connection.execute(f"SELECT FROM {table} FOR NO KEY UPDATE {more}")


def beside(app: Flask, work: Callable[[], Any]) -> Future[None]:
    """Work that goes on in a thread of its own; its result raises what the work did."""

    def run() -> None:
        with app.app_context():
            try:
                work()
            finally:
                db.session.remove()

    pool = ThreadPoolExecutor(1)
    ours = pool.submit(run)
    pool.shutdown(wait=False)
    return ours


# --- The order of locks, and deadlocks ------------------------------------------------------------------


def takes_stock_before_the_wallet(app: Flask, other: psycopg.Connection) -> bool:
    """Whether a refund that waits for a wallet has taken the stock of its ticket already."""
    payment_id = by_wallet().id
    db.session.rollback()
    lock(other, "wallets")
    ours = beside(app, lambda: refunds.request(payment_id, 2500, actor_id=None, reason="Ill"))
    until_somebody_waits(other)
    try:
        with other.transaction():
            lock(other, "ticket_types", "NOWAIT")
        taken = False
    except LockNotAvailable:
        taken = True
    other.rollback()
    ours.result(30)
    assert db.session.scalars(select(Refund.state)).one() is RefundState.SUCCEEDED
    return taken


def test_a_refund_takes_the_wallet_before_the_stock(app: Flask, other: psycopg.Connection) -> None:
    assert not takes_stock_before_the_wallet(app, other)


def test_the_other_way_round_it_would_be_seen(
    app: Flask, other: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control of the test above: whoever buys has the wallet, and waits for the stock."""
    touch = update(TicketType).values(sold=TicketType.sold)
    monkeypatch.setattr(ledger_accounts, "lock", lambda order, payment: db.session.execute(touch))
    assert takes_stock_before_the_wallet(app, other)


def _refund() -> tuple[Callable[[], Any], str]:
    payment_id = paid().id
    return lambda: refunds.request(payment_id, 2500, actor_id=None, reason="Ill"), "payments"


def _dispute() -> tuple[Callable[[], Any], str]:
    payment = paid()
    claim = DisputeReport("dp_1", 2500, "EUR", "open", "needs_response")
    settle(payment, "paid", disputes=(claim,))
    lost = DisputeReport("dp_1", 2500, "EUR", "lost", "lost")
    told, payment_id = report_on(fresh(payment), "paid", disputes=(lost,)), payment.id
    return lambda: settling.settle(payment_id, told, door="test"), "payments"


def _decision() -> tuple[Callable[[], Any], str]:
    payment = place(make_event()).payments[0]
    settle(payment, "open")
    settle(payment, "paid", amount_minor=2400)
    incident_id = db.session.scalars(select(Incident.id)).one()
    return lambda: incident_decisions.resolve(
        incident_id, how="issue", reason="All right.", actor_id=None
    ), "incidents"


@pytest.mark.parametrize("begin", [_refund, _dispute, _decision])
def test_a_deadlock_is_tried_again(
    app: Flask,
    other: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    begin: Callable[[], tuple[Callable[[], Any], str]],
) -> None:
    """Somebody has the stock, by hand say, and wants a row that we have: ours is the one that is ended."""
    monkeypatch.setattr(StripeProvider, "refund", lambda *args, **more: SENT)
    work, table = begin()
    db.session.rollback()
    lock(other, "ticket_types")
    ours = beside(app, work)
    until_somebody_waits(other)
    with suppress(psycopg.OperationalError):
        lock(other, table)
    other.commit()
    ours.result(30)
    sold = {_refund: 0, _dispute: 0, _decision: 1}[begin]
    assert db.session.scalars(select(TicketType.sold)).all() == [sold]


# --- What is read under a lock --------------------------------------------------------------------------


def elsewhere(statement: str) -> None:
    """Another process changes something, and commits, while this session knows the row already."""
    with db.engine.begin() as connection:
        connection.execute(db.text(statement))


def test_rows_under_a_lock_are_read_afresh(app: Flask) -> None:
    """Whatever a session has seen of them in the same transaction before."""
    payment = by_wallet()
    order_id, payment_id = payment.order_id, payment.id
    db.session.add(
        Refund(
            payment=payment,
            amount_minor=1,
            currency="EUR",
            idempotency_key="r",
            state=RefundState.FAILED,
            created_at=payment.created_at,
        )
    )
    incident = Incident(
        key="i", kind="late_money", amount_minor=1, currency="EUR", created_at=payment.created_at
    )
    db.session.add(incident)
    db.session.commit()
    order, wallet = db.session.get_one(Order, order_id), db.session.scalars(select(Wallet)).one()
    refund, seen = db.session.scalars(select(Refund)).one(), db.session.get_one(Payment, payment_id)
    before = (order.name, seen.reason, wallet.held_minor, refund.reason, incident.kind)
    elsewhere("UPDATE orders SET name = 'New'")
    elsewhere("UPDATE payments SET reason = 'New'")
    elsewhere("UPDATE wallets SET held_minor = 1")
    elsewhere("UPDATE refunds SET reason = 'New'")
    elsewhere("UPDATE incidents SET kind = 'double_payment'")
    assert before == (order.name, seen.reason, wallet.held_minor, refund.reason, incident.kind)
    locks.payment_and_order(payment_id)
    assert (order.name, seen.reason) == ("New", "New")
    elsewhere_order = "UPDATE orders SET name = 'Newer'"
    db.session.rollback()
    assert order.name == "New"
    elsewhere(elsewhere_order)
    assert locks.order(order_id).name == "Newer"
    assert transfers.wallet_of(wallet.user_id, "EUR", lock=True).held_minor == 1
    assert refunds._locked(refund.id)[0].reason == "New"
    assert incident_decisions.open_one(incident.id).kind == "double_payment"


def test_what_another_process_has_settled_is_not_settled_again(app: Flask) -> None:
    """This session read the payment as open, and nothing between that and its lock makes it forget."""
    payment = place(make_event()).payments[0]
    settle(payment, "open")
    told = report_on(fresh(payment), "paid")
    assert (payment.state, payment.order.state) == (PaymentState.OPEN, OrderState.PENDING_VERIFICATION)
    payment_id = payment.id
    ours = beside(app, lambda: settling.settle(payment_id, told, door="webhook"))
    ours.result(30)
    assert payment.state is PaymentState.OPEN
    outcome = settling.settle(payment_id, told, door="success")
    assert (outcome.changed, outcome.error) == (False, None)
    assert len(db.session.scalars(select(Ticket.id)).all()) == 1


# --- Never more than came -------------------------------------------------------------------------------


def test_the_database_refuses_to_ask_for_more_than_came(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a rule is wrong, its refund is not asked for, and leaves nothing behind."""
    monkeypatch.setattr(StripeProvider, "refund", lambda *args, **more: replace(SENT, amount_minor=2000))
    payment = paid()
    refunds.request(payment.id, 2000, actor_id=None, reason="Ill")
    assert fresh(payment).asked_back_minor == 2000
    with pytest.raises(DomainError):
        refunds.request(payment.id, 501, actor_id=None, reason="Ill")
    monkeypatch.setattr(refunds, "refundable_minor", lambda payment: 2500)
    with pytest.raises(IntegrityError, match="payments_never_asked_back_more"):
        refunds.request(payment.id, 501, actor_id=None, reason="Ill")
    db.session.rollback()
    assert db.session.scalars(select(Refund.amount_minor)).all() == [2000]


def test_what_failed_may_be_asked_for_again(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StripeProvider, "refund", lambda *args, **more: SENT)
    payment = paid()
    made = refunds.request(payment.id, 2500, actor_id=None, reason="Ill")
    failed = RefundReport("re_1", 2500, "EUR", "failed", "The card is closed.", our_key=made.idempotency_key)
    settle(payment, "paid", refunds=(failed,))
    assert fresh(payment).asked_back_minor == 0
    again = RefundReport("re_2", 2500, "EUR", "succeeded")
    monkeypatch.setattr(StripeProvider, "refund", lambda *args, **more: again)
    refunds.request(payment.id, 2500, actor_id=None, reason="To another card")
    assert fresh(payment).asked_back_minor == 2500 and refundable.refundable_minor(fresh(payment)) == 0


def test_a_refund_that_was_made_after_all_is_recorded_and_is_too_much(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It failed, another one was made, and then the provider says that the first one was made as well."""
    payment = paid()
    monkeypatch.setattr(StripeProvider, "refund", lambda *args, **more: replace(SENT, state="pending"))
    first = refunds.request(payment.id, 2500, actor_id=None, reason="Ill")
    one = RefundReport("re_1", 2500, "EUR", "failed", "No.", our_key=first.idempotency_key)
    settle(payment, "paid", refunds=(one,))
    two = RefundReport("re_2", 2500, "EUR", "succeeded")
    monkeypatch.setattr(StripeProvider, "refund", lambda *args, **more: two)
    refunds.request(payment.id, 2500, actor_id=None, reason="Ill")
    made = RefundReport("re_1", 2500, "EUR", "succeeded", our_key=first.idempotency_key)
    settle(payment, "paid", refunds=(made, two))
    assert {refund.state for refund in fresh(payment).refunds} == {RefundState.SUCCEEDED}
    assert transfers.balance("provider:stripe:platform", "EUR") == 2500
    assert [(i.kind, i.amount_minor) for i in db.session.scalars(select(Incident))] == [
        ("given_back_too_much", 2500)
    ]
    assert fresh(payment).asked_back_minor == 2500
