"""Refused attempts: each counts once, however it is heard of, and says in our words why an order failed."""

from __future__ import annotations

import json

import pytest
import requests
import stripe
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select

from domain.payments import reconciling, settling, starting, suspicious_patterns
from domain.post import mail_kinds
from domain.providers import failure_reasons
from domain.providers.contract import Decline, Report
from domain.providers.failure_reasons import Reason
from domain.providers.stripe import StripeProvider
from domain.providers.stripe_reasons import why
from domain.sweep import sweeping
from extensions import db
from models import Order, OrderState, OutboxMail, Payment, PaymentState, TimelineEntry
from tests.support.sandbox import Sandbox
from tests.support.shop import address, make_event, place, report_on
from tests.support.tills import Till
from tests.support.web import ring

SIX = 6


def opened(till_name: str = "stripe", form_token: str = "x") -> Payment:
    event = make_event(f"event-{form_token}", providers=[till_name])
    payment = starting.open_at_provider(place(event, form_token=form_token))
    assert payment is not None and payment.state is PaymentState.OPEN
    return payment


def again(payment: Payment) -> Payment:
    db.session.rollback()
    return db.session.get_one(Payment, payment.id, populate_existing=True)


def refused(payment: Payment) -> list[TimelineEntry]:
    query = select(TimelineEntry).filter_by(payment_id=payment.id, what="declined")
    return list(db.session.scalars(query.order_by(TimelineEntry.id)))


def patterns() -> list[str]:
    query = select(OutboxMail.key).where(OutboxMail.key.startswith("suspicious:"))
    return [key.split(":")[1] for key in db.session.scalars(query)]


@pytest.mark.parametrize("read", ["each", "once"])
def test_six_declines_of_one_card_are_six(app: Flask, sandbox: Sandbox, till: Till, read: str) -> None:
    payment = opened(till.name)
    for _ in range(SIX):
        sandbox.do(payment.provider_id or "", "decline")
        if read == "each":
            reconciling.reconcile(payment.id, door="test")
    for _ in range(2):
        reconciling.reconcile(payment.id, door="test")
    entries = refused(payment)
    assert len({entry.data[suspicious_patterns.ATTEMPT] for entry in entries}) == len(entries) == SIX
    assert patterns() == ["order"]
    assert (again(payment).state, again(payment).reason_code) == (PaymentState.OPEN, Reason.CARD_REFUSED)


