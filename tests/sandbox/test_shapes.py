"""Every kind of answer, in every state, fits the SDK's classes field by field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import requests
import stripe

from tests.sandbox.conftest import Params, charge_of, intent_of, submit
from tests.sandbox.shape import faults_of
from tests.support.sandbox import Sandbox

Pay = Callable[..., stripe.checkout.Session]
KEY = {"Authorization": "Bearer sk_test_kassa_sandbox"}
SHAPES: dict[str, type] = {
    "checkout.session": stripe.checkout.Session,
    "payment_intent": stripe.PaymentIntent,
    "charge": stripe.Charge,
    "refund": stripe.Refund,
    "dispute": stripe.Dispute,
    "balance_transaction": stripe.BalanceTransaction,
    "item": stripe.LineItem,
    "account": stripe.Account,
    "webhook_endpoint": stripe.WebhookEndpoint,
    "event": stripe.Event,
}


def raw(box: Sandbox, path: str, **query: Any) -> dict[str, Any]:
    """An answer as it travels, before the SDK's classes have forgiven anything."""
    answer = requests.get(f"{box.base_url}/stripe/v1/{path}", params=query, headers=KEY, timeout=30)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def assert_fits(body: dict[str, Any]) -> None:
    assert faults_of(body, SHAPES[body["object"]]) == []


def assert_all_fit(box: Sandbox) -> set[str]:
    """Every object that the sandbox has, and every snapshot in its events; the event types seen."""
    for path in (
        "checkout/sessions",
        "payment_intents",
        "charges",
        "refunds",
        "disputes",
        "balance_transactions",
    ):
        for body in raw(box, path, limit=100)["data"]:
            assert_fits(body)
    seen = set()
    for event in raw(box, "events", limit=100)["data"]:
        assert_fits(event)
        assert_fits(event["data"]["object"])
        seen.add(event["type"])
    return seen


def test_open_session(box: Sandbox, session: stripe.checkout.Session) -> None:
    body = raw(box, f"checkout/sessions/{session.id}", **{"expand[]": "line_items"})
    assert_fits(body)
    assert [line["amount_total"] for line in body["line_items"]["data"]] == [2000, 500]
    for line in raw(box, f"checkout/sessions/{session.id}/line_items")["data"]:
        assert_fits(line)


@pytest.mark.parametrize(
    "number",
    ["4242424242424242", "5555444433331111", "4000000000000259", "4000000000007726", "4000000000005126"],
)
def test_paid_refunded_disputed(box: Sandbox, client: stripe.StripeClient, pay: Pay, number: str) -> None:
    paid = pay(number)
    charge = charge_of(paid)
    if number != "4000000000000259":
        client.v1.refunds.create({"charge": charge.id, "amount": 700, "metadata": {"a": "b"}})
    box.advance(120)
    assert "charge.succeeded" in assert_all_fit(box)
    expand = ["payment_intent.latest_charge.balance_transaction", "payment_intent.latest_charge.refunds"]
    query = {
        f"expand[{i}]": path
        for i, path in enumerate([*expand, "payment_intent.payment_method", "line_items"])
    }
    body = raw(box, f"checkout/sessions/{paid.id}", **query)
    assert_fits(body)
    assert body["payment_intent"]["latest_charge"]["balance_transaction"]["amount"] == 2500


def test_declined_and_waiting_for_authentication(box: Sandbox, session: stripe.checkout.Session) -> None:
    assert session.url
    submit(session.url, number="4000000000000002")
    submit(session.url, number="4000002500003155")
    assert {
        "charge.failed",
        "payment_intent.payment_failed",
        "payment_intent.requires_action",
    } <= assert_all_fit(box)


