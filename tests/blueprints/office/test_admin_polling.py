"""What admins see of a payment's polling, and what they may do about it."""

from __future__ import annotations

from datetime import timedelta
from typing import TypeVar

import pytest
from flask import Flask
from flask.testing import FlaskClient

from domain.payments import reconciling, settling, starting
from extensions import db
from models import Order, OrderState, Payment, PaymentState, Role, TimelineEntry
from tests.support.people import log_in, make_member, post
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, place, report_on

T = TypeVar("T")
WORDS = (
    "Should poll",
    "Needs polling",
    "Polling started at",
    "Last polled at",
    "Poll count",
    "Elapsed of max poll duration",
    "Next check",
    "Last error",
    "Account",
)


@pytest.fixture
def boss(app: Flask) -> FlaskClient:
    """An admin's browser."""
    make_member("boss@example.org", Role.ADMIN)
    browser = app.test_client()
    log_in(browser, "boss@example.org")
    return browser


def opened() -> Payment:
    """A payment that is open at the sandbox."""
    payment = starting.open_at_provider(place(make_event(), 2))
    assert payment is not None
    return payment


def fresh(kind: type[T], row_id: object) -> T:
    db.session.rollback()
    return db.session.get_one(kind, row_id, populate_existing=True)


def in_review() -> Payment:
    """A payment of which the provider says that less arrived than was asked for."""
    payment = reconciling.active(place(make_event("other"), 1))
    assert payment is not None
    settling.settle(payment.id, report_on(payment, "open"), door="test")
    settling.settle(payment.id, report_on(payment, "paid", amount_minor=100), door="test")
    return fresh(Payment, payment.id)


def act(boss: FlaskClient, payment: Payment, do: str, **fields: str) -> str:
    """Press a button of the order's page; the page afterwards."""
    page = f"/admin/orders/{payment.order.code}"
    answer = post(boss, f"{page}/{do}", page=page, payment_id=str(payment.id), **fields)
    assert answer.status_code == 303
    return boss.get(page).text


def told(what: str) -> TimelineEntry:
    """The one entry of this kind on any timeline."""
    return db.session.query(TimelineEntry).filter_by(what=what).one()


def test_the_poll_data_is_shown(boss: FlaskClient, sandbox: Sandbox) -> None:
    payment = opened()
    reconciling.reconcile(payment.id, door="test")
    html = boss.get(f"/admin/orders/{payment.order.code}").text
    for words in WORDS:
        assert words in html
    listed = boss.get("/admin/payments").text
    for words in WORDS[1:-1]:
        assert words in listed
    assert payment.account in listed
    assert f"0.0 of {payment.max_poll_duration_minutes} min" in listed


def test_a_payment_that_is_final_was_polled_until_then(boss: FlaskClient, sandbox: Sandbox) -> None:
    payment = opened()
    sandbox.do(str(payment.provider_id), "pay")
    reconciling.reconcile(payment.id, door="test")
    done = fresh(Payment, payment.id)
    done.polling_started_at = done.state_since - timedelta(minutes=7)
    db.session.commit()
    html = boss.get(f"/admin/orders/{done.order.code}").text
    assert "7.0 of " in html
    assert "Stop polling" not in html and "Give it longer" not in html


def test_polling_now(boss: FlaskClient, sandbox: Sandbox) -> None:
    payment = opened()
    before = payment.poll_count
    sandbox.do(str(payment.provider_id), "pay")
    assert "says it is paid" in act(boss, payment, "recheck")
    seen = fresh(Payment, payment.id)
    assert (seen.state, seen.poll_count) == (PaymentState.PAID, before + 1)


def test_what_nobody_answers_about_is_closed_by_hand(boss: FlaskClient, sandbox: Sandbox) -> None:
    payment = opened()
    payment.closes_at = payment.created_at
    db.session.commit()
    sandbox.faults("http_500")
    for _ in range(3):
        assert "Close this payment" not in boss.get(f"/admin/orders/{payment.order.code}").text
        reconciling.reconcile(payment.id, door="test")
    sandbox.faults()
    assert "Close this payment" in boss.get(f"/admin/orders/{payment.order.code}").text
    html = act(boss, payment, "decide", state="expired", note="The account is gone.")
    assert "The payment is expired now." in html and "Close this payment" not in html
    entry = told("decided")
    assert entry.text == "expired: The account is gone." and entry.actor_id is not None


