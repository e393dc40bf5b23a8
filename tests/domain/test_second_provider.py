"""Another provider behind the same rules: refunds without keys, organisers' accounts, unsigned rings.

The toy of docs/adding-a-provider.md has all of these, and Stripe none.
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
from domain import (
    checks,
    clock,
    decisions,
    doorbell,
    ledger,
    payments,
    polling,
    providers,
    receivers,
    refunds,
)
from domain.errors import DomainError
from domain.providers import ProviderError
from extensions import db
from models import (
    Connection,
    Event,
    Incident,
    Order,
    OrderState,
    OutboxMail,
    Payment,
    PaymentState,
    Refund,
    RefundState,
    TicketType,
    TimelineEntry,
    User,
)
from tests.support.benches import PebbleBench
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


def sold(**more: Any) -> Event:
    """An event that is sold through Pebble."""
    return make_event(providers=["pebble"], **more)


def opened(event: Event, **more: Any) -> Payment:
    """A payment whose page is open, for one ticket."""
    payment = payments.open_at_provider(place(event, **more))
    assert payment is not None and payment.state is PaymentState.OPEN
    return payment


def paid(bank: PebbleBench, event: Event | None = None) -> Payment:
    payment = opened(event or sold())
    bank.do(payment.provider_id or "", "pay")
    assert payments.reconcile(payment.id, door="test").verdict == "verified"
    return again(payment)


def again(payment: Payment) -> Payment:
    return db.session.get_one(Payment, payment.id, populate_existing=True)


def connect(bank: PebbleBench, user: User) -> str:
    """The organiser's own account, connected."""
    account, _ = bank.connect()
    now = clock.now()
    db.session.add(Connection(user_id=user.id, provider="pebble", account=account, connected_at=now))
    db.session.commit()
    return account


def told(payment: Payment) -> list[str]:
    query = select(TimelineEntry.what).filter_by(payment_id=payment.id).order_by(TimelineEntry.id)
    return list(db.session.scalars(query))


def alerts(key: str) -> list[OutboxMail]:
    return list(db.session.scalars(select(OutboxMail).where(OutboxMail.key.startswith(key))))


# --- Start ----------------------------------------------------------------------------------------------


def test_the_deadlines_are_the_provider_s(bank: PebbleBench) -> None:
    payment = opened(sold())
    assert payment.closes_at == payment.created_at + timedelta(minutes=75)
    assert payment.max_poll_duration_minutes == 75
    assert payment.polling_started_at == payment.state_since
    assert payment.account == "shop-1"
    stripe = place(make_event("stripe", providers=["stripe"])).payments[0]
    assert stripe.closes_at == stripe.created_at + timedelta(minutes=36)


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
    assert payments.reconcile(payment.id, door="test").verdict == "verified"
    assert ledger.balance(ledger.provider_account("pebble", account), "EUR") == -2500
    assert ledger.balance(ledger.sales_account(organiser.id), "EUR") == 2500


def test_an_organiser_without_an_account_cannot_be_paid(bank: PebbleBench) -> None:
    organiser = make_user("org@example.org")
    event = sold(organiser_id=organiser.id)
    assert receivers.offered(event) == []
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
        assert payments.reconcile(payment.id, door="test").verdict == "review"
    assert not again(payment).fulfilled


# --- Until the last word --------------------------------------------------------------------------------


def test_a_refusal_is_told_and_may_be_followed_by_a_payment(bank: PebbleBench) -> None:
    payment = opened(sold())
    bank.do(payment.provider_id or "", "decline")
    assert payments.reconcile(payment.id, door="test").verdict == "still_pending"
    assert again(payment).reason == "The card was refused."
    bank.do(payment.provider_id or "", "pay")
    assert payments.reconcile(payment.id, door="test").verdict == "verified"
    assert told(payment) == ["open", "declined", "paid", "fulfilled"]


