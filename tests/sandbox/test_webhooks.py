"""Webhooks: signed, in order, tried again, on record, and disturbed on request."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import stripe

from tests.sandbox.conftest import Params, Receiver
from tests.support.sandbox import Sandbox

SECRET = "whsec_kassa_sandbox"
PAID = [
    "payment_intent.created",
    "charge.succeeded",
    "payment_intent.succeeded",
    "checkout.session.completed",
]


def settled(
    box: Sandbox, done: Callable[[list[dict[str, Any]]], bool], seconds: float = 15
) -> list[dict[str, Any]]:
    """The record of webhooks, once it is as `done` wants it."""
    until = time.monotonic() + seconds
    while not done(record := box.get("webhooks")):
        assert time.monotonic() < until, record
        time.sleep(0.05)
    rows: list[dict[str, Any]] = record
    return rows


def test_signed_and_in_order(box: Sandbox, receiver: Receiver, session: stripe.checkout.Session) -> None:
    box.do(session.id, "pay")
    receiver.wait_for(4)
    assert receiver.types() == PAID
    for body, signature in receiver.got:
        event = stripe.Webhook.construct_event(body, signature, SECRET)
        assert event.api_version == "2026-10-28.endive"
        with pytest.raises(stripe.SignatureVerificationError):
            stripe.Webhook.construct_event(body, signature, "whsec_other")
    completed = receiver.events()[-1]["data"]["object"]
    assert (completed["id"], completed["payment_status"]) == (session.id, "paid")
    record = settled(box, lambda rows: all(row["state"] == "delivered" for row in rows))
    assert [row["type"] for row in record] == PAID[::-1]
    assert {(row["attempts"], row["last_status"], row["url"]) for row in record} == {(1, 200, receiver.url)}
    assert record[0]["object_id"] == session.id


def test_signed_for_the_sdk_although_the_clock_was_moved(
    box: Sandbox, receiver: Receiver, session: stripe.checkout.Session
) -> None:
    box.advance(3600)
    box.do(session.id, "expire")
    receiver.wait_for(1)
    assert stripe.Webhook.construct_event(*receiver.got[0], SECRET).type == "checkout.session.expired"


def test_time_expires_sessions_without_being_asked(
    box: Sandbox, receiver: Receiver, session: stripe.checkout.Session
) -> None:
    box.advance(24 * 3600 + 1)
    [event] = receiver.wait_for(1)
    assert (event["type"], event["data"]["object"]["id"]) == ("checkout.session.expired", session.id)


def test_refunds_and_disputes_ring(
    box: Sandbox, receiver: Receiver, session: stripe.checkout.Session
) -> None:
    box.do(session.id, "pay")
    box.do(session.id, "refund", amount_minor=100)
    box.do(session.id, "refund_fail")
    box.do(session.id, "dispute")
    box.do(session.id, "dispute_won")
    receiver.wait_for(12)
    assert receiver.types()[4:] == [
        "refund.created",
        "charge.refunded",
        "refund.updated",
        "refund.failed",
        "charge.dispute.created",
        "charge.dispute.funds_withdrawn",
        "charge.dispute.closed",
        "charge.dispute.funds_reinstated",
    ]


def test_tried_again_by_its_clock(box: Sandbox, receiver: Receiver, session: stripe.checkout.Session) -> None:
    receiver.statuses += [500, 503, 302, 404]
    box.do(session.id, "expire")
    for attempt, pause in ((1, 2), (2, 10), (3, 60)):
        [row] = settled(box, lambda rows, n=attempt: rows[0]["attempts"] == n)  # type: ignore[misc]
        assert row["state"] == "pending"
        box.advance(pause + 1)
    [row] = settled(box, lambda rows: rows[0]["state"] == "failed")
    assert (row["attempts"], row["last_status"], len(receiver.got)) == (4, 404, 4)
    assert box.post(f"webhooks/{row['id']}")["state"] == "delivered"
    assert len(receiver.got) == 5


def test_nobody_there(box: Sandbox, session: stripe.checkout.Session) -> None:
    box.post("settings", {"webhook_url": "http://127.0.0.1:9/hook"})
    box.do(session.id, "expire")
    [row] = settled(box, lambda rows: bool(rows) and rows[0]["attempts"] > 0)
    assert (row["last_status"], row["last_error"]) == (None, "ConnectionError")


def test_redelivery(box: Sandbox, receiver: Receiver, session: stripe.checkout.Session) -> None:
    box.do(session.id, "expire")
    [row] = settled(box, lambda rows: bool(rows) and rows[0]["state"] == "delivered")
    box.post("webhooks", {"id": row["id"]})
    box.post("webhooks", {"event_id": row["event_id"]})
    box.post(f"webhooks/{row['event_id']}")
    assert [event["id"] for event in receiver.events()] == [row["event_id"]] * 4
    with pytest.raises(AssertionError, match="404"):
        box.post("webhooks/wh_none")


def test_none_without_an_address(
    box: Sandbox, client: stripe.StripeClient, session: stripe.checkout.Session
) -> None:
    box.do(session.id, "pay")
    assert box.get("webhooks") == []
    assert [event.type for event in client.v1.events.list().data] == PAID[::-1]


def test_lost_twice_late(
    box: Sandbox, receiver: Receiver, client: stripe.StripeClient, params: Params
) -> None:
    def expire_one(*faults: str, **rule: Any) -> None:
        box.faults(*faults, **rule)
        made = client.v1.checkout.sessions.create(params)
        client.v1.checkout.sessions.expire(made.id)

    expire_one("webhook_lost", times=1)
    expire_one("webhook_twice", times=1)
    receiver.wait_for(2)
    assert len({event["id"] for event in receiver.events()}) == 1
    expire_one("webhook_late", times=1, seconds=300)
    time.sleep(0.7)
    assert len(receiver.got) == 2
    box.advance(301)
    receiver.wait_for(3)
    record = settled(box, lambda rows: sum(row["state"] == "delivered" for row in rows) == 3)
    assert [row["state"] for row in record] == ["delivered", "delivered", "delivered", "lost"]


def test_events_know_whether_they_arrived(
    box: Sandbox, receiver: Receiver, client: stripe.StripeClient, session: stripe.checkout.Session
) -> None:
    box.do(session.id, "expire")
    settled(box, lambda rows: bool(rows) and rows[0]["state"] == "delivered")
    assert len(client.v1.events.list({"delivery_success": True}).data) == 1
    assert client.v1.events.list({"delivery_success": False}).data == []
    assert (
        client.v1.events.list({"types": ["checkout.session.expired"]}).data[0].type
        == "checkout.session.expired"
    )
