"""Buying over HTTP with the providers' APIs answered by the sandbox: every door, every fault, every end.

What holds for every provider is run with each of them; the others say what they are about.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func, select

import config
from domain.orders import managing
from domain.payments import incident_decisions, reconciling, refunds
from domain.sweep import sweeping
from extensions import db
from models import (
    EventState,
    Incident,
    Order,
    OrderState,
    OutboxMail,
    Payment,
    PaymentState,
    Refund,
    RefundState,
    SweepRun,
    Ticket,
    TicketState,
    TicketType,
    Transfer,
    WebhookEvent,
)
from tests.support.people import post
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event
from tests.support.tills import STRIPE, TILLS, Till, session_event
from tests.support.web import buy, newest_order, newest_payment, path_of, ring, status


def count(table: type[Any]) -> int:
    db.session.rollback()
    return db.session.scalars(select(func.count()).select_from(table)).one()


def started(client: FlaskClient, quantity: int = 1, till: Till = STRIPE, **event: Any) -> Payment:
    """A buyer who has been sent to the provider's page."""
    answer = buy(client, make_event(**{"providers": [till.name]} | event), quantity)
    payment = newest_payment()
    assert answer.status_code == 303
    assert (payment.provider, answer.headers["Location"]) == (till.name, payment.url)
    return payment


def kinds() -> list[str]:
    """What was mailed or is owed, in order."""
    db.session.rollback()
    return list(db.session.scalars(select(OutboxMail.kind).order_by(OutboxMail.id)))


def come_back(client: FlaskClient, sandbox: Sandbox, payment: Payment) -> str:
    """Follow the provider's redirect; the order page that it leads to."""
    told = next(p for p in sandbox.get("payments") if p["id"] == payment.provider_id)
    answer = client.get(path_of(told["success_url"]))
    assert answer.status_code == 303
    return client.get(answer.headers["Location"]).text


def test_two_tickets_are_bought(client: FlaskClient, sandbox: Sandbox, till: Till) -> None:
    payment = started(client, 2, till)
    assert (payment.state, payment.order.state) == (PaymentState.OPEN, OrderState.PENDING_VERIFICATION)
    sandbox.do(payment.provider_id or "", "pay")
    page = come_back(client, sandbox, payment)
    order = newest_order()
    assert order.state is OrderState.COMPLETED
    assert all(ticket.code in page.replace(" ", "").replace("-", "") for ticket in order.tickets)
    told = status(client, order)
    assert (told["state"], told["payment_state"], told["amount_minor"]) == ("completed", "paid", 5000)
    assert len(told["tickets"]) == 2


def test_the_session_says_what_it_is_for(client: FlaskClient, sandbox: Sandbox) -> None:
    payment = started(client, 2)
    params = payment.params
    assert params["client_reference_id"] == payment.reference
    assert params["metadata"] == params["payment_intent_data"]["metadata"]
    assert [line["quantity"] for line in params["line_items"]] == [2]
    call = next(
        c for c in sandbox.calls() if c["method"] == "POST" and c["path"].endswith("/checkout/sessions")
    )
    assert call["idempotency_key"] == payment.idempotency_key


def test_pay_and_close_the_tab_then_the_sweep_finds_it(
    client: FlaskClient, sandbox: Sandbox, till: Till
) -> None:
    payment = started(client, till=till)
    sandbox.do(payment.provider_id or "", "pay")
    lines: list[str] = []
    run = sweeping.run("command", tell=lines.append)
    order = newest_order()
    assert (order.state, len(order.tickets)) == (OrderState.COMPLETED, 1)
    assert f"Order {order.code}: verified" in lines
    assert "Found 1 pending orders to verify" in lines
    assert (run.verified, run.errors) == (1, 0)
    assert [mail["subject"] for mail in sandbox.mail("ada@example.org")]


def test_a_decline_leaves_the_order_payable(client: FlaskClient, sandbox: Sandbox, till: Till) -> None:
    payment = started(client, till=till)
    sandbox.do(payment.provider_id or "", "decline")
    order = newest_order()
    page = client.get(f"/o/{order.code}/{order.secret}").text
    assert payment.url is not None
    assert payment.url in page
    assert till.refused in page
    sandbox.do(payment.provider_id or "", "pay")
    come_back(client, sandbox, payment)
    assert newest_order().state is OrderState.COMPLETED


