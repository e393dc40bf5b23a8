"""A cancelled event whose tickets could still be paid for: the pages are closed, and late money goes back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient

import extensions
from domain import clock
from domain.orders import event_cancellation, placing
from domain.payments import incident_decisions, reconciling, starting
from domain.post.mail_kinds import compose
from domain.sweep import sweeping
from extensions import db
from models import Event, Incident, Order, OrderState, Payment, PaymentState, Refund, RefundState, Role
from tests.support.people import log_in, mails, make_member, post
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, make_user, place
from tests.support.tills import Till


@pytest.fixture
def boss(app: Flask) -> int:
    return make_user("boss@example.org", Role.ADMIN).id


def begun(event: Event, email: str = "ada@example.org") -> Payment:
    """An order whose page at the provider is open."""
    payment = starting.open_at_provider(place(event, email=email))
    assert payment is not None and payment.state is PaymentState.OPEN
    return payment


def now(payment: Payment) -> Payment:
    db.session.expire_all()
    return db.session.get_one(Payment, payment.id)


def words_to(email: str, kind: str) -> tuple[str, str]:
    (letter,) = (compose(mail) for mail in mails(kind) if mail.to == email)
    return letter.subject, letter.text


def test_open_pages_are_closed_at_the_provider_and_their_buyers_told(
    sandbox: Sandbox, boss: int, till: Till
) -> None:
    event = make_event(providers=[till.name])
    payment, other = begun(event), begun(make_event("goes-on", providers=[till.name]), "other@example.org")
    never = place(event, email="created@example.org").payments[0]
    assert event_cancellation.progress(event).open == 2
    event_cancellation.cancel(event, refund=False, actor_id=boss)
    event_cancellation.look_after()
    assert (now(payment).state, payment.order.state) == (PaymentState.CANCELLED, OrderState.CANCELLED)
    assert now(never).state is PaymentState.CANCELLED
    assert now(other).state is PaymentState.OPEN
    assert event_cancellation.progress(event).open == 0
    # Nobody can pay on the provider's page any more.
    with pytest.raises(AssertionError, match="409"):
        sandbox.do(payment.provider_id or "", "pay")
    for email in ("ada@example.org", "created@example.org"):
        subject, text = words_to(email, "order_cancelled")
        assert subject == "Cancelled: Concert"
        assert "does not take place" in text and "nothing was charged" in text
        assert "pay now" not in text
    event_cancellation.look_after()
    assert len(mails("order_cancelled")) == 2


def test_paid_before_its_page_is_closed_goes_back(sandbox: Sandbox, boss: int, till: Till) -> None:
    """The buyer has paid, and nobody has noticed yet, as the event is cancelled."""
    event = make_event(providers=[till.name])
    payment = begun(event)
    sandbox.do(payment.provider_id or "", "pay")
    event_cancellation.cancel(event, refund=True, actor_id=boss)
    event_cancellation.look_after()
    assert sandbox.get("payments")[0]["refunded_minor"] == 2500
    (refund,) = db.session.query(Refund).all()
    assert (refund.amount_minor, refund.actor_id) == (2500, boss)
    (incident,) = db.session.query(Incident).all()
    assert (incident.kind, incident.resolution, incident.resolved_by_id) == (
        "event_cancelled",
        "refund",
        boss,
    )
    assert now(payment).order.state is OrderState.REFUNDED
    progress = event_cancellation.progress(event)
    assert (progress.paid, progress.done, progress.waiting) == (1, 1, 0)
    assert words_to("ada@example.org", "refund")
    event_cancellation.look_after()
    assert db.session.query(Refund).count() == 1


def test_what_a_bank_confirms_afterwards_goes_back(sandbox: Sandbox, boss: int) -> None:
    event = make_event()
    payment = begun(event)
    sandbox.do(payment.provider_id or "", "pay_later")
    reconciling.reconcile(payment.id, door="test")
    event_cancellation.cancel(event, refund=True, actor_id=boss)
    event_cancellation.look_after()
    assert (now(payment).state, event_cancellation.progress(event).open) == (PaymentState.PROCESSING, 1)
    sandbox.do(payment.provider_id or "", "complete_later")
    sandbox.advance(3600)
    sweeping.run("command")
    sweeping.run("command")
    assert now(payment).order.state is OrderState.REFUNDED
    assert sandbox.get("payments")[0]["refunded_minor"] == 2500


def test_what_a_bank_confirms_after_the_day_of_the_event_goes_back(sandbox: Sandbox, boss: int) -> None:
    starts = clock.now() + timedelta(hours=2)
    payment = begun(make_event(starts_at=starts, ends_at=starts + timedelta(hours=2)))
    sandbox.do(payment.provider_id or "", "pay_later")
    reconciling.reconcile(payment.id, door="test")
    event = payment.order.event
    assert event is not None
    event_cancellation.cancel(event, refund=True, actor_id=boss)
    sandbox.advance(3 * 86400)
    sandbox.do(payment.provider_id or "", "complete_later")
    for _ in range(2):
        sweeping.run("command")
    assert now(payment).order.state is OrderState.REFUNDED
    assert sandbox.get("payments")[0]["refunded_minor"] == 2500


def test_what_waits_in_the_inbox_goes_back_when_everybody_is_refunded(sandbox: Sandbox, boss: int) -> None:
    """Without the wish it waits for a person, as all money without goods; with it, it is everybody's."""
    event = make_event()
    payment = begun(event)
    sandbox.do(payment.provider_id or "", "pay")
    event_cancellation.cancel(event, refund=False, actor_id=boss)
    event_cancellation.look_after()
    assert db.session.query(Refund).count() == 0
    assert now(payment).order.state is OrderState.REVIEW
    progress = event_cancellation.progress(event)
    assert (progress.paid, progress.waiting) == (1, 1)
    event_cancellation.refund_everybody(event, actor_id=boss)
    # A provider that is silent meanwhile is asked again, under the same key.
    sandbox.faults("http_500", match={"path": "refunds"})
    event_cancellation.look_after()
    sandbox.faults()
    sandbox.advance(301)
    sweeping.run("command")
    (refund,) = db.session.query(Refund).all()
    assert (refund.state, now(payment).order.state) == (RefundState.SUCCEEDED, OrderState.REFUNDED)


