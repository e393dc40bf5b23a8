"""Rings that were left undone: who sees them, who is told, and that looking again does what was owed."""

from __future__ import annotations

from datetime import timedelta

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select

from domain import clock
from domain.office import doctor, health, metrics
from domain.payments import dead_rings, settling, starting
from domain.sweep import digests
from extensions import db
from models import OrderState, Payment, PaymentState, Role, WebhookEvent
from tests.support.people import log_in, mails, make_member, post
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, place, report_on
from tests.support.tills import STRIPE, session_event
from tests.support.web import ring

HOUR = 3601


@pytest.fixture
def boss(app: Flask) -> FlaskClient:
    """An admin's browser."""
    make_member("boss@example.org", Role.ADMIN)
    browser = app.test_client()
    log_in(browser, "boss@example.org")
    return browser


def left_undone(client: FlaskClient, sandbox: Sandbox, event_id: str = "evt_1") -> Payment:
    """A payment that was paid at the provider, which rang and then answered nobody, an hour ago."""
    sandbox.faults()
    payment = starting.open_at_provider(place(make_event(event_id.replace("_", "-")), 1))
    assert payment is not None and payment.provider_id is not None
    sandbox.do(payment.provider_id, "pay")
    sandbox.faults("http_500", match={"path": STRIPE.api})
    body = session_event(payment, event_id=event_id)
    assert [ring(client, body).status_code for _ in range(2)] == [503, 503]
    sandbox.advance(HOUR)
    return payment


def only() -> WebhookEvent:
    db.session.rollback()
    return db.session.scalars(select(WebhookEvent).execution_options(populate_existing=True)).one()


def test_a_ring_in_error_for_an_hour_is_a_list_with_look_again(
    client: FlaskClient, boss: FlaskClient, sandbox: Sandbox
) -> None:
    payment = left_undone(client, sandbox)
    page = boss.get("/admin/rings").text
    assert payment.reference in page and "checkout.session.completed" in page
    assert only().outcome in page.replace("&#39;", "'") and only().tries == 2
    again = f"/admin/rings/{only().id}/again"
    # The provider is as silent as before.
    assert "It is not done" in boss.get(post(boss, again, page="/admin/rings").location).text
    assert (only().done_at, only().tries) == (None, 3)
    sandbox.faults()
    assert "it is done" in boss.get(post(boss, again, page="/admin/rings").location).text
    paid = db.session.get_one(Payment, payment.id, populate_existing=True)
    assert (paid.state, paid.order.state) == (PaymentState.PAID, OrderState.COMPLETED)
    assert [entry.door for entry in paid.order.timeline if entry.what == "paid"] == ["recheck"]
    assert only().done_at is not None and only().names is None
    assert "None. Every ring" in boss.get("/admin/rings").text


def test_all_of_them_at_once(client: FlaskClient, boss: FlaskClient, sandbox: Sandbox) -> None:
    payments = [left_undone(client, sandbox, f"evt_{number}").id for number in range(3)]
    assert "Look again at all 3" in boss.get("/admin/rings").text
    sandbox.faults()
    told = post(boss, "/admin/rings/again", page="/admin/rings")
    assert "Looked at again: 3 done." in boss.get(told.location).text
    assert {db.session.get_one(Payment, one).state for one in payments} == {PaymentState.PAID}
    assert dead_rings.count() == (0, None)


def test_who_watches_is_told(client: FlaskClient, sandbox: Sandbox) -> None:
    assert health.report().checks["rings"].state == "ok"
    left_undone(client, sandbox)
    assert health.report().checks["rings"].state == "degraded"
    seen = next(finding for finding in doctor._running() if finding.code == "rings")
    assert (seen.state, "/admin/rings" in seen.fix) == ("failure", True)
    dead = [s.number for s in metrics.read(fresh=True) if s.metric is metrics.DEAD_RINGS]
    assert dead == [1]
    for _ in range(2):
        digests.raise_dead_rings()
    [alert] = [mail for mail in mails("alert") if mail.key.startswith("dead_rings:")]
    assert "1 Ring Not Acted On" in alert.context["subject"]
    assert "/admin/rings" in alert.context["text"]


def test_a_ring_that_is_young_or_was_done_is_in_no_list(client: FlaskClient, sandbox: Sandbox) -> None:
    payment = left_undone(client, sandbox)
    event = only()
    event.received_at = clock.now() - timedelta(minutes=59)
    db.session.commit()
    assert dead_rings.count() == (0, None)
    event.received_at = clock.now() - timedelta(minutes=61)
    db.session.commit()
    assert dead_rings.count()[0] == 1
    # The provider comes by once more, and finds us able.
    sandbox.faults()
    assert ring(client, session_event(payment)).status_code == 200
    assert dead_rings.count() == (0, None)


def test_a_dispute_finds_its_payment_by_the_charge(
    client: FlaskClient, boss: FlaskClient, sandbox: Sandbox
) -> None:
    """What a ring is about need not be the payment: its other names are kept, and no more than names."""
    payment = starting.open_at_provider(place(make_event(), 1))
    assert payment is not None and payment.provider_id is not None
    settling.settle(payment.id, report_on(payment, "paid", charge_id="ch_9"), door="test")
    body = (
        '{"id": "evt_1", "type": "charge.dispute.created", "data": {"object": {"id": "dp_1",'
        ' "object": "dispute", "charge": "ch_9", "evidence": {"customer_name": "Ada Buyer"}}}}'
    )
    sandbox.faults("http_500", match={"path": STRIPE.api})
    assert ring(client, body).status_code == 503
    assert only().names == {"charge_id": "ch_9"}
    sandbox.advance(HOUR)
    [row] = dead_rings.page().rows
    assert row.payment is not None and row.payment.id == payment.id
    assert payment.reference in boss.get("/admin/rings").text


def test_what_an_earlier_version_remembered_is_found_by_its_object(sandbox: Sandbox, app: Flask) -> None:
    payment = starting.open_at_provider(place(make_event(), 1))
    assert payment is not None
    event = WebhookEvent(
        provider="stripe",
        event_id="evt_0",
        type="checkout.session.completed",
        object_id=payment.provider_id,
        received_at=clock.now() - timedelta(days=1),
    )
    db.session.add(event)
    db.session.commit()
    sandbox.do(payment.provider_id or "", "pay")
    [row] = dead_rings.page().rows
    assert row.payment is not None and row.payment.id == payment.id
    looked = dead_rings.look_again(actor_id=make_member("boss@example.org", Role.ADMIN).id)
    assert (looked.done, looked.failed) == (1, 0)
    assert db.session.get_one(Payment, payment.id).state is PaymentState.PAID


def test_a_last_word_of_the_provider_ends_the_ring(sandbox: Sandbox, app: Flask) -> None:
    """It has no such payment: that is told by an alert of its own, and asking again changes nothing."""
    payment = starting.open_at_provider(place(make_event(), 1))
    assert payment is not None
    payment.provider_id = "cs_test_gone"
    db.session.add(
        WebhookEvent(
            provider="stripe",
            event_id="evt_0",
            type="checkout.session.completed",
            object_id="cs_test_gone",
            received_at=clock.now() - timedelta(days=1),
        )
    )
    db.session.commit()
    looked = dead_rings.look_again(actor_id=make_member("boss@example.org", Role.ADMIN).id)
    assert (looked.done, looked.failed) == (1, 0)
    assert only().done_at is not None and only().outcome.startswith("not_found")
