"""Opening a payment when the provider is away, refuses or forgets: an order lives as long as its hold."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from domain import clock
from domain.errors import DomainError
from domain.ledger import transfers
from domain.orders import managing
from domain.payments import poll_schedule, reconciling, settling, starting
from domain.post import mail_kinds
from domain.sweep import sweeping
from extensions import db
from models import Order, OrderState, OutboxMail, Payment, PaymentState, StockState, TicketType
from tests.domain.payments.test_races import take_the_lock_out
from tests.support.people import mails
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, make_user, place
from tests.support.threads import at_once

CREATES = {"method": "POST", "path": "^/stripe/v1/checkout/sessions$"}


def attempts(order: Order) -> list[Payment]:
    db.session.rollback()
    query = select(Payment).filter_by(order_id=order.id).order_by(Payment.attempt)
    return list(db.session.scalars(query.execution_options(populate_existing=True)))


def again(order: Order) -> Order:
    db.session.rollback()
    return db.session.get_one(Order, order.id, populate_existing=True)


def ended() -> list[tuple[str, str]]:
    """The mails that say how an order ended, each with its text."""
    kinds = ("payment_failed", "order_expired", "order_cancelled")
    query = select(OutboxMail).where(OutboxMail.kind.in_(kinds)).order_by(OutboxMail.id)
    return [(mail.kind, mail_kinds.compose(mail).text) for mail in db.session.scalars(query)]


def held() -> int:
    return db.session.scalars(select(func.sum(TicketType.held))).one()


def shown(sandbox: Sandbox) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = sandbox.get("payments")
    return made


def unanswered(sandbox: Sandbox) -> Order:
    """An order whose payment page the provider did not open: it was silent."""
    sandbox.faults("timeout_before", seconds=6, match=CREATES)
    order = place(make_event(), 2)
    payment = starting.open_at_provider(order)
    assert payment is not None and payment.state is PaymentState.CREATED
    return order


def test_the_session_outlives_the_hold(app: Flask, sandbox: Sandbox) -> None:
    payment = starting.open_at_provider(place(make_event()))
    assert payment is not None and payment.closes_at is not None and payment.expires_at is not None
    assert payment.closes_at == payment.created_at + timedelta(minutes=31) == payment.held_until
    assert abs(payment.expires_at - payment.closes_at - timedelta(minutes=60)) < timedelta(seconds=1)
    assert payment.params["expires_at"] == int(payment.expires_at.timestamp())


def test_when_the_hold_ends_the_session_is_closed_there(app: Flask, sandbox: Sandbox) -> None:
    order = place(make_event(), 2)
    payment = starting.open_at_provider(order)
    assert payment is not None
    sandbox.advance(30 * 60)
    sweeping.run("test")
    assert (attempts(order)[0].state, held()) == (PaymentState.OPEN, 2)
    before = len(sandbox.calls())
    sandbox.advance(65)
    sweeping.run("test")
    assert (attempts(order)[0].state, again(order).state, held()) == (
        PaymentState.EXPIRED,
        OrderState.EXPIRED,
        0,
    )
    about_it = [call for call in sandbox.calls()[before:] if (payment.provider_id or "") in call["path"]]
    calls = [(call["method"], call["path"].rsplit("/", 1)[-1][:6]) for call in about_it]
    assert calls == [("GET", "cs_tes"), ("POST", "expire"), ("GET", "cs_tes")]
    assert shown(sandbox)[0]["status"] == "expired"
    assert [kind for kind, _ in ended()] == ["order_expired"]


@pytest.mark.parametrize("behind", [0, 65, 20 * 60], ids=["right", "slow", "very slow"])
def test_an_outage_shorter_than_the_hold_costs_nobody_their_order(
    app: Flask, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, behind: int
) -> None:
    """The stored call is repeated unchanged; a clock of ours that is behind Stripe's does no harm."""
    real = clock.now
    monkeypatch.setattr(clock, "now", lambda: real() - timedelta(seconds=behind))
    order = unanswered(sandbox)
    sandbox.advance(25 * 60)
    sandbox.faults()
    sweeping.run("test")
    (payment,) = attempts(order)
    assert (payment.state, len(shown(sandbox)), held()) == (PaymentState.OPEN, 1, 2)
    sandbox.do(payment.provider_id or "", "pay")
    reconciling.reconcile(payment.id, door="test")
    assert again(order).state is OrderState.COMPLETED and ended() == []