def test_what_a_person_has_credited_to_a_wallet_stays_there(sandbox: Sandbox, boss: int) -> None:
    make_user("ada@example.org")
    event = make_event()
    payment = begun(event)
    sandbox.do(payment.provider_id or "", "pay")
    event_cancellation.cancel(event, refund=False, actor_id=boss)
    event_cancellation.look_after()
    (incident,) = db.session.query(Incident).all()
    incident_decisions.resolve(incident.id, how="wallet", reason="As agreed", actor_id=boss)
    event_cancellation.refund_everybody(event, actor_id=boss)
    event_cancellation.look_after()
    assert db.session.query(Refund).count() == 0
    assert event_cancellation.progress(event).waiting == 0


def test_a_silent_provider_is_left_alone_and_closed_by_the_next_sweep(
    sandbox: Sandbox, boss: int, till: Till
) -> None:
    event = make_event(providers=[till.name])
    made = [begun(event, f"b{number}@example.org") for number in range(5)]
    event_cancellation.cancel(event, refund=False, actor_id=boss)
    sandbox.faults("http_500", match={"path": till.api})
    assert event_cancellation.close_pages() == 0
    sandbox.faults()
    sandbox.advance(301)
    sweeping.run("command")
    assert {now(payment).state for payment in made} == {PaymentState.CANCELLED}


@pytest.fixture
def other(app: Flask) -> Iterator[psycopg.Connection]:
    """Somebody else's connection, whose transaction holds rows."""
    address = db.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address) as connection:
        yield connection
        connection.rollback()


