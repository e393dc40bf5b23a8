"""A shop of many orders: what has changed is looked at every few minutes, and everything at night."""

from __future__ import annotations

import pytest
from flask import Flask
from sqlalchemy import func, select, update

from domain import clock
from domain.office import changes, invariants, metrics, retention, tallies, whole_checks
from domain.payments import settling
from extensions import db
from models import (
    CheckRun,
    Dispute,
    Event,
    Heartbeat,
    MailState,
    Order,
    OutboxMail,
    Payment,
    SweepRun,
    Tally,
    Ticket,
    WebhookEvent,
    WholeCheck,
)
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, place, report_on


@pytest.fixture
def large(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Event:
    """An event of six paid orders, where more than three are many."""
    monkeypatch.setattr(changes, "LARGE", 3)
    monkeypatch.setattr(tallies, "RECENT", 3)
    monkeypatch.setattr(whole_checks, "_ORDERS", 2)
    event = make_event(capacity=100)
    for _ in range(6):
        sell(event)
    return event


def sell(event: Event) -> int:
    order = place(db.session.get_one(Event, event.id))
    payment = order.payments[0]
    for state in ("open", "paid"):
        settling.settle(payment.id, report_on(payment, state), door="test")
    return order.id


def lose_the_cause(order_id: int) -> None:
    """By hand: an order has its goods, and no payment for them."""
    db.session.execute(update(Payment).where(Payment.order_id == order_id).values(fulfilled=False))
    db.session.commit()


def codes(answers: invariants.Answers) -> set[str]:
    return {violation.code for violation in answers.violations}


def test_what_changed_is_asked_about_and_the_rest_at_night(large: Event, sandbox: Sandbox) -> None:
    assert codes(invariants.run()) == set()
    lose_the_cause(1)
    sandbox.advance(600)
    # Nothing of order 1 has moved: nobody looks at it by day. What is sold now is looked at.
    newest = sell(large)
    assert codes(invariants.run()) == set()
    lose_the_cause(newest)
    assert codes(invariants.run()) == {"goods_have_a_cause", "paid_money_is_placed"}
    # What was broken is asked of everything until it holds again.
    sandbox.advance(600)
    found = invariants.run()
    assert {row["row"] for v in found.violations for row in v.sample} >= {"order:1", f"order:{newest}"}
    db.session.execute(update(Payment).values(fulfilled=True))
    db.session.commit()
    assert codes(invariants.run()) == set()
    lose_the_cause(1)
    # At night, in parts: none is long, and what was found is told when all is done.
    parts, check = 0, whole_checks.go_on(budget_seconds=0, now=True)
    while check is not None and check.finished_at is None:
        check, parts = whole_checks.go_on(budget_seconds=0.001), parts + 1
    assert check is not None and parts >= 2 and check.upto_id == newest
    last = db.session.scalars(select(CheckRun).order_by(CheckRun.id.desc()).limit(1)).one()
    assert {row["row"] for violation in last.violations for row in violation["sample"]} >= {"order:1"}
    told = select(OutboxMail).where(OutboxMail.key.startswith("invariant:goods_have_a_cause:order:1:"))
    assert db.session.scalars(told).all()
    # Once a night, and only in a shop that is large.
    while whole_checks.go_on() is not None:
        pass
    assert db.session.scalars(select(func.count()).select_from(WholeCheck)).one() <= 2


def test_numbers_are_the_same_whether_counted_or_kept(large: Event) -> None:
    place(large)
    before = {
        (s.metric.name, s.values): s.number for s in metrics.read(fresh=True) if "state" in s.metric.labels
    }
    tallies.renew()
    db.session.commit()
    assert db.session.get_one(Tally, "orders").upto_id == 4
    place(large)
    after = {
        (s.metric.name, s.values): s.number for s in metrics.read(fresh=True) if "state" in s.metric.labels
    }
    grown = {name: number - before.get(name, 0) for name, number in after.items()}
    assert {name: n for name, n in grown.items() if n} == {
        ("kassa_orders", ("pending",)): 1,
        ("kassa_payments", ("stripe", "created")): 1,
        ("kassa_outbox", ("due",)): 1,
    }
    assert before["kassa_orders", ("completed",)] == 6
    # What an alarm is made of is exact, however old it is.
    db.session.execute(update(OutboxMail).where(OutboxMail.id == 1).values(state=MailState.FAILED))
    db.session.commit()
    assert tallies.read(tallies.OUTBOX)["failed",] == 1


def test_what_only_tells_of_the_past_goes_at_its_age(large: Event, sandbox: Sandbox) -> None:
    now = clock.now()
    ring = {"provider": "stripe", "type": "x", "received_at": now}
    db.session.add_all([WebhookEvent(event_id="a", done_at=now, **ring), WebhookEvent(event_id="b", **ring)])
    db.session.add_all([SweepRun(trigger="t", started_at=now), SweepRun(trigger="t", started_at=now)])
    db.session.add(Heartbeat(name="worker-9", at=now, detail={}))
    db.session.execute(update(OutboxMail).values(state="sent", sent_at=now, context={"event": "Gala"}))
    paid = select(Payment.id).order_by(Payment.id).limit(1).scalar_subquery()
    dispute = {"provider_id": "dp_1", "amount_minor": 1, "currency": "EUR", "created_at": now}
    db.session.add(Dispute(payment_id=db.session.scalar(select(paid)), **dispute))
    db.session.commit()
    kept = [
        db.session.scalar(select(func.count()).select_from(t)) for t in (Order, Payment, Ticket, OutboxMail)
    ]
    retention.forget()
    assert whole_mails() == kept[3]
    sandbox.advance(100 * 86400)
    retention.forget()
    rings = db.session.scalars(select(WebhookEvent.event_id)).all()
    assert (rings, db.session.scalars(select(SweepRun.id)).all()) == (["b"], [2])
    assert db.session.get(Heartbeat, "worker-9") is None and whole_mails() == kept[3]
    # Nobody can dispute the event any more, but for the order of which somebody does.
    sandbox.advance(500 * 86400)
    retention.forget()
    disputed = db.session.scalars(select(OutboxMail.order_id).where(OutboxMail.context != {})).all()
    assert set(disputed) == {1}
    # However old they are: what the buyer was told is shown to the bank.
    sandbox.advance(200 * 86400)
    retention.forget()
    assert set(db.session.scalars(select(OutboxMail.order_id).where(OutboxMail.context != {}))) == {1}
    db.session.execute(update(Dispute).values(closed_at=clock.now()))
    db.session.commit()
    retention.forget()
    assert whole_mails() == 0
    still = [
        db.session.scalar(select(func.count()).select_from(t)) for t in (Order, Payment, Ticket, OutboxMail)
    ]
    assert still == kept
    mail = db.session.get_one(OutboxMail, 1)
    assert (mail.to, mail.order_id, mail.kind) == ("ada@example.org", 1, "order_received")


def whole_mails() -> int:
    return db.session.scalar(select(func.count()).where(OutboxMail.context != {})) or 0