def test_who_cancels_after_a_decline_has_cancelled(client: FlaskClient, sandbox: Sandbox, till: Till) -> None:
    payment = started(client, till=till)
    sandbox.do(payment.provider_id or "", "decline")
    managing.cancel(newest_order(), door="order_page")
    order = newest_order()
    assert (order.state, order.failure_reason) == (OrderState.CANCELLED, "")
    # They have read it on the page, so no mail says it again.
    assert kinds() == ["order_received"]


def test_who_pays_in_another_way_reads_of_no_failure(
    client: FlaskClient, sandbox: Sandbox, till: Till
) -> None:
    """The first attempt is closed at its provider before the second begins."""
    (other,) = (name for name in ("stripe", "sumup") if name != till.name)
    first = started(client, till=till, providers=[till.name, other])
    sandbox.do(first.provider_id or "", "decline")
    managing.pay_again(first.order_id, other, payer_id=None)
    second = newest_payment()
    assert (second.provider, second.state) == (other, PaymentState.OPEN)
    assert second.order.state is OrderState.PENDING_VERIFICATION
    assert kinds() == ["order_received"]
    sandbox.do(second.provider_id or "", "pay")
    come_back(client, sandbox, second)
    assert newest_order().state is OrderState.COMPLETED


@pytest.mark.parametrize(("end", "state"), [("complete_later", "completed"), ("fail_later", "failed")])
def test_a_delayed_method_waits_for_the_banks_word(
    client: FlaskClient, sandbox: Sandbox, end: str, state: str
) -> None:
    payment = started(client)
    provider_id = payment.provider_id or ""
    sandbox.do(provider_id, "pay_later")
    page = come_back(client, sandbox, payment)
    assert "Payment received, your bank is still confirming." in page
    assert newest_payment().state is PaymentState.PROCESSING
    sandbox.advance(3 * 86400)
    sweeping.run("command")
    assert newest_order().state is OrderState.PENDING_VERIFICATION
    sandbox.do(provider_id, end)
    sandbox.advance(3600)
    sweeping.run("command")
    assert newest_order().state.value == state


def test_an_abandoned_session_expires_and_its_tickets_are_sold_again(
    client: FlaskClient, sandbox: Sandbox, till: Till
) -> None:
    started(client, till=till, capacity=1)
    sandbox.advance(till.open_seconds)
    sweeping.run("command")
    order = newest_order()
    assert (order.state, order.payments[0].state) == (OrderState.EXPIRED, PaymentState.EXPIRED)
    assert db.session.scalars(select(TicketType.held)).one() == 0


def test_the_stock_is_given_back_only_when_the_provider_says_so(
    client: FlaskClient, sandbox: Sandbox, till: Till
) -> None:
    """Its time has come, but nobody answers: unknown is not unpaid."""
    payment = started(client, till=till, capacity=1)
    sandbox.do(payment.provider_id or "", "pay")
    sandbox.advance(till.open_seconds)
    sandbox.faults("http_500", rate=1, match={"path": till.api})
    sweeping.run("command")
    assert newest_order().state is OrderState.PENDING_VERIFICATION
    assert db.session.scalars(select(TicketType.held)).one() == 1
    sandbox.faults()
    sweeping.run("command")
    assert newest_order().state is OrderState.COMPLETED


def test_a_hundred_returns_at_the_same_moment_credit_once(
    app: Flask, client: FlaskClient, sandbox: Sandbox, till: Till
) -> None:
    payment = started(client, till=till)
    sandbox.do(payment.provider_id or "", "pay")
    told = next(p for p in sandbox.get("payments") if p["id"] == payment.provider_id)
    path = path_of(told["success_url"])

    def visit(_: int) -> int:
        with app.app_context():
            return app.test_client().get(path).status_code

    with ThreadPoolExecutor(20) as pool:
        codes = list(pool.map(visit, range(100)))
    assert set(codes) == {303}
    assert (count(Ticket), count(Transfer)) == (1, 1)
    mails = select(func.count()).select_from(OutboxMail).where(OutboxMail.kind == "tickets")
    assert db.session.scalars(mails).one() == 1