def test_paid_between_the_reading_and_the_close_wins(
    bank: PebbleBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment = opened(sold())
    close = PebbleProvider.close

    def just_paid(self: PebbleProvider, provider_id: str, *rest: Any, **more: Any) -> Any:
        bank.do(provider_id, "pay")
        return close(self, provider_id, *rest, **more)

    monkeypatch.setattr(PebbleProvider, "close", just_paid)
    later(monkeypatch, 76)
    assert payments.reconcile(payment.id, door="sweep").verdict == "verified"
    assert again(payment).fulfilled


def test_at_its_deadline_it_is_closed_at_the_provider(
    bank: PebbleBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment = opened(sold())
    later(monkeypatch, 74)
    assert payments.reconcile(payment.id, door="sweep").verdict == "still_pending"
    later(monkeypatch, 2)
    assert payments.reconcile(payment.id, door="sweep").verdict == "failed"
    assert again(payment).state is PaymentState.CANCELLED
    assert bank.bank.payments[payment.provider_id or ""]["state"] == "closed"
    assert db.session.scalars(select(TicketType.held)).all() == [0]


@pytest.mark.parametrize("trouble", ["timeout_before", "http_500", "http_429", "garbage"])
def test_silence_at_the_deadline_is_no_last_word(
    bank: PebbleBench, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    payment = opened(sold())
    bank.trouble(trouble)
    later(monkeypatch, 600)
    assert payments.reconcile(payment.id, door="sweep").verdict == "error"
    assert again(payment).state is PaymentState.OPEN
    bank.trouble()
    bank.do(payment.provider_id or "", "pay")
    assert payments.reconcile(payment.id, door="sweep").verdict == "verified"


def test_a_broken_connection_fails_no_payment(bank: PebbleBench, monkeypatch: pytest.MonkeyPatch) -> None:
    organiser = make_user("org@example.org")
    connect(bank, organiser)
    payment = opened(sold(organiser_id=organiser.id))
    tokens = providers._credentials("pebble", payment.account)
    monkeypatch.setattr(tokens, "broken", True)
    later(monkeypatch, 600)
    outcome = payments.reconcile(payment.id, door="sweep")
    assert outcome.error is not None and outcome.error.code == "not_connected"
    assert again(payment).state is PaymentState.OPEN and not alerts("missing")


# --- A person's word on polling -------------------------------------------------------------------------


def test_polling_that_was_stopped_ends_with_a_reading(
    bank: PebbleBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment, admin = opened(sold()), make_user("admin@example.org")
    payments.stop_polling(payment.id, "The buyer called: they pay at the door.", admin.id)
    stopped = again(payment)
    assert not stopped.should_poll and not stopped.needs_polling(clock.now())
    assert stopped.next_check_at == stopped.closes_at
    entry = db.session.scalars(select(TimelineEntry).filter_by(what="polling_stopped")).one()
    assert (entry.actor_id, entry.text) == (admin.id, "The buyer called: they pay at the door.")
    with pytest.raises(DomainError):
        payments.stop_polling(payment.id, "Once more.", admin.id)
    bank.do(payment.provider_id or "", "pay")
    later(monkeypatch, 76)
    assert payments.reconcile(payment.id, door="sweep").verdict == "verified"


def test_more_time_is_more_polling(bank: PebbleBench, monkeypatch: pytest.MonkeyPatch) -> None:
    payment, admin = opened(sold()), make_user("admin@example.org")
    closes_at = payment.closes_at
    payments.stop_polling(payment.id, "Too long.", admin.id)
    payments.extend(payment.id, 60, admin.id, "The bank is slow today.")
    longer = again(payment)
    assert closes_at is not None and longer.closes_at == closes_at + timedelta(minutes=60)
    assert longer.should_poll and longer.max_poll_duration_minutes in (135, 136)
    later(monkeypatch, 100)
    assert again(payment).needs_polling(clock.now())
    assert payments.reconcile(payment.id, door="sweep").verdict == "still_pending"
    assert told(payment) == ["open", "polling_stopped", "polling_extended"]


@pytest.mark.parametrize(
    "act",
    [
        lambda payment: payments.stop_polling(payment.id, " ", None),
        lambda payment: payments.extend(payment.id, 60, None, ""),
        lambda payment: payments.extend(payment.id, 0, None, "Why not."),
        lambda payment: payments.extend(payment.id, polling.MOST_MINUTES + 1, None, "Why not."),
        lambda payment: payments.extend(payment.id + 1, 60, None, "Why not."),
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
        payments.stop_polling(payment.id, "Enough.", None)
    assert refused.value.code == "not_polled"
    with pytest.raises(DomainError):
        payments.extend(payment.id, 5, None, "More.")


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
    monkeypatch.setattr(doorbell, "UNSIGNED_NETWORK", RateLimitItemPerHour(10))
    monkeypatch.setattr(doorbell, "UNSIGNED_PAYMENT", RateLimitItemPerHour(3))
    payment, asked = opened(sold()), []
    monkeypatch.setattr(polling, "may_ask", lambda payment: asked.append(payment.id))
    for _ in range(5):
        ring(client, {"payment": payment.provider_id})
    assert len(asked) == 3
    assert [ring(client, {"payment": "peb_999"}) for _ in range(6)] == [200] * 5 + [429]


# --- Refunds without keys -------------------------------------------------------------------------------


def refund(payment: Payment, minor: int = 1000) -> Refund:
    return refunds.request(payment.id, minor, actor_id=None, reason="Asked for")


def given_back(bank: PebbleBench, payment: Payment) -> list[str]:
    return [made["amount"] for made in bank.bank.payments[payment.provider_id or ""]["returns"]]


def follow_up(made: Refund, monkeypatch: pytest.MonkeyPatch) -> Refund:
    """What the next sweep but some does with it."""
    later(monkeypatch, 10)
    assert refunds.due(clock.now(), 10) == [made.id]
    refunds.follow_up(made.id, patient=True)
    return db.session.get_one(Refund, made.id, populate_existing=True)


def mirrored(payment: Payment, monkeypatch: pytest.MonkeyPatch) -> list[Refund]:
    """The refunds after the payment was read again."""
    later(monkeypatch, 61)
    payments.reconcile(payment.id, door="test")
    return again(payment).refunds


def assert_all_holds() -> None:
    """Everything but the mail, which is sent by nobody here while the clock goes on."""
    assert {violation.code for violation in checks.run()} <= {"mail_is_sent_or_failed"}


def test_a_refund_is_noted_called_for_and_found_again_as_ours(
    bank: PebbleBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment = paid(bank)
    first, second = refund(payment), refund(payment, 700)
    assert (first.refunded_before_minor, second.refunded_before_minor) == (0, 1000)
    assert {first.state, second.state} == {RefundState.SUCCEEDED}
    assert given_back(bank, payment) == ["10.00", "7.00"]
    known = mirrored(payment, monkeypatch)
    assert [(r.amount_minor, r.made_at_provider) for r in known] == [(1000, False), (700, False)]
    assert again(payment).order.state is OrderState.PARTIALLY_REFUNDED
    assert_all_holds()


def test_a_lost_answer_is_found_in_the_sum_at_once(
    bank: PebbleBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment = paid(bank)
    bank.trouble("timeout_after", method="POST", times=1)
    made = refund(payment)
    assert made.state is RefundState.SUCCEEDED and given_back(bank, payment) == ["10.00"]
    (known,) = mirrored(payment, monkeypatch)
    assert known.id == made.id and known.provider_id and not known.made_at_provider
    assert_all_holds()


def test_a_lost_answer_is_found_in_the_sum_later(bank: PebbleBench, monkeypatch: pytest.MonkeyPatch) -> None:
    payment = paid(bank)
    lose_the_line(bank, monkeypatch, "timeout_after")
    made = refund(payment)
    assert made.state is RefundState.CREATED and given_back(bank, payment) == ["10.00"]
    bank.trouble()
    assert follow_up(made, monkeypatch).state is RefundState.SUCCEEDED
    assert given_back(bank, payment) == ["10.00"]


def lose_the_line(bank: PebbleBench, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """The next POST goes wrong in this way, and nothing answers after it."""
    call = bank.bank.call

    def answer(method: str, *rest: Any) -> tuple[int, str]:
        if method == "POST":
            bank.trouble(kind)
            try:
                return call(method, *rest)
            finally:
                bank.trouble("timeout_before")
        return call(method, *rest)

    monkeypatch.setattr(bank.bank, "call", answer)


def test_a_call_that_never_arrived_is_made_again_once(
    bank: PebbleBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment = paid(bank)
    bank.trouble("timeout_before", method="POST", times=1)
    made = refund(payment)
    assert made.state is RefundState.CREATED and given_back(bank, payment) == []
    assert follow_up(made, monkeypatch).state is RefundState.SUCCEEDED
    assert given_back(bank, payment) == ["10.00"]


def test_dead_after_the_call_is_not_paid_twice(bank: PebbleBench, monkeypatch: pytest.MonkeyPatch) -> None:
    payment = paid(bank)
    with pytest.MonkeyPatch.context() as patch:

        def dead(*_: object) -> None:
            raise SystemExit

        patch.setattr(refunds, "_judge", dead)
        with pytest.raises(SystemExit):
            refund(payment)
    db.session.rollback()
    (made,) = again(payment).refunds
    assert made.state is RefundState.CREATED and given_back(bank, payment) == ["10.00"]
    assert follow_up(made, monkeypatch).state is RefundState.SUCCEEDED
    assert given_back(bank, payment) == ["10.00"]


def test_of_two_that_follow_up_at_once_one_calls(bank: PebbleBench, monkeypatch: pytest.MonkeyPatch) -> None:
    payment = paid(bank)
    bank.trouble("timeout_before", method="POST", times=1)
    made = refund(payment)
    take = refunds._take_turn

    def both(refund_id: int, count: int) -> bool:
        # The other one was a moment faster.
        assert take(refund_id, count)
        return take(refund_id, count)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(refunds, "_take_turn", both)
        later(monkeypatch, 10)
        refunds.follow_up(made.id, patient=True)
    assert given_back(bank, payment) == []


def test_a_refund_that_never_gets_through_is_for_a_person(
    bank: PebbleBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment = paid(bank)
    bank.trouble("timeout_before", method="POST")
    made = refund(payment)
    for _ in range(refunds._MOST_CALLS - 1):
        assert made.state is RefundState.CREATED
        made = follow_up(made, monkeypatch)
    assert made.state is RefundState.REVIEW and made.next_check_at is None
    bank.trouble()
    assert given_back(bank, payment) == []
    (incident,) = db.session.scalars(select(Incident)).all()
    decisions.resolve(incident.id, how="dismiss", reason="It is not in the dashboard.", actor_id=None)
    assert db.session.get_one(Refund, made.id, populate_existing=True).state is RefundState.FAILED
    assert refund(payment).state is RefundState.SUCCEEDED
    assert given_back(bank, payment) == ["10.00"]
    assert_all_holds()


def ambiguous(bank: PebbleBench, monkeypatch: pytest.MonkeyPatch) -> tuple[Payment, Refund]:
    """Our call was lost while somebody in the dashboard gave back another sum."""
    payment = paid(bank)
    lose_the_line(bank, monkeypatch, "timeout_after")
    made = refund(payment)
    bank.trouble()
    bank.do(payment.provider_id or "", "refund", amount_minor=300)
    made = follow_up(made, monkeypatch)
    assert made.state is RefundState.REVIEW and given_back(bank, payment) == ["10.00", "3.00"]
    assert len(alerts("incident:refund_ambiguous")) == 1
    return payment, made


def test_a_sum_that_tells_nothing_is_for_a_person(bank: PebbleBench, monkeypatch: pytest.MonkeyPatch) -> None:
    payment, made = ambiguous(bank, monkeypatch)
    (incident,) = db.session.scalars(select(Incident)).all()
    assert incident.amount_minor == 1000 and incident.evidence["refunded_now_minor"] == 1300
    with pytest.raises(DomainError):
        decisions.resolve(incident.id, how="issue", reason="No.", actor_id=None)
    decisions.resolve(incident.id, how="refund", reason="It is in the dashboard.", actor_id=None)
    assert db.session.get_one(Refund, made.id, populate_existing=True).state is RefundState.SUCCEEDED
    known = mirrored(payment, monkeypatch)
    assert [(r.amount_minor, r.made_at_provider) for r in known] == [(1000, False), (300, True)]
    assert given_back(bank, payment) == ["10.00", "3.00"]
    assert_all_holds()


def test_the_report_s_own_list_clears_it_up(bank: PebbleBench, monkeypatch: pytest.MonkeyPatch) -> None:
    payment, made = ambiguous(bank, monkeypatch)
    known = mirrored(payment, monkeypatch)
    assert [(r.id == made.id, r.amount_minor, r.state) for r in known] == [
        (True, 1000, RefundState.SUCCEEDED),
        (False, 300, RefundState.SUCCEEDED),
    ]
    assert refunds.refundable_minor(again(payment)) == 1200
    assert_all_holds()


def test_a_refund_in_the_dashboard_is_mirrored(bank: PebbleBench, monkeypatch: pytest.MonkeyPatch) -> None:
    payment = paid(bank)
    bank.do(payment.provider_id or "", "refund", amount_minor=700)
    with pytest.raises(DomainError) as refused:
        refund(payment)
    assert refused.value.code == "refunds_differ" and given_back(bank, payment) == ["7.00"]
    (known,) = mirrored(payment, monkeypatch)
    assert (known.amount_minor, known.made_at_provider) == (700, True)
    assert refund(payment).state is RefundState.SUCCEEDED
    assert given_back(bank, payment) == ["7.00", "10.00"]
    assert_all_holds()


def test_a_silent_provider_is_not_asked_to_pay(bank: PebbleBench) -> None:
    payment = paid(bank)
    bank.trouble("timeout_before")
    with pytest.raises(DomainError) as refused:
        refund(payment)
    assert refused.value.code == "provider_silent" and again(payment).refunds == []


def test_a_refusal_is_the_end_of_it(bank: PebbleBench, monkeypatch: pytest.MonkeyPatch) -> None:
    payment = paid(bank)

    def refuse(self: PebbleProvider, *_: object, **__: object) -> None:
        raise ProviderError("Too old to be given back.", permanent=True, code="too_old")

    monkeypatch.setattr(PebbleProvider, "refund", refuse)
    made = refund(payment)
    assert (made.state, made.failure_reason) == (RefundState.FAILED, "Too old to be given back.")
    assert again(payment).order.state is OrderState.COMPLETED
    assert db.session.scalars(select(Order.state)).all() == [OrderState.COMPLETED]
