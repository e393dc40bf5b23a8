"""A cancelled event pays everybody back, once, whoever dies or fails on the way."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select

import worker
from domain import clock
from domain.catalogue import events
from domain.errors import DomainError
from domain.orders import event_cancellation, managing, placing
from domain.payments import reconciling, refunds, starting
from domain.post.mail_kinds import compose
from domain.providers import registry
from domain.sweep import sweeping
from extensions import db, queue
from models import (
    Connection,
    Event,
    EventState,
    Order,
    OrderState,
    OutboxMail,
    Payment,
    Refund,
    Role,
    TicketState,
)
from tests.support.merchants import connect, make_organiser, use_sumup
from tests.support.people import log_in, mails, make_member
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, place
from tests.support.tills import SUMUP, Till


@pytest.fixture
def boss(app: Flask) -> int:
    return make_member("boss@example.org", Role.ADMIN).id


def bought(sandbox: Sandbox, event: Event, *numbers: int, **more: Any) -> list[Order]:
    """Orders of so many tickets each, paid at the sandbox."""
    made = []
    for number in numbers:
        order = place(event, number, **more)
        payment = starting.open_at_provider(order)
        assert payment is not None
        sandbox.do(str(payment.provider_id), "pay")
        reconciling.reconcile(payment.id, door="test")
        made.append(order)
    db.session.expire_all()
    return made


def refunded_at_provider(sandbox: Sandbox) -> int:
    """How often the provider was asked for a refund."""
    calls = sandbox.get("calls")
    return sum(1 for call in calls if call["method"] == "POST" and call["path"].endswith("/refunds"))


def test_everybody_is_paid_back_once(sandbox: Sandbox, boss: int, till: Till) -> None:
    event = make_event(providers=[till.name])
    made = bought(sandbox, event, 1, 2, 3)
    free = placing.place_guests(
        event, event.ticket_types[0].id, 1, name="G", email="g@example.org", actor_id=boss
    )
    refunds.request(made[1].payments[0].id, 2500, actor_id=boss, reason="One is ill")
    before = event_cancellation.progress(event)
    assert (before.paid, before.done, before.waiting) == (3, 0, 3)
    event_cancellation.cancel(event, refund=True, actor_id=boss)
    assert event_cancellation.refund_due() == 3
    assert event_cancellation.refund_due() == 0
    db.session.expire_all()
    after = event_cancellation.progress(event)
    assert (after.paid, after.done, after.under_way, after.failed, after.waiting) == (3, 3, 0, 0, 0)
    assert [order.state for order in made] == [OrderState.REFUNDED] * 3
    assert [refund.amount_minor for refund in db.session.query(Refund).order_by(Refund.id)] == [
        2500,
        2500,
        2500,
        7500,
    ]
    assert refunded_at_provider(sandbox) == 4
    assert free.state is OrderState.COMPLETED
    entry = next(e for e in made[0].timeline if e.what == "refund_asked")
    assert (entry.door, entry.actor_id) == ("cancelled_event", boss)


def told() -> dict[str, str]:
    """Who was mailed that the event is cancelled, and what they read about their money."""
    letters = [compose(mail) for mail in mails("event_cancelled")]
    found = {letter.to: letter.text for letter in letters}
    assert len(found) == len(letters), "nobody is told twice"
    return found


def test_everybody_with_a_ticket_is_told_once(app: Flask, sandbox: Sandbox, boss: int) -> None:
    event, other = make_event(), make_event("goes-on", price_minor=0)
    free = events.add_ticket_type(event, name="Free", price_minor=0, capacity=9).id
    bought(sandbox, event, 1)
    placing.place(event, {free: 2}, name="Fay", email="free@example.org")
    place(other, email="elsewhere@example.org")
    placing.place_guests(event, free, 2, name="Gus", email="gus@example.org", actor_id=boss)
    left = placing.place_guests(event, free, 1, name="Liz", email="left@example.org", actor_id=boss)
    managing.withdraw(left, [left.tickets[0].id], reason="Ill", door="test", actor_id=boss)
    # Somebody who has not paid yet has nothing to come with.
    place(event, email="unpaid@example.org")
    event_cancellation.cancel(event, refund=True, actor_id=boss)
    for _ in range(2):
        worker.cancelled_events()
    sweeping.run("test")
    said = told()
    assert set(said) == {"ada@example.org", "free@example.org", "gus@example.org"}
    assert "sent back the way you paid it" in said["ada@example.org"]
    assert "Your order was free" in said["free@example.org"]
    assert "You were on the guest list" in said["gus@example.org"]
    assert len(mails("refund")) == 1


def test_they_are_told_by_whichever_page_it_is_cancelled(sandbox: Sandbox, boss: int) -> None:
    event, past = make_event(), make_event("past", price_minor=0)
    bought(sandbox, event, 1)
    place(past, email="was-there@example.org")
    past.starts_at, past.ends_at = clock.now() - timedelta(hours=3), clock.now() - timedelta(hours=1)
    db.session.commit()
    events.cancel_event(event)
    events.cancel_event(past)
    sweeping.run("test")
    (words,) = told().values()
    assert "You will hear what happens to what you paid" in words


def test_the_sweep_does_it_where_no_worker_does(sandbox: Sandbox, boss: int) -> None:
    event = make_event()
    (order,) = bought(sandbox, event, 2)
    event_cancellation.cancel(event, refund=True, actor_id=boss)
    sweeping.run("command")
    db.session.expire_all()
    assert order.state is OrderState.REFUNDED
    assert {ticket.state for ticket in order.tickets} == {TicketState.VOID}


def test_without_the_wish_nothing_goes_back(sandbox: Sandbox, boss: int) -> None:
    event = make_event()
    with pytest.raises(DomainError, match="Cancel the event first"):
        event_cancellation.refund_everybody(event, actor_id=boss)
    (order,) = bought(sandbox, event, 1)
    event_cancellation.cancel(event, refund=False, actor_id=boss)
    assert event_cancellation.refund_due() == 0
    assert order.state is OrderState.COMPLETED
    event_cancellation.refund_everybody(event, actor_id=boss)
    assert event_cancellation.refund_due() == 1
    with pytest.raises(DomainError, match="stays cancelled"):
        events.update_event(event, state=EventState.PUBLISHED)


def test_two_at_once_pay_back_once(app: Flask, sandbox: Sandbox, boss: int, till: Till) -> None:
    event = make_event(providers=[till.name])
    made = bought(sandbox, event, 1, 1, 1, 1)
    event_cancellation.cancel(event, refund=True, actor_id=boss)

    def run(_: int) -> int:
        with app.app_context():
            return event_cancellation.refund_due()

    with ThreadPoolExecutor(3) as pool:
        assert sum(pool.map(run, range(3))) == len(made)
    db.session.expire_all()
    assert {order.payments[0].leased_until for order in made} == {None}
    assert db.session.query(Refund).count() == len(made)
    assert event_cancellation.progress(event).done == len(made)


def test_workers_share_the_refunds_of_one_event(
    app: Flask, sandbox: Sandbox, boss: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes a part that the others leave alone; a large event asks the idle ones to come."""
    monkeypatch.setattr(event_cancellation, "_BATCH", 2)
    event = make_event()
    made = bought(sandbox, event, 1, 1, 1, 1, 1)
    event_cancellation.cancel(event, refund=True, actor_id=boss)
    queue.redis.flushdb()
    mine = event_cancellation._claim(event, 0)
    assert len(mine) == 2 and event_cancellation.refund_due() == 3
    assert queue.redis.exists(queue._waiting("cancelled_events"))
    ids = {due.payment_id for due in mine}
    assert db.session.query(Refund).filter(Refund.payment_id.in_(ids)).count() == 0
    # Who died over his part: it is everybody's again when the lease is over.
    sandbox.advance(reconciling.LEASE.total_seconds() + 1)
    assert event_cancellation.refund_due() == 2
    assert db.session.query(Refund).count() == len(made) == refunded_at_provider(sandbox)