def test_a_start_whose_answer_was_lost_is_finished_by_the_sweep(
    client: FlaskClient, sandbox: Sandbox, till: Till
) -> None:
    lost = {"path": till.opens, "method": "POST"}
    sandbox.faults("timeout_after", rate=1, times=1, seconds=0, match=lost)
    answer = buy(client, make_event(providers=[till.name]))
    order = newest_order()
    assert answer.headers["Location"].endswith(f"/o/{order.code}/{order.secret}")
    assert newest_payment().state is PaymentState.CREATED
    sandbox.faults()
    sandbox.advance(30)
    sweeping.run("command")
    payment = newest_payment()
    assert payment.state is PaymentState.OPEN
    assert len(sandbox.get("payments")) == 1


CHANGES: list[dict[str, Any]] = [
    {"amount_minor": 2499},
    {"currency": "USD"},
    {"reference": "ORD-OTHER"},
    {"account": "x"},
]


@pytest.mark.parametrize(
    ("till", "change"),
    # SumUp does not say of a payment whether it is live.
    [*((till, change) for till in TILLS for change in CHANGES), (STRIPE, {"livemode": True})],
)
def test_a_payment_changed_at_the_provider_waits_for_a_person(
    client: FlaskClient, sandbox: Sandbox, till: Till, change: dict[str, Any]
) -> None:
    payment = started(client, till=till)
    sandbox.do(payment.provider_id or "", "pay")
    sandbox.do(payment.provider_id or "", "tamper", set=change)
    come_back(client, sandbox, payment)
    order = newest_order()
    assert (order.state, order.tickets) == (OrderState.REVIEW, [])
    assert count(Incident) == 1
    sweeping.run("command")
    (alert,) = [m for m in sandbox.mail("alerts@example.org") if "CRITICAL" in m["subject"]]
    assert order.code in alert["subject"]


def test_nobody_who_paid_reads_that_nothing_was_charged(
    client: FlaskClient, sandbox: Sandbox, till: Till
) -> None:
    """The incident is dismissed, as after a refund in the dashboard: the order ends without goods."""
    payment = started(client, till=till)
    sandbox.do(payment.provider_id or "", "pay")
    sandbox.do(payment.provider_id or "", "tamper", set={"currency": "USD"})
    assert "did not match" in come_back(client, sandbox, payment)
    db.session.rollback()
    incident_decisions.resolve(
        db.session.scalars(select(Incident.id)).one(), how="dismiss", reason="Settled there", actor_id=None
    )
    order = newest_order()
    page = client.get(f"/o/{order.code}/{order.secret}").text
    assert order.state is OrderState.CANCELLED
    assert "Nothing was charged" not in page
    assert "Were you charged" in page


def test_nobody_is_asked_to_pay_for_a_cancelled_event(
    client: FlaskClient, sandbox: Sandbox, till: Till
) -> None:
    payment = started(client, till=till)
    order = newest_order()
    assert "Continue to payment" in client.get(f"/o/{order.code}/{order.secret}").text
    assert order.event is not None
    order.event.state = EventState.CANCELLED
    db.session.commit()
    page = client.get(f"/o/{order.code}/{order.secret}").text
    assert "This event was cancelled" in page
    assert (payment.url or "?") not in page
    at = f"/o/{order.code}/{order.secret}"
    assert post(client, f"{at}/pay", page=at, provider=till.name).headers["Location"] == at


def test_who_paid_too_late_reads_that_the_money_came(
    client: FlaskClient, sandbox: Sandbox, till: Till
) -> None:
    event = make_event(capacity=1, providers=[till.name])
    buy(client, event)
    late = newest_payment()
    sandbox.do(late.provider_id or "", "expire")
    come_back(client, sandbox, late)
    buy(client, event)
    sandbox.do(late.provider_id or "", "pay", force=True)
    page = come_back(client, sandbox, late)
    assert "Your payment arrived" in page
    assert "did not match" not in page


# --- The doorbell ---------------------------------------------------------------------------------------


def test_the_doorbell_credits_once_however_often_it_rings(
    client: FlaskClient, sandbox: Sandbox, till: Till
) -> None:
    payment = started(client, till=till)
    sandbox.do(payment.provider_id or "", "pay")
    assert [till.ring(client, payment) for _ in range(3)] == [200, 200, 200]
    assert (count(Ticket), count(WebhookEvent)) == (1, int(till.signed))


