"""Another provider behind the same rules: organisers' accounts, its own deadlines, unsigned rings.

The toy of docs/adding-a-provider.md has all of these, and Stripe none. Refunds without keys, which both lack,
are in test_refunds_by_list.py and test_lagging_refunds.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from limits import RateLimitItemPerHour
from sqlalchemy import select

import config
from domain import clock
from domain.catalogue import payees
from domain.errors import DomainError
from domain.ledger import transfers
from domain.payments import poll_schedule, reconciling, starting, webhooks
from domain.providers import registry
from extensions import db
from models import (
    Connection,
    Event,
    OutboxMail,
    Payment,
    PaymentState,
    TimelineEntry,
    User,
)
from tests.support.benches import Bench, PebbleBench
from tests.support.pebble import PebbleProvider
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, make_user, place


@pytest.fixture
def bank(app: Flask, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> PebbleBench:
    """Pebble, beside Stripe."""
    return PebbleBench(sandbox, monkeypatch)


def later(monkeypatch: pytest.MonkeyPatch, minutes: float) -> None:
    """Let so much time go by."""
    moment = clock.now() + timedelta(minutes=minutes)
    monkeypatch.setattr(clock, "now", lambda: moment)


def sold(through: str = "pebble", **more: Any) -> Event:
    """An event that is sold through one provider."""
    return make_event(providers=[through], **more)


def opened(event: Event, **more: Any) -> Payment:
    """A payment whose page is open, for one ticket."""
    payment = starting.open_at_provider(place(event, **more))
    assert payment is not None and payment.state is PaymentState.OPEN
    return payment


def paid(bank: Bench) -> Payment:
    payment = opened(sold(bank.name))
    bank.do(payment.provider_id or "", "pay")
    assert reconciling.reconcile(payment.id, door="test").verdict == "verified"
    return again(payment)


def again(payment: Payment) -> Payment:
    return db.session.get_one(Payment, payment.id, populate_existing=True)


def connect(bank: Bench, user: User) -> str:
    """The organiser's own account, connected."""
    account, _ = bank.connect()
    now = clock.now()
    db.session.add(Connection(user_id=user.id, provider=bank.name, account=account, connected_at=now))
    db.session.commit()
    return account


def told(payment: Payment) -> list[str]:
    query = select(TimelineEntry.what).filter_by(payment_id=payment.id).order_by(TimelineEntry.id)
    return list(db.session.scalars(query))


def alerts(key: str) -> list[OutboxMail]:
    told = select(OutboxMail).where(OutboxMail.key.startswith(key)).order_by(OutboxMail.id)
    return list(db.session.scalars(told))


# --- Start ----------------------------------------------------------------------------------------------


def test_the_deadlines_are_the_provider_s(bank: PebbleBench) -> None:
    payment = opened(sold())
    assert payment.closes_at == payment.created_at + timedelta(minutes=60)
    assert payment.max_poll_duration_minutes == 60
    assert payment.polling_started_at == payment.state_since
    assert payment.account == "shop-1"
    stripe = place(make_event("stripe", providers=["stripe"])).payments[0]
    assert stripe.closes_at == stripe.created_at + timedelta(minutes=31)


def test_what_is_named_nowhere_is_the_first_that_is_offered(bank: PebbleBench) -> None:
    assert place(sold()).payments[0].provider == "pebble"
    assert place(make_event("both", providers=["pebble", "stripe"])).payments[0].provider == "pebble"
    assert place(make_event("any")).payments[0].provider == "stripe"
    # Pebble takes no yen: the next one does.
    yen = make_event("yen", providers=["pebble", "stripe"], currency="JPY", price_minor=5000)
    assert place(yen).payments[0].provider == "stripe"


def test_an_organiser_is_paid_into_their_own_account(bank: PebbleBench) -> None:
    organiser = make_user("org@example.org")
    account = connect(bank, organiser)
    payment = opened(sold(organiser_id=organiser.id))
    assert payment.account == account
    assert bank.bank.payments[payment.provider_id or ""]["shop"] == account
    bank.do(payment.provider_id or "", "pay")
    assert reconciling.reconcile(payment.id, door="test").verdict == "verified"
    assert transfers.balance(transfers.provider_account("pebble", account), "EUR") == -2500
    assert transfers.balance(transfers.sales_account(organiser.id), "EUR") == 2500


def test_an_organiser_without_an_account_cannot_be_paid(bank: PebbleBench) -> None:
    organiser = make_user("org@example.org")
    event = sold(organiser_id=organiser.id)
    assert payees.offered(event) == []
    with pytest.raises(DomainError):
        place(event, provider="pebble")


def test_another_account_in_the_report_is_for_a_person(bank: PebbleBench) -> None:
    payment = opened(sold())
    bank.do(payment.provider_id or "", "pay")
    fetch = PebbleProvider.fetch

    def elsewhere(self: PebbleProvider, provider_id: str, **more: Any) -> Any:
        return replace(fetch(self, provider_id, **more), account="shop-9")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PebbleProvider, "fetch", elsewhere)
        assert reconciling.reconcile(payment.id, door="test").verdict == "review"
    assert not again(payment).fulfilled


# --- Until the last word --------------------------------------------------------------------------------


def test_a_broken_connection_fails_no_payment(bank: PebbleBench, monkeypatch: pytest.MonkeyPatch) -> None:
    organiser = make_user("org@example.org")
    connect(bank, organiser)
    payment = opened(sold(organiser_id=organiser.id))
    tokens = registry._credentials("pebble", payment.account)
    monkeypatch.setattr(tokens, "broken", True)
    later(monkeypatch, 600)
    outcome = reconciling.reconcile(payment.id, door="sweep")
    assert outcome.error is not None and outcome.error.code == "not_connected"
    assert again(payment).state is PaymentState.OPEN and not alerts("missing")


