"""What a buyer reads while a payment is on its way, when it is cancelled, and when a person ends it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select

from domain import clock
from domain.errors import DomainError
from domain.ledger import transfers
from domain.orders import managing
from domain.payments import poll_schedule, settling, starting
from domain.providers import registry
from domain.sweep import sweeping
from extensions import db
from models import Incident, Order, OrderState, Payment, PaymentState, Role, StockState, TimelineEntry, User
from tests.support.people import log_in, mails, make_member, post
from tests.support.sandbox import Sandbox
from tests.support.shop import address, make_event, place, report_on, settled
from tests.support.tills import Till


def opened(till: Till) -> Payment:
    payment = starting.open_at_provider(place(make_event(providers=[till.name]), 2))
    assert payment is not None and payment.state is PaymentState.OPEN
    return payment


def again(payment: Payment) -> Payment:
    db.session.rollback()
    return db.session.get_one(Payment, payment.id, populate_existing=True)


def order_of(payment: Payment) -> Order:
    return db.session.get_one(Order, payment.order_id, populate_existing=True)


def come_back(client: FlaskClient, payment: Payment) -> str:
    """The provider sends the buyer back; the page they read."""
    order = order_of(payment)
    path = f"/pay/success/{order.code}/{order.secret}?session_id={payment.provider_id}"
    return client.get(path, follow_redirects=True).text


# --- Back from the provider -----------------------------------------------------------------------------


def test_who_comes_back_before_the_word_need_not_pay_again(
    client: FlaskClient, sandbox: Sandbox, till: Till
) -> None:
    payment = opened(till)
    assert "Continue to payment" in client.get(address(order_of(payment))).text
    page = come_back(client, payment)
    assert "We are confirming your payment" in page and "You don’t need to pay again" in page
    assert "a quarter of an hour" in page and "help@example.org" in page and 'data-refresh="soon"' in page
    # Paying again is there for whoever has not paid, behind all that.
    behind = page.index("<summary>I have not paid</summary>")
    assert "Not paid yet" not in page and page.index("Continue to payment") > behind
    assert page.index("Cancel this order") > behind and page.index("Check again") < behind
    sandbox.advance(20 * 60)
    payment = again(payment)
    payment.returned_at = clock.now() - timedelta(minutes=16)
    db.session.commit()
    assert "It takes longer than it should" in client.get(address(order_of(payment))).text
    sandbox.do(payment.provider_id or "", "pay")
    sandbox.advance(5)
    assert "Your tickets" in client.get(address(order_of(payment))).text


def test_who_comes_back_refused_reads_that(client: FlaskClient, sandbox: Sandbox, till: Till) -> None:
    payment = opened(till)
    sandbox.do(payment.provider_id or "", "decline")
    page = come_back(client, payment)
    assert "The last try did not work. The card was declined." in page and "Continue to payment" in page
    # A second try that is not known yet is confirmed, and the next refusal ends that.
    sandbox.advance(5)
    assert "We are confirming your payment" in come_back(client, payment)
    sandbox.do(payment.provider_id or "", "decline")
    sandbox.advance(5)
    assert "The last try did not work" in client.get(address(order_of(payment))).text


def test_who_says_that_they_did_not_pay_may_pay(client: FlaskClient, sandbox: Sandbox, till: Till) -> None:
    payment = opened(till)
    come_back(client, payment)
    order = order_of(payment)
    page = client.get(f"/pay/cancel/{order.code}/{order.secret}", follow_redirects=True).text
    assert "You have not paid yet" in page and "We are confirming" not in page


def test_the_page_counts_down_the_hold(client: FlaskClient) -> None:
    order = settled(place(make_event(), 2), "open", expires_at=clock.now() + timedelta(minutes=91))
    seconds = int(client.get(address(order)).text.split('data-seconds="')[1].split('"')[0])
    assert 30 * 60 < seconds <= 31 * 60


# --- Cancelling -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", ["http_500", "timeout_before"])
def test_a_cancellation_without_an_answer_is_made_good(
    client: FlaskClient, sandbox: Sandbox, till: Till, trouble: str
) -> None:
    payment = opened(till)
    page = address(order_of(payment))
    client.get(page)
    sandbox.faults(trouble, seconds=6, match={"path": till.api})
    said = client.get(post(client, f"{page}/cancel", page=page).location).text
    assert "We are cancelling this order" in said and "has not confirmed" in said
    assert order_of(payment).stock_state is StockState.HELD and "Continue to payment" not in said
    with pytest.raises(DomainError) as being:
        managing.pay_again(payment.order_id, till.name, payer_id=None)
    assert being.value.code == "cancelling"
    with pytest.raises(DomainError, match="no more time"):
        poll_schedule.extend(payment.id, 30, None, "Please.")
    sandbox.faults()
    sandbox.advance(60)
    sweeping.run("test")
    order = order_of(payment)
    assert (order.state, order.stock_state) == (OrderState.CANCELLED, StockState.RELEASED)
    assert again(payment).state is PaymentState.CANCELLED
    # It was not done when they left the page, so a mail says that it is.
    assert len(mails("order_cancelled")) == 1
    assert "This order was cancelled" in client.get(page).text


def test_a_cancellation_that_is_refused_says_so(
    client: FlaskClient, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, till: Till
) -> None:
    """409: somebody is paying at this moment, and the page stays open there."""
    payment = opened(till)
    adapter = type(registry.get(till.name))
    monkeypatch.setattr(adapter, "close", lambda self, provider_id, key, **more: self.fetch(provider_id))
    with pytest.raises(DomainError) as said:
        managing.cancel(order_of(payment), door="order_page")
    assert said.value.code == "cancelling"
    assert "We are cancelling this order" in client.get(address(order_of(payment))).text
    monkeypatch.undo()
    sandbox.advance(60)
    sweeping.run("test")
    assert order_of(payment).state is OrderState.CANCELLED


def test_paid_before_the_cancellation_wins(client: FlaskClient, sandbox: Sandbox, till: Till) -> None:
    payment = opened(till)
    sandbox.faults("http_500", match={"path": till.api})
    with pytest.raises(DomainError):
        managing.cancel(order_of(payment), door="order_page")
    sandbox.faults()
    sandbox.do(payment.provider_id or "", "pay")
    sandbox.advance(60)
    sweeping.run("test")
    assert order_of(payment).state is OrderState.COMPLETED


def test_what_was_never_opened_is_cancelled_as_well(client: FlaskClient, sandbox: Sandbox) -> None:
    sandbox.faults("http_500", match={"path": "^/stripe/"})
    order = place(make_event(), 2)
    payment = starting.open_at_provider(order)
    assert payment is not None and payment.state is PaymentState.CREATED
    with pytest.raises(DomainError):
        managing.cancel(order, door="order_page")
    sandbox.faults()
    sandbox.advance(60)
    sweeping.run("test")
    assert order_of(payment).state is OrderState.CANCELLED and sandbox.get("payments") == []


# --- A person ends it -----------------------------------------------------------------------------------


def confirming() -> Payment:
    """A payment that a bank has been confirming for a day."""
    order = settled(place(make_event(), 2), "open", "processing")
    payment = order.payments[0]
    payment.state_since = clock.now() - timedelta(days=1)
    db.session.commit()
    return payment


def test_a_payment_stuck_at_a_bank_is_ended_by_a_person(client: FlaskClient) -> None:
    make_member("boss@example.org", Role.ADMIN)
    log_in(client, "boss@example.org")
    payment = confirming()
    boss = db.session.scalars(select(User).filter_by(email="boss@example.org")).one()
    path = f"/admin/orders/{order_of(payment).code}"
    assert "End this payment" in client.get(path).text
    fields = {"payment_id": str(payment.id), "state": "failed"}
    post(client, f"{path}/decide", page=path, note=" ", **fields)
    assert again(payment).state is PaymentState.PROCESSING
    post(client, f"{path}/decide", page=path, note="The bank lost it, says Ada.", **fields)
    payment, order = again(payment), order_of(payment)
    assert (payment.state, order.state) == (PaymentState.FAILED, OrderState.FAILED)
    assert order.stock_state is StockState.RELEASED
    decided = db.session.scalars(select(TimelineEntry).filter_by(what="decided")).one()
    assert decided.actor_id == boss.id and "The bank lost it" in decided.text
    # What an admin writes down is not for the buyer.
    page = client.get(address(order)).text
    assert "ended by hand" in page and "says Ada" not in page
    assert len(mails("payment_failed")) == 1
    # The bank may still confirm it, and nothing else opens it again.
    assert payment.next_check_at is not None and payment.next_check_at <= clock.now() + timedelta(days=1)
    settling.settle(payment.id, report_on(payment, "processing"), door="test")
    assert (again(payment).state, order_of(payment).state) == (PaymentState.FAILED, OrderState.FAILED)
    settling.settle(payment.id, report_on(payment, "paid"), door="test")
    incident = db.session.scalars(select(Incident)).one()
    assert (incident.kind, incident.amount_minor) == ("late_money", 5000)
    assert (order_of(payment).state, order_of(payment).tickets) == (OrderState.REVIEW, [])
    assert transfers.balance(transfers.SUSPENSE, "EUR") == 5000


def test_a_bank_gets_its_time(client: FlaskClient) -> None:
    order = settled(place(make_event(), 2), "open", "processing")
    boss = make_member("boss@example.org", Role.ADMIN)
    with pytest.raises(DomainError) as early:
        settling.override(order.payments[0].id, state=PaymentState.FAILED, actor_id=boss.id, note="Now.")
    assert early.value.code == "not_in_review"


# --- A page without an address --------------------------------------------------------------------------


def test_an_open_page_without_an_address_is_asked_for_again(
    client: FlaskClient, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, till: Till
) -> None:
    without_address(monkeypatch, till)
    order = place(make_event(providers=[till.name]), 2)
    payment = starting.open_at_provider(order)
    assert payment is not None and payment.state is PaymentState.CREATED
    assert "The payment page did not answer" in client.get(address(order)).text
    assert "no address" in again(payment).last_error
    monkeypatch.undo()
    sandbox.advance(60)
    sweeping.run("test")
    assert (again(payment).state, len(sandbox.get("payments"))) == (PaymentState.OPEN, 1)
    assert "Continue to payment" in client.get(address(order)).text


def test_a_page_that_never_has_an_address_fails_in_words(
    client: FlaskClient, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, till: Till
) -> None:
    without_address(monkeypatch, till)
    order = place(make_event(providers=[till.name]), 2)
    payment = starting.open_at_provider(order)
    assert payment is not None
    for _ in range(4):
        sandbox.advance(60)
        sweeping.run("test")
    order = order_of(payment)
    assert (order.state, order.stock_state) == (OrderState.FAILED, StockState.RELEASED)
    assert len(mails("payment_failed")) == 1
    assert "did not open a page to pay on" in client.get(address(order)).text
    # It is closed there, too, so that nobody can pay what nobody is waiting for.
    (told,) = sandbox.get("payments")
    assert told["status"] == "expired" and again(payment).provider_id == told["id"]


def test_an_open_page_keeps_its_address(client: FlaskClient) -> None:
    """A reading that does not repeat it is no reason to take the button away."""
    order = settled(place(make_event()), "open")
    payment = order.payments[0]
    settling.settle(payment.id, report_on(payment, "open", url=None), door="test")
    assert again(payment).url == "https://pay.example.org/session"


def without_address(monkeypatch: pytest.MonkeyPatch, till: Till) -> None:
    """Let the provider's answers say nothing of where a payment is made."""
    adapter = type(registry.get(till.name))
    read = adapter._report  # type: ignore[attr-defined]

    def report(self: object, *rest: object, **more: object) -> object:
        return replace(read(self, *rest, **more), url=None)

    monkeypatch.setattr(adapter, "_report", report)