def test_one_row_that_is_held_or_broken_keeps_no_other_from_its_end(
    sandbox: Sandbox, boss: int, other: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody holds the first order, the adapter of the second is gone, and the third goes on."""
    monkeypatch.setattr(extensions, "JOBS", replace(extensions.JOBS, lock=0.2))
    event = make_event()
    held, gone, last = (begun(event, f"b{number}@example.org") for number in range(3))
    bought = begun(make_event("sold"), "bought@example.org")
    sandbox.do(bought.provider_id or "", "pay")
    reconciling.reconcile(bought.id, door="test")
    gone.provider = "removed"
    db.session.commit()
    other.execute("SELECT id FROM orders WHERE id = %s FOR UPDATE", [held.order_id])
    event_cancellation.cancel(event, refund=False, actor_id=boss)
    event_cancellation.cancel(db.session.get_one(Event, bought.order.event_id), refund=True, actor_id=boss)
    event_cancellation.look_after()
    states = [now(payment).state for payment in (held, gone, last)]
    assert states == [PaymentState.OPEN, PaymentState.OPEN, PaymentState.CANCELLED]
    assert now(bought).order.state is OrderState.REFUNDED
    other.rollback()
    event_cancellation.look_after()
    assert now(held).state is PaymentState.CANCELLED


def test_one_refund_that_cannot_be_made_keeps_no_other_from_it(
    sandbox: Sandbox, boss: int, other: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extensions, "JOBS", replace(extensions.JOBS, lock=0.2))
    event = make_event()
    held, last = (begun(event, f"b{number}@example.org") for number in range(2))
    for payment in (held, last):
        sandbox.do(payment.provider_id or "", "pay")
        reconciling.reconcile(payment.id, door="test")
    event_cancellation.cancel(event, refund=True, actor_id=boss)
    other.execute("SELECT id FROM orders WHERE id = %s FOR UPDATE", [held.order_id])
    event_cancellation.look_after()
    states = [now(payment).order.state for payment in (held, last)]
    assert states == [OrderState.COMPLETED, OrderState.REFUNDED]
    assert [mail.to for mail in mails("event_cancelled")] == ["b1@example.org"]
    other.rollback()
    event_cancellation.look_after()
    assert now(held).order.state is OrderState.REFUNDED
    assert len(mails("event_cancelled")) == 2


def test_one_duty_that_fails_keeps_no_other_from_being_done(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def broken() -> int:
        raise RuntimeError("a row that nobody has foreseen")

    monkeypatch.setattr(event_cancellation, "tell_holders", broken)
    monkeypatch.setattr(event_cancellation, "close_pages", broken)
    monkeypatch.setattr(event_cancellation, "refund_due", lambda: done.append("money"))
    with pytest.raises(ExceptionGroup, match="2 of 3"):
        event_cancellation.look_after()
    assert done == ["money"]


def test_an_order_for_the_fee_of_a_cancelled_event_is_not_its_buyers(sandbox: Sandbox, boss: int) -> None:
    """Only what buys tickets is closed: a listing fee is between its organiser and the platform."""
    olga = make_user("olga@example.org", Role.ORGANISER)
    event = make_event(organiser_id=olga.id)
    fee = placing.place_listing_fee(event, olga, 1000, "EUR", provider="stripe", form_token="fee")
    starting.open_at_provider(fee)
    event_cancellation.cancel(event, refund=True, actor_id=boss)
    event_cancellation.look_after()
    order = db.session.get_one(Order, fee.id, populate_existing=True)
    assert order.payments[0].state is PaymentState.OPEN


def test_the_organisers_page_tells_what_is_still_open(client: FlaskClient, sandbox: Sandbox) -> None:
    make_member("owner@example.org", Role.ADMIN)
    log_in(client, "owner@example.org")
    payment = begun(make_event())
    sandbox.do(payment.provider_id or "", "pay_later")
    reconciling.reconcile(payment.id, door="test")
    page = "/organiser/events/concert"
    assert "1 payment is still open" in client.get(f"{page}/cancel").text
    post(client, f"{page}/cancel", refund="no")
    event_cancellation.look_after()
    assert "1 payment is not closed yet" in client.get(page).text
    # Whoever has paid by a slow bank is paid back, too, if that is wished before the money arrives.
    post(client, f"{page}/cancel", page=page, refund="yes")
    assert "what arrives all the same goes back" in client.get(page).text