def test_stopping_with_a_reason(boss: FlaskClient, sandbox: Sandbox) -> None:
    payment = opened()
    assert "Say why." in act(boss, payment, "stop-polling", reason=" ")
    assert fresh(Payment, payment.id).should_poll
    html = act(boss, payment, "stop-polling", reason="They pay at the door")
    assert "Polling is stopped" in html and "They pay at the door" in html
    assert "boss@example.org" in html
    stopped = fresh(Payment, payment.id)
    assert not stopped.should_poll and stopped.next_check_at == stopped.closes_at
    entry = told("polling_stopped")
    assert entry.actor is not None and entry.actor.email == "boss@example.org"
    assert "stopped before" in act(boss, payment, "stop-polling", reason="Again")
    assert "stopped" in boss.get("/admin/payments").text


def test_giving_it_longer(boss: FlaskClient, sandbox: Sandbox) -> None:
    payment = opened()
    closes_at = payment.closes_at
    for minutes, note, words in (
        ("0", "Why", "between 1 and"),
        ("1441", "Why", "between 1 and"),
        ("soon", "Why", "Not a valid integer"),
        ("99999999999999999999", "Why", "between 1 and"),
        ("30", " ", "Say why."),
    ):
        assert words in act(boss, payment, "extend", minutes=minutes, note=note)
    assert fresh(Payment, payment.id).closes_at == closes_at
    act(boss, payment, "stop-polling", reason="A pause")
    html = act(boss, payment, "extend", minutes="30", note="The bank is slow")
    assert "30 minutes more: The bank is slow" in html
    longer = fresh(Payment, payment.id)
    assert longer.should_poll
    assert closes_at is not None and longer.closes_at == closes_at + timedelta(minutes=30)
    actor = told("polling_extended").actor
    assert actor is not None and actor.email == "boss@example.org"


def test_what_is_final_is_refused_in_words(boss: FlaskClient, sandbox: Sandbox) -> None:
    payment = opened()
    sandbox.do(str(payment.provider_id), "pay")
    reconciling.reconcile(payment.id, door="test")
    assert "not waited for any more" in act(boss, payment, "stop-polling", reason="Why")
    assert "not waited for any more" in act(boss, payment, "extend", minutes="5", note="Why")
    assert "waits to be approved" in act(boss, payment, "approve", note="Why")


@pytest.mark.parametrize("do", ["recheck", "stop-polling", "extend", "approve"])
def test_a_payment_of_another_order_is_left_alone(boss: FlaskClient, sandbox: Sandbox, do: str) -> None:
    payment = opened()
    page = f"/admin/orders/{place(make_event('other'), 1).code}"
    fields = {"reason": "x", "note": "x", "minutes": "5"}
    post(boss, f"{page}/{do}", page=page, payment_id=str(payment.id), **fields)
    assert "That payment is not of this order." in boss.get(page).text
    assert fresh(Payment, payment.id).should_poll


def test_approving_a_review_with_a_note(boss: FlaskClient, sandbox: Sandbox) -> None:
    payment = in_review()
    assert "Say why." in act(boss, payment, "approve", note="")
    assert fresh(Payment, payment.id).state is PaymentState.REVIEW
    html = act(boss, payment, "approve", note="The rest came in cash")
    assert "issue: The rest came in cash" in html
    approved = fresh(Payment, payment.id)
    assert (approved.state, approved.fulfilled) == (PaymentState.PAID, True)
    order = fresh(Order, payment.order_id)
    assert (order.state, len(order.tickets)) == (OrderState.COMPLETED, 1)
    actor = told("decided").actor
    assert actor is not None and actor.email == "boss@example.org"
    assert "waits to be approved" in act(boss, payment, "approve", note="Once more")
    assert len(fresh(Order, payment.order_id).tickets) == 1


def test_the_commands_do_the_same(app: Flask, sandbox: Sandbox) -> None:
    payment = opened()
    code, run = payment.order.code, app.test_cli_runner().invoke
    assert f"{code}: stripe open, polled, " in run(args=["payments", "pending"]).output
    stopped = run(args=["payments", "stop", code, "--reason", "They pay at the door"])
    assert stopped.exit_code == 0 and "when it closes" in stopped.output
    assert (told("polling_stopped").door, told("polling_stopped").actor) == ("command", None)
    assert f"{code}: stripe open, not polled, " in run(args=["payments", "pending"]).output
    again = run(args=["payments", "stop", code, "--reason", "Again"])
    assert again.exit_code == 1 and "stopped before" in again.output
    longer = run(args=["payments", "extend", code, "45", "--note", "The bank is slow"])
    assert longer.exit_code == 0 and "minutes in all" in longer.output
    assert told("polling_extended").door == "command"
    assert run(args=["payments", "extend", code, "0", "--note", "No"]).exit_code == 1
