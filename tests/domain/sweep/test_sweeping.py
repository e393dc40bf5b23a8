"""The sweep's smaller duties: none of them keeps the others from being done."""

from __future__ import annotations

import pytest
from flask import Flask
from sqlalchemy import Select, func, select

from domain import clock
from domain.ledger import wallet
from domain.office import health
from domain.payments import reconciling, refunds, settling, starting
from domain.post import outbox
from domain.providers import stripe
from domain.sweep import digests, lanes, reading, sweeping
from extensions import db
from models import (
    MailState,
    Order,
    OrderState,
    OutboxMail,
    Payment,
    PaymentState,
    SweepRun,
    TicketState,
)
from tests.support.backends import backend, end_backend
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, place, report_on
from tests.support.threads import at_once


def test_a_duty_that_fails_keeps_no_other_from_being_done(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def broken(*_: object, **__: object) -> list[int]:
        raise RuntimeError("a row that nobody has foreseen")

    monkeypatch.setattr(refunds, "due", broken)
    monkeypatch.setattr(wallet, "expire_holds", broken)

    def deliver(**_: object) -> outbox.Delivery:
        done.append("mail")
        return outbox.Delivery()

    monkeypatch.setattr(outbox, "deliver_due", deliver)
    run = sweeping.run("test")
    assert (run.errors, run.error, done) == (2, "", ["mail"])
    assert run.finished_at is not None


def test_a_sweep_whose_connection_the_database_ended_is_not_taken_for_a_whole_one(
    app: Flask, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It left what was due undone: neither its heartbeat nor the invariants may count on it."""
    payment = starting.open_at_provider(place(make_event()))
    assert payment is not None
    sandbox.advance(400)
    claim = lanes.claim

    def ended(ids: Select[int]) -> list[Payment]:
        end_backend(backend())
        return claim(ids)

    monkeypatch.setattr(lanes, "claim", ended)
    cut = sweeping.run("test")
    assert (cut.error, cut.errors) == ("The database ended the connection during: by id", 1)
    assert cut.finished_at is not None and health.last_sweep() is None
    monkeypatch.setattr(lanes, "claim", claim)
    whole = sweeping.run("test")
    assert (whole.error, whole.errors, whole.pending) == ("", 0, 1)
    found = health.last_sweep()
    assert found is not None and found.id == whole.id


def test_a_sweep_that_went_on_with_its_next_row_after_a_connection_ended_is_not_whole_either(
    app: Flask, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What keeps one row from keeping another waiting must not hide that one was left undone."""
    payment = starting.open_at_provider(place(make_event()))
    assert payment is not None
    sandbox.do(payment.provider_id or "", "pay")
    sandbox.advance(400)

    def ended(*_: object, **__: object) -> settling.Outcome:
        end_backend(backend())
        db.session.execute(select(Payment.id))
        raise AssertionError("the connection has ended")

    with monkeypatch.context() as patch:
        patch.setattr(settling, "settle", ended)
        patch.setattr(reconciling, "reconcile", ended)
        cut = sweeping.run("test")
    # The account is asked what happened as well, which settles the payment, too.
    assert cut.error == "The database ended the connection during: by id, what happened since"
    due = iter([[1], []])
    monkeypatch.setattr(refunds, "due", lambda *_: next(due))
    monkeypatch.setattr(refunds, "follow_up", ended)
    assert sweeping.run("test").error == "The database ended the connection during: refunds"


def test_the_digest_of_what_expired_names_an_order_once(app: Flask) -> None:

    order = place(make_event())
    payment = order.payments[0]
    settling.settle(payment.id, report_on(payment, "open"), door="test")
    settling.settle(payment.id, report_on(payment, "expired"), door="test")
    sweeping.run("test")
    sweeping.run("test")
    mails = db.session.scalars(select(OutboxMail).where(OutboxMail.key.startswith("expired:"))).all()
    assert [mail.context["text"].count(order.code) for mail in mails] == [1]
    assert {mail.state for mail in mails} <= {MailState.DUE, MailState.SENT}
    assert db.session.scalars(select(SweepRun.error).distinct()).all() == [""]


def expired() -> Payment:
    payment = place(make_event(f"concert-{db.session.scalar(select(func.count(Order.id)))}")).payments[0]
    settling.settle(payment.id, report_on(payment, "open"), door="test")
    settling.settle(payment.id, report_on(payment, "expired"), door="test")
    return db.session.get_one(Payment, payment.id)


def all_digests() -> str:
    mails = db.session.scalars(select(OutboxMail).where(OutboxMail.key.startswith("expired:")))
    return "\n".join(mail.context["text"] for mail in mails)


def test_an_order_that_expired_while_the_digest_was_written_is_in_the_next(app: Flask) -> None:
    """Its transaction committed after the digest looked, with a time from before."""
    first, late = expired(), expired()
    codes = [first.order.code, late.order.code]
    late.state = PaymentState.OPEN
    moment = late.state_since
    db.session.commit()
    digests.raise_expired()
    assert [code in all_digests() for code in codes] == [True, False]
    late = db.session.get_one(Payment, late.id)
    late.state, late.state_since = PaymentState.EXPIRED, moment
    db.session.commit()
    digests.raise_expired()
    digests.raise_expired()
    assert [all_digests().count(code) for code in codes] == [1, 1]


def test_sweeps_side_by_side_name_each_expired_order_once(app: Flask) -> None:
    codes = [expired().order.code for _ in range(6)]
    at_once(app, 4, lambda _: digests.raise_expired())
    assert [all_digests().count(code) for code in codes] == [1] * 6


def test_a_payment_read_from_the_list_that_was_refunded_meanwhile_is_mirrored_at_once(
    app: Flask, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_WORTH_A_PAGE", 1)
    event = make_event()
    placed = [place(event, form_token=f"t{number}") for number in range(3)]
    ids = [order.id for order in placed]
    opened = [starting.open_at_provider(order) for order in placed]
    for payment in opened:
        assert payment is not None and payment.provider_id is not None
        sandbox.do(payment.provider_id, "pay")
    assert opened[0] is not None and opened[0].provider_id is not None
    sandbox.do(opened[0].provider_id, "refund")
    sandbox.advance(400)
    sweeping.run("test")
    states = [db.session.get_one(Order, order_id).state for order_id in ids]
    assert states == [OrderState.REFUNDED, OrderState.COMPLETED, OrderState.COMPLETED]
    tickets = db.session.get_one(Order, ids[0]).tickets
    assert {ticket.state for ticket in tickets} == {TicketState.VOID}
    lists = [call for call in sandbox.calls() if call["path"].endswith("/checkout/sessions")]
    assert any(call["method"] == "GET" for call in lists)


def test_a_long_sweep_gives_way_to_mail(
    app: Flask, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One worker does both: what was owed while a sweep runs leaves before its end."""
    monkeypatch.setattr(lanes, "_GIVE_WAY", 0.0)
    monkeypatch.setattr(lanes, "_GIVE_WAY_FOR", 60)
    event = make_event()
    for number in range(3):
        payment = starting.open_at_provider(place(event, form_token=f"t{number}"))
        assert payment is not None and payment.provider_id is not None
        sandbox.do(payment.provider_id, "pay")
    sandbox.advance(400)
    waiting: list[int] = []

    def at_the_end(**_: object) -> None:
        query = select(func.count()).select_from(OutboxMail).where(OutboxMail.state == MailState.DUE)
        waiting.append(db.session.scalars(query).one())

    monkeypatch.setattr(digests, "raise_stuck", at_the_end)
    run = sweeping.run("test")
    assert (waiting, run.error, run.verified) == ([0], "", 3)
    # Three times the order's link, and three times its tickets.
    assert run.mails == len(sandbox.mail("ada@example.org")) == 6


def test_a_mail_server_that_is_away_does_not_slow_a_sweep_down(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "_GIVE_WAY", 0.0)
    tried: list[int] = []

    def refuse(**_: object) -> outbox.Delivery:
        tried.append(1)
        return outbox.Delivery(retried=1)

    monkeypatch.setattr(outbox, "deliver_due", refuse)
    work = lanes.Work(0, clock.now(), 0.0, lambda _: None, False, False, 0)
    for _ in range(5):
        work.give_way()
    assert tried == [1]


def test_one_old_payment_costs_no_pages(
    app: Flask, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An account's list is read where what is due is close together; what is far off is asked for alone."""
    monkeypatch.setattr(stripe, "_PAGE", 5)
    monkeypatch.setattr(reading, "_FULL", 5)
    event = make_event(capacity=100)
    slow = starting.open_at_provider(place(event))
    assert slow is not None and slow.provider_id is not None
    sandbox.do(slow.provider_id, "pay_later")
    for _ in range(15):
        other = starting.open_at_provider(place(event))
        assert other is not None and other.provider_id is not None
        sandbox.do(other.provider_id, "pay")
        reconciling.reconcile(other.id, door="test")
        sandbox.advance(300)
    for _ in range(9):
        starting.open_at_provider(place(event))
    sandbox.advance(400)
    before = len(sandbox.calls())
    run = sweeping.run("test", everything=True)
    calls = [call for call in sandbox.calls()[before:] if "/checkout/sessions" in call["path"]]
    lists = [call for call in calls if call["path"].endswith("/checkout/sessions")]
    assert (run.found, run.pending, run.errors) == (10, 10, 0)
    # Nine lie on two pages; of the fifteen in between no page is read.
    assert (len(lists), len(calls) - len(lists)) == (2, 1), calls
