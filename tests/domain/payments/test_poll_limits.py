"""For how long a payment is polled, as it is made: by its maker, by its event, by its provider's setting."""

from __future__ import annotations

from datetime import timedelta

import pytest
from flask import Flask
from flask.testing import FlaskClient

from domain.catalogue import events
from domain.errors import DomainError
from domain.payments import reconciling, starting
from domain.providers import registry
from extensions import db
from models import Event, Order, PaymentState, Role
from tests.support.people import log_in, make_member, post
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, place
from tests.support.tills import Till


def minutes_of(order: Order) -> int:
    """What its payment says in each place where it is written; they agree."""
    (payment,) = order.payments
    assert payment.closes_at is not None
    assert payment.closes_at - payment.created_at == timedelta(minutes=payment.max_poll_duration_minutes)
    return payment.max_poll_duration_minutes


def test_who_makes_it_decides_else_the_event_else_the_setting(app: Flask, till: Till) -> None:
    event = make_event(providers=[till.name], capacity=20)
    usual = registry.get(till.name).open_minutes
    assert minutes_of(place(event, provider=till.name)) == usual
    events.update_event(event, poll_minutes=180)
    assert minutes_of(place(event, provider=till.name)) == 180
    assert minutes_of(place(event, provider=till.name, poll_minutes=90)) == 90
    events.update_event(event, poll_minutes=None)
    assert minutes_of(place(event, provider=till.name)) == usual


@pytest.mark.parametrize("minutes", [31, 1370])
def test_the_provider_takes_the_least_and_the_most(
    app: Flask, sandbox: Sandbox, till: Till, minutes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = place(make_event(providers=[till.name]), provider=till.name, poll_minutes=minutes)
    payment = starting.open_at_provider(order)
    assert payment is not None and payment.state is PaymentState.OPEN
    sandbox.advance((minutes - 1) * 60)
    reconciling.reconcile(payment.id, door="test", patient=True)
    assert db.session.get_one(type(payment), payment.id).state is PaymentState.OPEN
    sandbox.advance(120)
    reconciling.reconcile(payment.id, door="test", patient=True)
    assert db.session.get_one(type(payment), payment.id).state is PaymentState.EXPIRED


@pytest.mark.parametrize("minutes", [-1, 0, 30, 1371])
def test_what_no_provider_can_do_is_refused(app: Flask, minutes: int) -> None:
    event = make_event()
    with pytest.raises(DomainError) as refused:
        place(event, poll_minutes=minutes)
    assert refused.value.code == "poll_minutes"
    db.session.rollback()
    with pytest.raises(DomainError) as refused:
        events.update_event(event, poll_minutes=minutes)
    assert refused.value.code == "poll_minutes"


def test_an_admin_sets_it_in_the_event_s_record(client: FlaskClient) -> None:
    make_member("boss@example.org", role=Role.ADMIN)
    event_id = make_event().id
    log_in(client, "boss@example.org")
    page = client.get(f"/admin/records/events/edit/?id={event_id}").text
    assert 'name="poll_minutes"' in page
    fields = {"title": "Concert", "slug": "concert", "timezone": "Europe/Jersey", "currency": "EUR"}
    fields |= {"starts_at": "2030-07-01T20:00", "ends_at": "2030-07-01T23:00", "state": "published"}
    answer = post(client, f"/admin/records/events/edit/?id={event_id}", **fields, poll_minutes="180")
    assert answer.status_code == 302, answer.text
    db.session.expire_all()
    event = db.session.get_one(Event, event_id)
    assert event.poll_minutes == 180
    assert events.duplicate_event(event).poll_minutes == 180