def test_what_failed_is_shown_and_tried_again_only_when_asked(sandbox: Sandbox, boss: int) -> None:
    event = make_event()
    (order,) = bought(sandbox, event, 1)
    event_cancellation.cancel(event, refund=True, actor_id=boss)
    event_cancellation.refund_due()
    sandbox.do(str(order.payments[0].provider_id), "refund_fail")
    db.session.rollback()
    payment = db.session.get_one(Payment, order.payments[0].id)
    reconciling.reconcile(payment.id, door="test")
    db.session.expire_all()
    assert event_cancellation.progress(event).failed == 1
    assert event_cancellation.refund_due() == 0
    event_cancellation.refund_everybody(event, actor_id=boss)
    assert event_cancellation.refund_due() == 1
    db.session.expire_all()
    assert event_cancellation.progress(event).done == 1


def test_a_silent_provider_is_left_alone_and_asked_later_under_the_same_key(
    sandbox: Sandbox, boss: int, till: Till
) -> None:
    event = make_event(capacity=100, providers=[till.name])
    bought(sandbox, event, *[1] * 5)
    event_cancellation.cancel(event, refund=True, actor_id=boss)
    sandbox.faults("http_500", match={"path": till.refunds})
    assert event_cancellation.refund_due() == 3
    sandbox.faults()
    sandbox.advance(301)
    db.session.expire_all()
    assert event_cancellation.progress(event).under_way == 3
    sweeping.run("command")
    db.session.expire_all()
    progress = event_cancellation.progress(event)
    # Where the provider keeps no keys, the three are not asked for again: their sum is waited for.
    again = registry.get(till.name).keeps_refund_keys
    assert (progress.done, progress.under_way) == ((5, 0) if again else (2, 3))
    assert db.session.query(Refund).count() == 5