def test_a_fault_that_the_provider_keeps_gets_another_key(app: Flask, sandbox: Sandbox) -> None:
    """Stripe repeats a 500 for as long as it keeps the key."""
    sandbox.faults("http_500", stored=True, times=1, match=CREATES)
    order = place(make_event(), 2)
    starting.open_at_provider(order)
    sandbox.faults()
    sandbox.advance(60)
    sweeping.run("test")
    old, new = attempts(order)
    assert (old.state, new.state, held()) == (PaymentState.FAILED, PaymentState.OPEN, 2)
    assert new.idempotency_key != old.idempotency_key and new.closes_at == old.closes_at
    # Another attempt goes on, so nobody is told of an end; the order was never anything but on its way.
    assert (again(order).state, ended()) == (OrderState.PENDING_VERIFICATION, [])
    sandbox.do(new.provider_id or "", "pay")
    reconciling.reconcile(new.id, door="test")
    assert again(order).state is OrderState.COMPLETED


def test_a_provider_that_only_faults_is_asked_as_long_as_the_hold_lives(app: Flask, sandbox: Sandbox) -> None:
    sandbox.faults("http_500", match=CREATES)
    order = place(make_event(), 2)
    starting.open_at_provider(order)
    for _ in range(2):
        sandbox.advance(300)
        sweeping.run("test")
    assert (held(), ended()) == (2, [])
    assert [payment.state for payment in attempts(order)][-1] is PaymentState.CREATED
    sandbox.advance(31 * 60)
    for _ in range(2):
        sweeping.run("test")
    assert (again(order).state, held()) == (OrderState.EXPIRED, 0)
    ((kind, text),) = ended()
    assert kind == "order_expired" and "did not open a page to pay on" in text


def test_a_call_that_is_too_old_for_its_parameters_is_made_anew(app: Flask, sandbox: Sandbox) -> None:
    """A person gave it more time than the stored call asks for."""
    order = unanswered(sandbox)
    admin = make_user("admin@example.org")
    poll_schedule.extend(order.payments[0].id, 120, admin.id, "Their bank is slow.")
    sandbox.advance(80 * 60)
    sandbox.faults()
    sweeping.run("test")
    old, new = attempts(order)
    assert (old.state, new.state) == (PaymentState.FAILED, PaymentState.OPEN)
    assert new.closes_at == old.closes_at and "at least 30 minutes" in old.reason
    assert (held(), ended(), len(shown(sandbox))) == (2, [], 1)


def test_what_was_made_is_found_before_anything_is_made_anew(app: Flask, sandbox: Sandbox) -> None:
    sandbox.faults("timeout_after", seconds=6, times=1, match=CREATES)
    order = place(make_event(), 2)
    starting.open_at_provider(order)
    admin = make_user("admin@example.org")
    poll_schedule.extend(order.payments[0].id, 24 * 60, admin.id, "Their bank is slow.")
    # The provider has forgotten the key by now; its list has not forgotten the session, which is over.
    sandbox.advance(23 * 3600 + 60)
    sweeping.run("test")
    (payment,), (session,) = attempts(order), shown(sandbox)
    assert (payment.provider_id, payment.state) == (session["id"], PaymentState.EXPIRED)
    assert [kind for kind, _ in ended()] == ["order_expired"]


def test_what_was_made_and_is_being_confirmed_is_found_when_the_hold_is_over(
    app: Flask, sandbox: Sandbox
) -> None:
    """Its answer was lost, its buyer went there all the same, and nobody looked for a day."""
    sandbox.faults("timeout_after", seconds=6, times=2, rate=1, match=CREATES)
    order = place(make_event(), 2)
    starting.open_at_provider(order)
    sandbox.faults()
    (made,) = shown(sandbox)
    sandbox.do(made["id"], "pay_later")
    sandbox.advance(24 * 3600)
    reconciling.refresh(again(order), door="order_page")
    (found,) = attempts(order)
    assert found.state is PaymentState.PROCESSING
    assert held() == 2


def test_what_is_refused_at_once_fails_in_our_words(app: Flask, sandbox: Sandbox) -> None:
    order = place(make_event(), 2)
    payment = order.payments[0]
    payment.params = {**payment.params, "customer_email": "nobody"}
    db.session.commit()
    starting.open_at_provider(order)
    (payment,) = attempts(order)
    assert (payment.state, again(order).state, held()) == (PaymentState.FAILED, OrderState.FAILED, 0)
    # Stripe's sentence is for the timeline and for staff.
    assert "Invalid email" in payment.reason and "Invalid email" in again(order).failure_reason
    ((kind, text),) = ended()
    assert kind == "payment_failed" and "refused to open a page to pay on" in text and "Invalid" not in text


def test_a_hold_that_ends_unopened_is_told_once(app: Flask, sandbox: Sandbox) -> None:
    order = unanswered(sandbox)
    sandbox.advance(40 * 60)
    sandbox.faults()
    for _ in range(3):
        sweeping.run("test")
    assert (again(order).state, again(order).stock_state) == (OrderState.EXPIRED, StockState.RELEASED)
    assert shown(sandbox) == [] and len(ended()) == 1


