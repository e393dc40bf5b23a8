"""The eight invariants: silent over honest data, and each loud when what it guards is broken by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from flask import Flask
from sqlalchemy import select

from domain import clock
from domain.ledger import transfers
from domain.office import health, invariants
from domain.payments import incidents, reconciling, settling
from extensions import db
from models import CheckRun, Order, OutboxMail, Payment, SweepRun, TimelineEntry
from tests.support.shop import make_event, make_user, place, report_on


def sold(app: Flask) -> Order:
    """A paid order of two tickets."""
    order = place(make_event(), 2)
    payment = reconciling.active(order)
    assert payment is not None
    settling.settle(payment.id, report_on(payment, "open"), door="test")
    settling.settle(payment.id, report_on(payment, "paid"), door="test")
    return db.session.get_one(Order, order.id, populate_existing=True)


def broken() -> set[str]:
    return {violation.code for violation in invariants.look()}


def by_hand(statement: str, **values: object) -> None:
    """What nobody should do to the database."""
    db.session.execute(db.text(statement), values)
    db.session.commit()


def alerts() -> list[OutboxMail]:
    return list(db.session.scalars(select(OutboxMail).filter_by(kind="alert").order_by(OutboxMail.id)))


def test_honest_data_holds(app: Flask) -> None:
    sold(app)
    place(make_event("other"), 1)
    place(make_event("free", price_minor=0), 1)
    user = make_user()
    transfers.post(
        key="gift",
        debit="platform",
        credit=f"wallet:{user.id}",
        amount_minor=500,
        currency="EUR",
        kind="adjustment",
    )
    db.session.commit()
    assert invariants.look() == []


@pytest.mark.parametrize(
    ("code", "statement"),
    [
        (
            "one_credit",
            "INSERT INTO transfers (key, debit, credit, amount_minor, currency, kind, description, order_id,"
            " payment_id, agent_slug, provider_reference, created_at)"
            " SELECT 'twice', debit, credit, amount_minor, currency, kind, '', order_id, payment_id, '', '',"
            " created_at FROM transfers",
        ),
        ("goods_have_a_cause", "UPDATE payments SET fulfilled = false"),
        ("goods_have_a_cause", "DELETE FROM timeline WHERE what = 'paid'"),
        ("paid_money_is_placed", "UPDATE payments SET fulfilled = false"),
        ("stock_adds_up", "UPDATE ticket_types SET sold = sold - 1"),
        ("stock_adds_up", "UPDATE ticket_types SET held = held + 1"),
        ("mail_is_sent_or_failed", "DELETE FROM outbox WHERE kind = 'tickets'"),
        (
            "mail_is_sent_or_failed",
            "UPDATE outbox SET next_attempt_at = next_attempt_at - interval '2 hours' WHERE kind = 'tickets'",
        ),
        ("nothing_is_forgotten", "UPDATE orders SET state = 'pending_verification'"),
        (
            "refunds_within_what_came",
            "INSERT INTO refunds (payment_id, amount_minor, currency, state, idempotency_key, reason,"
            " made_at_provider, refunded_before_minor, failure_reason, void_ticket_ids, check_count,"
            " created_at) SELECT id, received_minor + 1, currency, 'succeeded', 'by-hand', '', false, 0, '',"
            " '[]', 0, created_at FROM payments",
        ),
    ],
)
def test_each_notices_what_it_guards(app: Flask, code: str, statement: str) -> None:
    sold(app)
    assert broken() == set()
    by_hand(statement)
    assert code in broken()


def test_a_wallet_must_be_the_sum_of_its_transfers(app: Flask) -> None:
    user = make_user()
    transfers.post(
        key="gift",
        debit="platform",
        credit=f"wallet:{user.id}",
        amount_minor=500,
        currency="EUR",
        kind="adjustment",
    )
    db.session.commit()
    assert broken() == set()
    by_hand("UPDATE wallets SET balance_minor = 501")
    assert broken() == {"wallets_match_the_ledger"}


def test_a_payment_that_sweeps_pass_over_is_noticed(app: Flask) -> None:
    order = place(make_event(), 1)
    payment = reconciling.active(order)
    assert payment is not None
    now = clock.now()
    db.session.add(SweepRun(trigger="test", started_at=now, finished_at=now, error=""))
    db.session.commit()
    assert broken() == set()
    by_hand("UPDATE payments SET next_check_at = :then", then=now - timedelta(hours=2))
    assert broken() == {"nothing_is_forgotten"}


def test_money_in_the_inbox_is_placed(app: Flask) -> None:
    order = place(make_event(), 1)
    payment = reconciling.active(order)
    assert payment is not None
    settling.settle(payment.id, report_on(payment, "open"), door="test")
    settling.settle(payment.id, report_on(payment, "paid", amount_minor=1), door="test")
    assert "mismatch" in incidents.KINDS
    assert broken() == set()
    by_hand("DELETE FROM incidents")
    assert broken() == {"paid_money_is_placed"}


def test_a_cause_is_alerted_once_and_each_new_one_again(app: Flask) -> None:
    first, second = sold(app), make_user()
    by_hand("UPDATE ticket_types SET sold = 0")
    assert [violation.code for violation in invariants.run().violations] == ["stock_adds_up"]
    invariants.run()
    (alert,) = alerts()
    assert alert.context["subject"] == "[Kassa CRITICAL] Invariant violated: stock_adds_up"
    assert "ticket_type:" in alert.context["text"]
    by_hand(
        "INSERT INTO wallets (user_id, currency, balance_minor, held_minor, overdrawn, created_at)"
        " VALUES (:user, 'EUR', 7, 0, false, :now)",
        user=second.id,
        now=clock.now(),
    )
    invariants.run()
    assert len(alerts()) == 2
    runs = db.session.scalars(select(CheckRun).order_by(CheckRun.id)).all()
    assert [len(run.violations) for run in runs] == [1, 1, 2]
    assert first.state == "completed"


def test_what_breaks_again_is_alerted_again(app: Flask) -> None:
    sold(app)
    for _ in range(2):
        by_hand("UPDATE ticket_types SET sold = 0")
        for _ in range(2):
            invariants.run()
        by_hand("UPDATE ticket_types SET sold = 2")
        assert invariants.run().violations == []
    assert len(alerts()) == 2


def test_what_ran_out_of_time_is_unknown_and_no_violation(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told once, as what it is; and a cause that was known before is not new after it."""
    sold(app)
    by_hand("UPDATE ticket_types SET sold = 0")
    invariants.run()
    stock = next(invariant for invariant in invariants.INVARIANTS if invariant.code == "stock_adds_up")
    with monkeypatch.context() as slow:
        query = f"SELECT q.* FROM ({stock.query}) q, pg_sleep(3)"
        slow.setattr(invariants, "INVARIANTS", (replace(stock, query=query),))
        slow.setattr(invariants, "SECONDS", 1)
        for _ in range(2):
            assert invariants.run() == invariants.Answers([], ["stock_adds_up"])
        assert invariants.look() == []
        seen = health.report().checks["invariants"]
        assert seen.state == health.OK and seen.words.endswith("Not asked in time: stock_adds_up.")
    subjects = [alert.context["subject"] for alert in alerts()]
    assert subjects[1:] == ["[Kassa Alert] Invariants Not Checked: stock_adds_up"]
    assert [violation.code for violation in invariants.run().violations] == ["stock_adds_up"]
    assert len(alerts()) == 2
    assert health.report().checks["invariants"].words.startswith("Violated")


def test_old_runs_are_forgotten(app: Flask) -> None:
    db.session.add(CheckRun(at=clock.now() - invariants.KEEP - timedelta(days=1), violations=[]))
    db.session.commit()
    invariants.run()
    assert db.session.query(CheckRun).count() == 1


def test_looking_changes_nothing(app: Flask) -> None:
    sold(app)
    before = (db.session.query(TimelineEntry).count(), db.session.query(Payment).count(), len(alerts()))
    invariants.look()
    assert (
        db.session.query(TimelineEntry).count(),
        db.session.query(Payment).count(),
        len(alerts()),
    ) == before