def test_bank_debits(box: Sandbox, client: stripe.StripeClient, params: Params) -> None:
    for end in ("complete_later", "fail_later", "cancel"):
        opened = client.v1.checkout.sessions.create(params)
        box.do(opened.id, "pay_later")
        assert_all_fit(box)
        box.do(opened.id, end)
    seen = assert_all_fit(box)
    assert {"checkout.session.async_payment_succeeded", "checkout.session.async_payment_failed"} <= seen
    assert {"payment_intent.processing", "payment_intent.canceled", "charge.pending"} <= seen


def test_expired(box: Sandbox, client: stripe.StripeClient, session: stripe.checkout.Session) -> None:
    client.v1.checkout.sessions.expire(session.id)
    assert "checkout.session.expired" in assert_all_fit(box)


@pytest.mark.parametrize("end", ["dispute_won", "dispute_lost"])
def test_disputes(box: Sandbox, pay: Pay, end: str) -> None:
    paid = pay()
    box.do(paid.id, "dispute")
    box.do(paid.id, end)
    seen = assert_all_fit(box)
    assert {"charge.dispute.created", "charge.dispute.funds_withdrawn", "charge.dispute.closed"} <= seen
    assert ("charge.dispute.funds_reinstated" in seen) == (end == "dispute_won")


@pytest.mark.parametrize("path", ["charges", "refunds", "disputes"])
def test_lists_of_what_happened_since(box: Sandbox, client: stripe.StripeClient, pay: Pay, path: str) -> None:
    """By when it was made, newest first, page by page, with the payment intent and what we wrote on it."""
    made = []
    for _ in range(3):
        paid = pay()
        if path == "refunds":
            client.v1.refunds.create({"payment_intent": intent_of(paid).id, "amount": 500})
        if path == "disputes":
            box.do(paid.id, "dispute")
        made.append(intent_of(paid).id)
        box.advance(60)
    since = int(raw(box, path, limit=3)["data"][1]["created"])
    query = {"created[gte]": since, "expand[]": "data.payment_intent", "limit": 1}
    first = raw(box, path, **query)
    assert first["has_more"] is True
    last = raw(box, path, **query, starting_after=first["data"][0]["id"])
    assert last["has_more"] is False
    listed = first["data"] + last["data"]
    assert [each["payment_intent"]["id"] for each in listed] == made[:0:-1]
    for each in listed:
        assert_fits(each)
        assert_fits(each["payment_intent"])
        assert each["payment_intent"]["metadata"] == {"order": "order-1"}
    (before,) = raw(box, path, **{"created[lt]": since})["data"]
    assert before["payment_intent"] == made[0]


def test_payment_intents_without_a_session(box: Sandbox, client: stripe.StripeClient) -> None:
    made = client.v1.payment_intents.create(
        {
            "amount": 1200,
            "currency": "aed",
            "automatic_payment_methods": {"enabled": True},
            "metadata": {"a": "b"},
        }
    )
    assert made.client_secret
    client.v1.payment_intents.confirm(made.id, {"payment_method": "pm_card_visa"})
    other = client.v1.payment_intents.create({"amount": 1200, "currency": "aed"})
    client.v1.payment_intents.cancel(other.id, {"cancellation_reason": "abandoned"})
    assert {"payment_intent.succeeded", "payment_intent.canceled"} <= assert_all_fit(box)


def test_account_and_endpoint(box: Sandbox) -> None:
    assert_fits(raw(box, "account"))
    assert raw(box, "webhook_endpoints")["data"] == []
    box.post("settings", {"webhook_url": "http://127.0.0.1:9/"})
    [endpoint] = raw(box, "webhook_endpoints")["data"]
    assert_fits(endpoint)


def test_the_check_itself_finds_faults() -> None:
    """A negative control: what is missing, mistyped or unknown is found."""
    found = faults_of({"amount": "1", "object": "refund", "colour": "red", "status": 5}, stripe.Refund)
    assert "Refund.colour is not known to the SDK" in found
    assert "Refund.id is missing" in found
    assert any(fault.startswith("Refund.amount is '1'") for fault in found)
    assert any(fault.startswith("Refund.status is 5") for fault in found)