def test_a_silent_provider_ends_nothing(app: Flask, sandbox: Sandbox) -> None:
    """Whether it has the session is not known, so the order is kept past its hold, and is found again."""
    sandbox.faults("timeout_after", seconds=6, times=1, match=CREATES)
    order = place(make_event(), 2)
    starting.open_at_provider(order)
    (payment,) = attempts(order)
    sandbox.do(shown(sandbox)[0]["id"], "pay")
    sandbox.faults("http_500", match={"path": "^/stripe/"})
    sandbox.advance(40 * 60)
    sweeping.run("test")
    assert (attempts(order)[0].state, held(), ended()) == (PaymentState.CREATED, 2, [])
    sandbox.faults()
    sandbox.advance(300)
    sweeping.run("test")
    assert again(order).state is OrderState.COMPLETED


# --- Whom the end is told -------------------------------------------------------------------------------


def open_order(**more: Any) -> Order:
    order = place(make_event(**more), 2)
    starting.open_at_provider(order)
    return again(order)


def test_who_cancels_on_the_page_gets_no_mail_and_others_do(app: Flask, sandbox: Sandbox) -> None:
    managing.cancel(open_order(), door="order_page")
    assert ended() == []
    admin = make_user("admin@example.org")
    managing.cancel(open_order(slug="another"), door="admin", actor_id=admin.id)
    assert [kind for kind, _ in ended()] == ["order_cancelled"]


def test_an_empty_wallet_is_told_by_mail(app: Flask, sandbox: Sandbox) -> None:
    poor = place(make_event(), 1, user=make_user(), provider="wallet")
    with pytest.raises(transfers.InsufficientFunds):
        starting.open_at_provider(poor)
    ((kind, text),) = ended()
    assert kind == "payment_failed" and "not enough money in the wallet" in text


def test_another_way_to_pay_takes_over_quietly_unless_it_does_not_begin(app: Flask, sandbox: Sandbox) -> None:
    """Whoever changes the way to pay is paying, until it turns out that they cannot."""
    order = open_order(providers=["stripe", "sumup"])
    managing.pay_again(order.id, "sumup", payer_id=None)
    assert ended() == []
    order = again(order)
    assert order.event is not None
    order.event.sales_close_at = clock.now() - timedelta(minutes=1)
    db.session.commit()
    with pytest.raises(DomainError):
        managing.pay_again(order.id, "stripe", payer_id=None)
    assert (again(order).state, [kind for kind, _ in ended()]) == (
        OrderState.CANCELLED,
        ["order_cancelled"],
    )
    with pytest.raises(DomainError):
        managing.pay_again(order.id, "stripe", payer_id=None)
    assert len(mails("order_cancelled")) == 1


# --- Side by side, and died in between ------------------------------------------------------------------


def test_many_who_find_it_absent_make_one_fresh_attempt(app: Flask) -> None:
    order = place(make_event(), 2)
    payment_id = order.payments[0].id
    made = at_once(app, 3, lambda n: settling.replace(payment_id, f"door{n}", "Nothing is there."))
    assert len([one for one in made if isinstance(one, int)]) == made.count(None) - 1 == 1
    assert [payment.state for payment in attempts(order)] == [PaymentState.FAILED, PaymentState.CREATED]
    assert (held(), ended()) == (2, [])


def test_without_the_row_lock_only_an_index_stops_a_second(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control of the test above."""
    payment_id = place(make_event(), 2).payments[0].id
    take_the_lock_out(monkeypatch, 3)
    made = at_once(app, 3, lambda n: settling.replace(payment_id, f"door{n}", "Nothing is there."))
    assert any(isinstance(one, IntegrityError) for one in made)


def test_a_process_that_dies_after_it_replaced_one_loses_nothing(app: Flask, sandbox: Sandbox) -> None:
    order = place(make_event(), 2)
    assert settling.replace(order.payments[0].id, "sweep", "Nothing is there.") is not None
    sandbox.advance(60)
    sweeping.run("test")
    assert [payment.state for payment in attempts(order)] == [PaymentState.FAILED, PaymentState.OPEN]
    assert len(shown(sandbox)) == 1


def test_a_fresh_attempt_of_an_order_that_got_more_time_is_not_refused(app: Flask, sandbox: Sandbox) -> None:
    """Stripe lets no page live for more than a day; the hold may be given longer."""
    order = unanswered(sandbox)
    poll_schedule.extend(order.payments[0].id, poll_schedule.MOST_MINUTES, None, "The bank is slow.")
    sandbox.advance(120)
    sandbox.faults("http_500", stored=True, times=1, match=CREATES)
    sweeping.run("test")
    sandbox.advance(60)
    sandbox.faults()
    sweeping.run("test")
    *_, new = attempts(order)
    assert (new.state, held(), ended()) == (PaymentState.OPEN, 2, [])
    assert new.expires_at is not None and new.expires_at < new.created_at + timedelta(hours=24)
    assert new.closes_at is not None and new.closes_at > new.expires_at
