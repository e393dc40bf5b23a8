"""Money that arrived and buys nothing by rule: its buyer is told so, what comes next, and how it ended."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select

import config
from domain import clock
from domain.errors import DomainError
from domain.ledger import transfers
from domain.office import invariants
from domain.orders import publishing
from domain.payments import creating, incident_decisions, refunds, settling, starting
from domain.providers.contract import RefundReport
from domain.providers.stripe import StripeProvider
from extensions import db
from models import (
    Event,
    EventState,
    Incident,
    Order,
    OrderState,
    Payment,
    PaymentState,
    Role,
    Ticket,
    User,
)
from tests.domain.payments.test_second_provider import connect, opened, sold
from tests.support.benches import BENCHES, PebbleBench
from tests.support.merchants import make_organiser
from tests.support.people import mails
from tests.support.sandbox import Sandbox
from tests.support.shop import address, make_event, make_user, place, report_on


def settle(payment: Payment, state: str, **changes: Any) -> None:
    settling.settle(payment.id, report_on(fresh(payment), state, **changes), door="test")


def fresh(payment: Payment) -> Payment:
    return db.session.get_one(Payment, payment.id, populate_existing=True)


def incident() -> Incident:
    query = select(Incident).where(Incident.resolved_at.is_(None))
    return db.session.scalars(query.execution_options(populate_existing=True)).one()


def late(event: Event, **more: Any) -> Payment:
    """Money that came when the only place was sold to somebody else."""
    payment = place(event, **more).payments[0]
    settle(payment, "open")
    settle(payment, "expired")
    faster = place(event, email="faster@example.org").payments[0]
    settle(faster, "open")
    settle(faster, "paid")
    settle(payment, "paid")
    return fresh(payment)


def subjects(order: Order) -> list[str]:
    """The kinds of mail that this order's buyer got after it was placed."""
    kinds = ("money_arrived", "refund", "top_up", "money_decided", "tickets", "order_cancelled")
    return [mail.kind for kind in kinds for mail in mails(kind) if mail.order_id == order.id]


@pytest.mark.parametrize(
    ("how", "then", "says"),
    [
        ("refund", "refund", "It was sent back to where it came from."),
        ("wallet", "top_up", "It was added to your wallet."),
        ("dismiss", "money_decided", "nothing more is sent back for it from here"),
        ("issue", "tickets", "You’re going to"),
    ],
)
def test_late_money_is_told_and_so_is_how_it_ended(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, how: str, then: str, says: str
) -> None:
    member = make_user()
    event = make_event(capacity=1)
    payment = late(event, email=member.email, user=member)
    settle(payment, "paid")
    (mail,) = mails("money_arrived")
    assert (mail.to, mail.context["kind"], mail.context["amount_minor"]) == (member.email, "late_money", 2500)
    assert "A person is looking at your payment" in client.get(address(payment.order)).text
    if how == "issue":
        event.ticket_types[0].capacity = 2
        db.session.commit()
    made = RefundReport("re_1", 2500, "EUR", "succeeded")
    monkeypatch.setattr(StripeProvider, "refund", lambda *args, **more: made)
    incident_decisions.resolve(incident().id, how=how, reason="I looked at it.", actor_id=None)
    assert subjects(payment.order) == ["money_arrived", then]
    assert says in client.get(address(payment.order)).text
    assert invariants.look() == []


def test_what_the_setting_decides_is_said_at_once(app: Flask) -> None:
    config.use(replace(config.get(), late_money="refund"))
    late(make_event(capacity=1))
    (mail,) = mails("money_arrived")
    assert mail.context["how"] == "refund"