def test_a_provider_that_does_not_even_tell_a_sum_is_left_alone(sandbox: Sandbox, boss: int) -> None:
    """Where the sum that went back is asked for before each refund, that question is the first to fail."""
    event = make_event(capacity=100, providers=["sumup"])
    bought(sandbox, event, *[1] * 5)
    event_cancellation.cancel(event, refund=True, actor_id=boss)
    before = len(sandbox.calls())
    sandbox.faults("http_500", match={"path": SUMUP.api})
    assert event_cancellation.refund_due() == 0
    assert len(sandbox.calls()) - before == 3
    sandbox.faults()
    assert event_cancellation.refund_due() == 5


# --- An account that cannot be spoken for ---------------------------------------------------------------


@pytest.fixture
def olgas(environ: dict[str, str], sandbox: Sandbox, boss: int) -> Event:
    """A cancelled event: four orders were paid into its organiser's account, then two into the house's."""
    use_sumup(environ, sandbox, house_account_for_organisers=True)
    olga = make_organiser()
    connect(olga)
    event = make_event(organiser_id=olga.id, capacity=100, providers=["sumup", "stripe"])
    bought(sandbox, event, *[1] * 4, provider="sumup")
    bought(sandbox, event, *[1] * 2, provider="stripe")
    event_cancellation.cancel(event, refund=True, actor_id=boss)
    return event


def asked_of_sumup(sandbox: Sandbox) -> int:
    return sum(1 for call in sandbox.calls() if call["provider"] == "sumup")


def alerts_about_refunds() -> list[OutboxMail]:
    told = select(OutboxMail).where(OutboxMail.key.startswith("not_paid_back:"))
    return list(db.session.scalars(told.order_by(OutboxMail.id)))


def test_an_account_that_is_silent_keeps_no_other_waiting(sandbox: Sandbox, olgas: Event) -> None:
    sandbox.faults("http_500", match={"path": SUMUP.api})
    before = asked_of_sumup(sandbox)
    assert event_cancellation.refund_due() == 2
    assert asked_of_sumup(sandbox) - before == 3
    # It may answer again in a minute.
    assert alerts_about_refunds() == []


def test_a_person_hears_once_a_day_of_money_that_cannot_go_back(
    client: FlaskClient, sandbox: Sandbox, olgas: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = db.session.query(Connection).one()
    sandbox.post(f"merchants/{connection.account}", {"do": "revoke"})
    connection.access_expires_at = clock.now() - timedelta(minutes=1)
    db.session.commit()
    for _ in range(2):
        sweeping.run("test")
    told = alerts_about_refunds()
    assert len(told) == 1
    text = told[0].context["text"]
    codes = db.session.scalars(
        select(Order.code).join(Payment).where(Payment.provider == "sumup", Payment.state == "paid")
    ).all()
    assert len(codes) == 4 and all(code in text for code in codes) and "4 orders were not paid back" in text
    assert "not connected any more" in text
    progress = event_cancellation.progress(db.session.get_one(Event, olgas.id))
    assert (progress.done, progress.waiting, progress.unreachable) == (2, 4, 4)
    log_in(client, "boss@example.org")
    page = client.get(f"/organiser/events/{olgas.slug}").text
    assert "4 of them were paid into an account that is not connected any more" in page
    tomorrow = clock.now() + timedelta(days=1)
    monkeypatch.setattr(clock, "now", lambda: tomorrow)
    event_cancellation.refund_due()
    assert len(alerts_about_refunds()) == 2


def test_what_passes_by_itself_is_told_where_it_does_not(
    sandbox: Sandbox, olgas: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.faults("http_500", match={"path": SUMUP.api})
    later = clock.now() + timedelta(hours=7)
    monkeypatch.setattr(clock, "now", lambda: later)
    event_cancellation.refund_due()
    (told,) = alerts_about_refunds()
    assert "3 orders were not paid back" in told.context["text"]