# --- A person's word on polling -------------------------------------------------------------------------


def test_polling_that_was_stopped_ends_with_a_reading(
    bank: PebbleBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment, admin = opened(sold()), make_user("admin@example.org")
    poll_schedule.stop_polling(payment.id, "The buyer called: they pay at the door.", admin.id)
    stopped = again(payment)
    assert not stopped.should_poll and not stopped.needs_polling(clock.now())
    assert stopped.next_check_at == stopped.closes_at
    entry = db.session.scalars(select(TimelineEntry).filter_by(what="polling_stopped")).one()
    assert (entry.actor_id, entry.text) == (admin.id, "The buyer called: they pay at the door.")
    with pytest.raises(DomainError):
        poll_schedule.stop_polling(payment.id, "Once more.", admin.id)
    bank.do(payment.provider_id or "", "pay")
    later(monkeypatch, 76)
    assert reconciling.reconcile(payment.id, door="sweep").verdict == "verified"


def test_more_time_is_more_polling(bank: PebbleBench, monkeypatch: pytest.MonkeyPatch) -> None:
    payment, admin = opened(sold()), make_user("admin@example.org")
    closes_at = payment.closes_at
    poll_schedule.stop_polling(payment.id, "Too long.", admin.id)
    poll_schedule.extend(payment.id, 60, admin.id, "The bank is slow today.")
    longer = again(payment)
    assert closes_at is not None and longer.closes_at == closes_at + timedelta(minutes=60)
    assert longer.should_poll and longer.max_poll_duration_minutes in (120, 121)
    later(monkeypatch, 100)
    assert again(payment).needs_polling(clock.now())
    assert reconciling.reconcile(payment.id, door="sweep").verdict == "still_pending"
    assert told(payment) == ["open", "polling_stopped", "polling_extended"]


@pytest.mark.parametrize(
    "act",
    [
        lambda payment: poll_schedule.stop_polling(payment.id, " ", None),
        lambda payment: poll_schedule.extend(payment.id, 60, None, ""),
        lambda payment: poll_schedule.extend(payment.id, 0, None, "Why not."),
        lambda payment: poll_schedule.extend(payment.id, poll_schedule.MOST_MINUTES + 1, None, "Why not."),
        lambda payment: poll_schedule.extend(payment.id + 1, 60, None, "Why not."),
    ],
)
def test_a_word_on_polling_needs_a_reason_and_a_measure(
    bank: PebbleBench, act: Callable[[Payment], None]
) -> None:
    payment = opened(sold())
    with pytest.raises(DomainError):
        act(payment)
    assert told(payment) == ["open"]


def test_what_is_final_is_not_polled(bank: PebbleBench) -> None:
    payment = paid(bank)
    with pytest.raises(DomainError) as refused:
        poll_schedule.stop_polling(payment.id, "Enough.", None)
    assert refused.value.code == "not_polled"
    with pytest.raises(DomainError):
        poll_schedule.extend(payment.id, 5, None, "More.")


# --- Rings that nobody signed ---------------------------------------------------------------------------


def ring(client: FlaskClient, body: object) -> int:
    return client.post("/pebble/webhook/", data=json.dumps(body)).status_code


def test_an_unsigned_ring_makes_us_ask(
    bank: PebbleBench, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment = opened(sold())
    bank.do(payment.provider_id or "", "pay")
    later(monkeypatch, 1)
    assert ring(client, {"payment": payment.provider_id}) == 200
    assert again(payment).state is PaymentState.PAID
    assert told(payment)[-2:] == ["paid", "fulfilled"]


def test_forged_rings_cost_one_call_in_two_seconds(
    bank: PebbleBench, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment = opened(sold())
    later(monkeypatch, 1)
    before = bank.received()
    said = [ring(client, {"payment": payment.provider_id}) for _ in range(20)]
    # What comes too soon is to come again: it may be news.
    assert said == [200] + [429] * 19
    assert bank.received() == before + 1
    assert again(payment).state is PaymentState.OPEN


def test_a_ring_about_nothing_of_ours_is_answered_and_forgotten(
    bank: PebbleBench, client: FlaskClient
) -> None:
    before = bank.received()
    assert ring(client, {"payment": "peb_999"}) == 200
    assert ring(client, {"nothing": "known"}) == 400
    assert ring(client, []) == 400
    assert client.post("/cowries/webhook/", data=b"{}").status_code == 404
    assert client.post("/wallet/webhook/", data=b"{}").status_code == 404
    assert bank.received() == before


def test_a_ring_that_cannot_be_followed_is_to_come_again(
    bank: PebbleBench, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment = opened(sold())
    later(monkeypatch, 1)
    bank.trouble("http_500")
    assert ring(client, {"payment": payment.provider_id}) == 503
    assert again(payment).state is PaymentState.OPEN


def test_too_many_rings_from_one_place_are_turned_away(
    bank: PebbleBench, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.use(replace(config.get(), limits=True))
    monkeypatch.setattr(webhooks, "UNSIGNED_NETWORK", RateLimitItemPerHour(10))
    monkeypatch.setattr(webhooks, "UNSIGNED_PAYMENT", RateLimitItemPerHour(3))
    payment, asked = opened(sold()), []
    monkeypatch.setattr(poll_schedule, "may_ask", lambda payment: asked.append(payment.id))
    for _ in range(5):
        ring(client, {"payment": payment.provider_id})
    assert len(asked) == 3
    assert [ring(client, {"payment": "peb_999"}) for _ in range(6)] == [200] * 5 + [429]