@pytest.mark.parametrize("whose", ["house", "organiser"])
def test_only_the_house_s_money_is_credited_to_a_wallet(
    app: Flask, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    """What an organiser's own account took can only be sent back by it, or buy the goods."""
    bank = PebbleBench(sandbox, monkeypatch)
    config.use(replace(config.get(), late_money="wallet"))
    member, olga = make_user(), make_organiser()
    if whose == "organiser":
        connect(bank, olga)
    event = sold("pebble", capacity=1, organiser_id=olga.id if whose == "organiser" else None)
    late(event, email=member.email, user=member)
    (mail,) = [mail for mail in mails("money_arrived") if mail.context["kind"] == "late_money"]
    waits = incident()
    ours = whose == "house"
    assert mail.context["how"] == ("wallet" if ours else "person")
    assert ("wallet" in incident_decisions.resolutions(waits)) is ours
    incident_decisions.decide_late_money()
    assert (db.session.get_one(Incident, waits.id).resolution == "wallet") is ours
    if not ours:
        with pytest.raises(DomainError) as refused:
            incident_decisions.resolve(waits.id, how="wallet", reason="They asked", actor_id=None)
        assert refused.value.code == "not_in_the_house"
    assert transfers.wallet_of(member.id, "EUR").balance_minor == 2500 * ours
    assert invariants.look() == []


def test_a_second_payment_shows_beside_the_tickets(client: FlaskClient) -> None:
    order = place(make_event())
    first = order.payments[0]
    settle(first, "open")
    settle(first, "expired")
    order = db.session.get_one(Order, order.id, populate_existing=True)
    creating.prepare(order, "stripe")
    db.session.commit()
    second = order.payments[1]
    settle(second, "open")
    settle(second, "paid")
    settle(first, "paid")
    (mail,) = mails("money_arrived")
    assert mail.context["kind"] == "double_payment"
    text = client.get(address(order)).text
    assert "You’re going to" in text and "A second payment of €25.00 arrived for this order" in text


def test_a_record_that_differs_is_told_when_its_money_comes(app: Flask) -> None:
    payment = place(make_event()).payments[0]
    settle(payment, "open")
    settle(payment, "open", amount_minor=2400)
    assert mails("money_arrived") == []
    for _ in range(2):
        settle(payment, "paid", amount_minor=2400)
    (mail,) = mails("money_arrived")
    assert (mail.context["kind"], mail.context["amount_minor"]) == ("mismatch", 2400)


def test_a_review_without_money_that_is_dismissed_ends_the_order_with_a_mail(app: Flask) -> None:
    payment = place(make_event()).payments[0]
    settle(payment, "open")
    settle(payment, "open", amount_minor=2400)
    incident_decisions.resolve(incident().id, how="dismiss", reason="Nobody paid.", actor_id=None)
    assert subjects(payment.order) == ["order_cancelled"]
    assert fresh(payment).state is PaymentState.CANCELLED
    settle(payment, "expired", amount_minor=2400)
    assert fresh(payment).state is PaymentState.CANCELLED
    # Its money is news, and so is another difference.
    settle(payment, "paid", amount_minor=2400)
    assert fresh(payment).state is PaymentState.REVIEW and incident().amount_minor == 2400


# --- When the event is over -----------------------------------------------------------------------------


@pytest.mark.parametrize(("minutes", "buys"), [(1, False), (-1, True)])
def test_who_pays_when_the_event_is_over_has_no_worthless_ticket(
    app: Flask, monkeypatch: pytest.MonkeyPatch, minutes: int, buys: bool
) -> None:
    """What counts is when they paid, and not when we heard of it."""
    event = make_event()
    payment = place(event).payments[0]
    settle(payment, "open")
    ends = event.ends_at
    monkeypatch.setattr(clock, "now", lambda: ends + timedelta(hours=2))
    settle(payment, "paid", paid_at=ends + timedelta(minutes=minutes))
    assert fresh(payment).fulfilled is buys
    assert len(db.session.scalars(select(Ticket.id)).all()) == buys
    if not buys:
        assert incident().kind == mails("money_arrived")[0].context["kind"] == "event_over"
    assert {violation.code for violation in invariants.look()} <= {"mail_is_sent_or_failed"}


@pytest.mark.parametrize("name", ["stripe", "sumup"])
def test_providers_tell_when_it_was_paid(
    app: Flask, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    bank = BENCHES[name](sandbox, monkeypatch)
    payment = opened(sold(name))
    provider_id = payment.provider_id or ""
    assert bank.provider().fetch(provider_id).paid_at is None
    bank.do(provider_id, "pay")
    told = bank.provider().fetch(provider_id).paid_at
    assert told is not None and abs(told - clock.now()) < timedelta(minutes=1)


# --- Listing fees ---------------------------------------------------------------------------------------


@pytest.fixture
def olga(app: Flask) -> User:
    config.use(replace(config.get(), listing_fee=Decimal("12.50"), listing_fee_currency="EUR"))
    return make_organiser()


def fee(event: Event, olga: User) -> Payment:
    """An order for the event's fee, its page open."""
    order = publishing.publish(event, olga, "stripe")
    assert order is not None
    payment = order.payments[-1]
    settle(payment, "open")
    return fresh(payment)


@pytest.mark.parametrize("before", ["waived", "paid", "paid, and a draft again"])
def test_a_fee_that_was_not_needed_waits_for_a_person(olga: User, before: str) -> None:
    """It was closed, and the event published in another way; then its money came after all."""
    event = make_event("gala", organiser_id=olga.id, state=EventState.DRAFT)
    late = fee(event, olga)
    settle(late, "expired")
    if before == "waived":
        publishing.waive(event, make_user("boss@example.org", Role.ADMIN), "A friend of the house")
    else:
        config.use(replace(config.get(), listing_fee=Decimal("10.00")))
        settle(fee(event, olga), "paid")
    event = db.session.get_one(Event, event.id, populate_existing=True)
    assert event.state is EventState.PUBLISHED
    if before.endswith("again"):
        event.state = EventState.DRAFT
        db.session.commit()
    settle(late, "paid")
    waits = incident()
    assert (waits.kind, waits.amount_minor, fresh(late).fulfilled) == ("fee_again", 1250, False)
    assert transfers.balance(transfers.SUSPENSE, "EUR") == 1250
    assert [mail.context["kind"] for mail in mails("money_arrived")] == ["fee_again"]
    with pytest.raises(DomainError) as refused:
        incident_decisions.resolve(waits.id, how="issue", reason="Why not", actor_id=None)
    assert refused.value.code == "fee_not_needed"
    assert invariants.look() == []


# --- Wallets --------------------------------------------------------------------------------------------


def test_a_wallet_that_paid_for_a_cancelled_event_gets_back_what_it_gave(app: Flask) -> None:
    """The event is cancelled between the order and its payment. What went back had come out of the wallet."""
    member = make_user()
    gift: Any = {"key": "gift", "debit": "platform", "credit": f"wallet:{member.id}", "kind": "adjustment"}
    transfers.post(amount_minor=3000, currency="EUR", **gift)
    db.session.commit()
    event = make_event()
    order = place(event, user=member, email=member.email, provider="wallet")
    event.state = EventState.CANCELLED
    db.session.commit()
    payment = starting.open_at_provider(order)
    assert payment is not None and incident().kind == "event_cancelled"
    assert transfers.wallet_of(member.id, "EUR").balance_minor == 500
    incident_decisions.resolve(incident().id, how="refund", reason="It is off.", actor_id=None)
    assert transfers.wallet_of(member.id, "EUR").balance_minor == 3000
    assert transfers.balance(transfers.SUSPENSE, "EUR") == 0
    assert db.session.get_one(Order, order.id, populate_existing=True).state is OrderState.REFUNDED
    assert refunds.refundable_minor(fresh(payment)) == 0 and invariants.look() == []