def test_stripe_rings_at_either_address_each_with_its_secret(client: FlaskClient, sandbox: Sandbox) -> None:
    """They are one doorbell: an event that rings at both is done once."""
    both = "whsec_first0000, whsec_second000"
    config.use(replace(config.get(), stripe_webhook_secret=both))
    payment = started(client)
    sandbox.do(payment.provider_id or "", "pay")
    event = {
        "id": "evt_both",
        "type": "checkout.session.completed",
        "data": {"object": {"id": payment.provider_id, "object": "checkout.session"}},
    }
    body = json.dumps(event)
    api = "/api/v1/payments/webhooks/stripe"
    wrong = ring(client, body, "whsec_third0000", api)
    assert (wrong.status_code, wrong.get_json()["code"]) == (400, "bad_signature")
    assert newest_order().state is OrderState.PENDING_VERIFICATION
    sandbox.faults("http_500", rate=1)
    later = ring(client, body, "whsec_second000", api)
    assert (later.status_code, later.get_json()["code"]) == (503, "later")
    sandbox.faults()
    heard = ring(client, body, "whsec_second000", api)
    assert (heard.status_code, heard.get_json()) == (200, {})
    assert newest_order().state is OrderState.COMPLETED
    assert ring(client, body, "whsec_first0000").status_code == 200
    assert (count(Ticket), count(WebhookEvent)) == (1, 1)
    nobody = client.post("/api/v1/payments/webhooks/nobody", data=body)
    assert (nobody.status_code, nobody.get_json()["status_code"]) == (404, 404)


def test_a_ring_is_never_evidence(client: FlaskClient, sandbox: Sandbox, till: Till) -> None:
    payment = started(client, till=till)
    assert till.ring(client, payment) == 200
    assert newest_order().state is OrderState.PENDING_VERIFICATION


def test_a_ring_that_cannot_be_answered_is_asked_for_again(
    client: FlaskClient, sandbox: Sandbox, till: Till
) -> None:
    payment = started(client, till=till)
    sandbox.do(payment.provider_id or "", "pay")
    sandbox.faults("http_500", rate=1)
    assert till.ring(client, payment) == 503
    sandbox.faults()
    # Who rings without a signature is listened to every two seconds.
    sandbox.advance(3)
    assert till.ring(client, payment) == 200
    assert newest_order().state is OrderState.COMPLETED


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "null",
        "{}",
        "\xff",
        '{"id": "evt_1"}',
        '{"object": "v2.core.event"}',
        pytest.param("[" * 100_000, id="deep"),
        pytest.param(
            '{"id": "%s", "type": "x", "data": {"object": {"id": "cs_test_1"}}}' % ("e" * 300), id="long"
        ),
    ],
)
def test_what_is_not_an_event_is_refused(client: FlaskClient, body: str) -> None:
    # What is nested deeper than any event does not come as far as the doorbell.
    refused = 413 if body.startswith("[[") else 400
    assert ring(client, body).status_code == refused
    assert client.post("/stripe/webhook/", data=body).status_code == refused
    assert ring(client, body, secret="whsec_other").status_code == refused


def test_money_whose_record_was_lost_is_told(client: FlaskClient, sandbox: Sandbox) -> None:
    """As after a restored backup: the provider has it, the database has not."""
    payment = started(client)
    body = json.loads(session_event(payment))
    body["data"]["object"]["metadata"] = payment.params["metadata"]
    sandbox.do(payment.provider_id or "", "pay")
    for table in ("timeline", "outbox", "order_lines", "payments", "orders"):
        db.session.execute(db.text(f"DELETE FROM {table}"))
    db.session.commit()
    assert ring(client, json.dumps(body)).status_code == 200
    incident = db.session.scalars(select(Incident)).one()
    assert (incident.kind, incident.amount_minor, incident.order_id) == ("unknown_payment", 2500, None)
    sweeping.run("command")
    assert "CRITICAL" in sandbox.mail("alerts@example.org")[0]["subject"]


# --- Afterwards -----------------------------------------------------------------------------------------


def paid(client: FlaskClient, sandbox: Sandbox, till: Till, quantity: int = 2) -> Payment:
    payment = started(client, quantity, till)
    sandbox.do(payment.provider_id or "", "pay")
    reconciling.reconcile(payment.id, door="test")
    return newest_payment()


def test_a_full_refund_voids_the_tickets(client: FlaskClient, sandbox: Sandbox, till: Till) -> None:
    payment = paid(client, sandbox, till)
    refund = refunds.request(payment.id, 5000, actor_id=None, reason="cannot come")
    assert refund.state is RefundState.SUCCEEDED
    order = newest_order()
    assert order.state is OrderState.REFUNDED
    assert {ticket.state for ticket in order.tickets} == {TicketState.VOID}
    assert db.session.scalars(select(TicketType.sold)).one() == 0