def test_what_is_known_costs_no_call(app: Flask, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The intent's charges are read when a decline is new, by a reading or by the sweep's list."""
    several = [opened(form_token=f"t{n}") for n in range(3)]
    for payment in several:
        sandbox.do(payment.provider_id or "", "decline")
    sweeping.run("test")
    assert [len(refused(payment)) for payment in several] == [1, 1, 1]
    real = StripeProvider.declines
    asked: list[str] = []

    def counted(self: StripeProvider, report: Report, **more: bool) -> tuple[Decline, ...]:
        asked.append(report.reference)
        return real(self, report, **more)

    monkeypatch.setattr(StripeProvider, "declines", counted)
    reconciling.reconcile(several[0].id, door="test")
    sandbox.advance(300)
    sweeping.run("test")
    assert asked == []
    sandbox.do(several[0].provider_id or "", "decline")
    sandbox.advance(300)
    sweeping.run("test")
    assert [len(refused(payment)) for payment in several] == [2, 1, 1]
    assert asked == [several[0].reference]


def not_authenticated(payment: Payment) -> str:
    """The buyer's bank asks for a code, and they fail; the body of the event that tells of it."""
    form = {"number": "4000002500003155", "expiry": "12/34", "cvc": "123", "name": "Ada"}
    for do in ("pay", "fail_authentication"):
        answer = requests.post(payment.url or "", data={**form, "do": do}, timeout=30)
        assert answer.ok
    base = f"{(payment.url or '').split('/stripe/')[0]}/stripe"
    client = stripe.StripeClient("sk_test_kassa_sandbox", base_addresses={"api": base})
    newest = client.v1.events.list({"type": "payment_intent.payment_failed", "limit": 1}).data[0]
    return json.dumps(newest.to_dict())


def test_attempts_without_a_charge_are_told_apart_by_their_rings(
    client: FlaskClient, sandbox: Sandbox
) -> None:
    payment = opened()
    first = not_authenticated(payment)
    # It is read before it rings, and rings twice; that is one attempt.
    reconciling.reconcile(payment.id, door="test")
    for _ in range(2):
        assert ring(client, first).status_code == 200
        reconciling.reconcile(payment.id, door="test")
    assert len(refused(payment)) == 1
    second = not_authenticated(payment)
    for body in (second, first):
        assert ring(client, body).status_code == 200
    reconciling.reconcile(payment.id, door="test")
    assert len(refused(payment)) == 2
    assert again(payment).reason_code == Reason.NOT_CONFIRMED
    # A refused card among them is another one.
    sandbox.do(payment.provider_id or "", "decline")
    third = not_authenticated(payment)
    assert ring(client, third).status_code == 200
    assert len(refused(payment)) == 4


def test_a_decline_is_why_it_failed(client: FlaskClient, sandbox: Sandbox, till: Till) -> None:
    """Whether anybody read it before its end or not: in page and mail by our words, for staff by theirs."""
    for number, seen in enumerate((True, False)):
        payment = opened(till.name, form_token=f"t{number}")
        sandbox.do(payment.provider_id or "", "decline")
        if seen:
            reconciling.reconcile(payment.id, door="test")
        sandbox.advance(till.open_seconds)
        sweeping.run("test")
        order = db.session.get_one(Order, payment.order_id, populate_existing=True)
        assert (order.state, order.failure_code) == (OrderState.FAILED, Reason.CARD_REFUSED)
        assert len(refused(payment)) == 1
        said = failure_reasons.words(Reason.CARD_REFUSED)
        page = client.get(address(order)).text
        assert "The payment did not go through" in page and said in page and order.failure_reason not in page
        query = select(OutboxMail).filter_by(kind="payment_failed", order_id=order.id)
        mail = mail_kinds.compose(db.session.scalars(query).one()).text
        assert said in mail and order.failure_reason not in mail


def test_nobody_tried_is_expired(app: Flask, sandbox: Sandbox, till: Till) -> None:
    payment = opened(till.name)
    sandbox.advance(till.open_seconds)
    sweeping.run("test")
    order = db.session.get_one(Order, payment.order_id, populate_existing=True)
    assert (order.state, order.failure_code) == (OrderState.EXPIRED, "")


def test_a_thief_reads_no_more_than_anybody() -> None:
    for code in ("stolen_card", "lost_card", "fraudulent", "pickup_card", "merchant_blacklist"):
        assert why({"code": "card_declined", "decline_code": code, "message": "Stolen."})[0] is (
            Reason.CARD_REFUSED
        )
    assert why({"code": "card_declined", "decline_code": "insufficient_funds"})[0] is Reason.NO_FUNDS
    assert why({"failure_code": "expired_card", "outcome": None})[0] is Reason.CARD_EXPIRED
    assert all(failure_reasons.words(reason) for reason in Reason)
    assert failure_reasons.words("") == failure_reasons.words("of a version to come") == ""


def test_fifteen_from_one_address_are_told(app: Flask) -> None:
    """Also where each order has too few of its own."""
    event = make_event(capacity=50)
    for number in range(4):
        order = place(event, form_token=f"t{number}", client_address="192.0.2.7")
        payment = order.payments[0]
        settling.settle(payment.id, report_on(payment, "open"), door="test")
        for attempt in range(4):
            declines = tuple(
                Decline(f"ch_{number}_{seen}", Reason.NO_FUNDS, "Not enough.") for seen in range(attempt + 1)
            )
            settling.settle(payment.id, report_on(again(payment), "open", declines=declines), door="test")
    assert patterns() == ["address"]
