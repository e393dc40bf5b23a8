"""What things cost, counted: queries a request, provider calls a sweep. Times are measured in bench/."""

from __future__ import annotations

import re

import pytest
from flask import Flask
from flask.testing import FlaskClient

from domain.payments import settling, starting
from domain.post import outbox
from domain.sweep import sweeping
from extensions import db
from models import Event, Payment
from tests.support.queries import recorded
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, place, report_on
from tests.support.web import path_of


def test_the_event_page(client: FlaskClient) -> None:
    event = make_event()
    path = f"/events/{event.slug}"
    client.get(path)
    with recorded() as statements:
        assert client.get(path).status_code == 200
    assert len(statements) <= 1, statements


@pytest.mark.parametrize("quantity", [1, 10])
def test_order_and_settle(app: Flask, quantity: int) -> None:
    event_id = make_event(capacity=100).id
    for _ in range(5):
        place(db.session.get_one(Event, event_id), quantity)
    db.session.remove()
    with recorded() as placing:
        order = place(db.session.get_one(Event, event_id), quantity)
        payment_id = order.payments[0].id
    settling.settle(payment_id, report_on(order.payments[0], "open"), door="test")
    report = report_on(db.session.get_one(Payment, payment_id), "paid")
    db.session.remove()
    with recorded() as settled:
        settling.settle(payment_id, report, door="test")
    # One of each is for all the words by which the order is found.
    assert len(placing) <= 10, placing
    assert len(settled) <= 10, settled


@pytest.mark.parametrize("quantity", [1, 10])
def test_a_purchase_over_http(client: FlaskClient, sandbox: Sandbox, quantity: int) -> None:
    """Four requests: the event page, the form, the way back, the order page; however many tickets."""
    event = make_event(capacity=100)
    path, field = f"/events/{event.slug}", f"quantity-{event.ticket_types[0].id}"
    with recorded() as statements:
        token = re.search(r'name="csrf_token" value="([^"]+)"', client.get(path).text)
    assert token is not None
    form = {"csrf_token": token[1], "name": "Ada", "email": "ada@example.org", field: str(quantity)}
    with recorded() as more:
        page = client.post(path, data=form).headers["Location"]
    statements += more
    told = sandbox.get("payments")[0]
    assert told["hosted_url"] == page
    sandbox.do(told["id"], "pay")
    with recorded() as more:
        order_page = client.get(path_of(told["success_url"])).headers["Location"]
        assert client.get(order_page).status_code == 200
    statements += more
    assert len(statements) <= 28, statements
    with recorded() as mailing:
        assert outbox.deliver_due().sent == 2
    # Two of them look once for what was asked for by an address, and what was held back, however many leave.
    assert len(mailing) <= 10, mailing


def test_provider_calls_of_a_sweep(client: FlaskClient, sandbox: Sandbox) -> None:
    event = make_event(capacity=1000)
    for _ in range(30):
        starting.open_at_provider(place(db.session.get_one(Event, event.id)))
    run = sweeping.run("command")
    # One for all of them; and what happened since: Stripe's three lists and SumUp's one.
    assert (run.found, run.pending, run.provider_calls) == (30, 30, 1 + 4)