def test_two_equal_part_refunds_are_two(client: FlaskClient, sandbox: Sandbox, till: Till) -> None:
    payment = paid(client, sandbox, till)
    for _ in range(2):
        refunds.request(payment.id, 1000, actor_id=None, reason="a drink was missing")
    told = next(p for p in sandbox.get("payments") if p["id"] == payment.provider_id)
    assert told["status"] in ("partially_refunded", "paid", "refunded")
    assert count(Refund) == 2
    assert newest_order().state is OrderState.PARTIALLY_REFUNDED


def test_a_refund_whose_answer_was_lost_is_made_once(
    client: FlaskClient, sandbox: Sandbox, till: Till
) -> None:
    payment = paid(client, sandbox, till)
    sandbox.faults("timeout_after", rate=1, times=1, seconds=0, match={"path": till.refunds})
    refund = refunds.request(payment.id, 5000, actor_id=None, reason="cannot come")
    # Stripe is asked later, by our key; SumUp at once, by the sum that went back.
    assert refund.state is (RefundState.CREATED if till is STRIPE else RefundState.SUCCEEDED)
    sandbox.faults()
    sandbox.advance(120)
    sweeping.run("command")
    assert db.session.get_one(Refund, refund.id, populate_existing=True).state is RefundState.SUCCEEDED
    assert newest_order().state is OrderState.REFUNDED
    assert sandbox.get(f"payments/{payment.provider_id}")["refunded_minor"] == 5000


def test_a_refund_whose_answer_was_lost_a_day_ago_is_still_made_once(
    client: FlaskClient, sandbox: Sandbox, till: Till
) -> None:
    """By then the provider has forgotten our key, and would send the money a second time."""
    payment = paid(client, sandbox, till)
    sandbox.faults("timeout_after", rate=1, times=1, seconds=0, match={"path": till.refunds})
    session = payment.provider_id
    refunds.request(payment.id, 2500, actor_id=None, reason="one cannot come")
    sandbox.faults()
    sandbox.advance(25 * 3600)
    sweeping.run("command")
    assert db.session.scalars(select(Refund.state)).one() is RefundState.SUCCEEDED
    assert sandbox.get(f"payments/{session}")["refunded_minor"] == 2500


def test_what_is_done_in_the_dashboard_is_found_later(
    client: FlaskClient, sandbox: Sandbox, till: Till
) -> None:
    payment = paid(client, sandbox, till)
    sandbox.do(payment.provider_id or "", "refund", amount_minor=5000)
    sandbox.advance(3700)
    sweeping.run("command")
    assert newest_order().state is OrderState.REFUNDED


def test_a_dispute_suspends_and_a_won_one_restores(client: FlaskClient, sandbox: Sandbox, till: Till) -> None:
    payment = paid(client, sandbox, till)
    sandbox.do(payment.provider_id or "", "dispute")
    reconciling.reconcile(payment.id, door="test")
    assert {ticket.state for ticket in newest_order().tickets} == {TicketState.SUSPENDED}
    sandbox.do(payment.provider_id or "", "dispute_won")
    reconciling.reconcile(payment.id, door="test")
    assert {ticket.state for ticket in newest_order().tickets} == {TicketState.VALID}


def test_a_sweep_leaves_a_record(client: FlaskClient, sandbox: Sandbox, till: Till) -> None:
    started(client, till=till)
    sweeping.run("command")
    run = db.session.scalars(select(SweepRun)).one()
    assert (run.found, run.pending, run.verified) == (1, 1, 0)
    assert run.finished_at is not None


def test_expired_and_paid_again(client: FlaskClient, sandbox: Sandbox, till: Till) -> None:
    started(client, till=till)
    sandbox.advance(till.open_seconds)
    sweeping.run("command")
    order = newest_order()
    page = client.get(f"/o/{order.code}/{order.secret}")
    assert page.status_code == 200
    answer = post(
        client,
        f"/o/{order.code}/{order.secret}/pay",
        page=f"/o/{order.code}/{order.secret}",
        provider=till.name,
    )
    second = newest_payment()
    assert (answer.status_code, answer.headers["Location"], second.attempt) == (303, second.url, 2)
    sandbox.do(second.provider_id or "", "pay")
    come_back(client, sandbox, second)
    assert db.session.scalars(select(Order.state)).one() is OrderState.COMPLETED
