"""What a buyer may do with an order afterwards, and what nobody else may do with it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from flask import Flask
from sqlalchemy import select

from domain import addresses, clock
from domain.errors import DomainError
from domain.ledger import transfers
from domain.orders import managing
from domain.payments import reconciling, settling, starting
from domain.people import accounts
from domain.providers import stripe as stripe_adapter
from domain.sweep import sweeping
from extensions import db
from models import Order, OrderState, Payment, PaymentState, TicketType, User
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, make_user, place, report_on


def closed(order: Order) -> Order:
    """The order after its payment has expired at the provider."""
    payment = order.payments[0]
    settling.settle(payment.id, report_on(payment, "open"), door="test")
    payment = db.session.get_one(Payment, payment.id, populate_existing=True)
    settling.settle(payment.id, report_on(payment, "expired"), door="test")
    return db.session.get_one(Order, order.id, populate_existing=True)


def rich(user: User, minor: int = 9000) -> None:
    transfers.post(
        key=f"gift:{user.id}",
        debit=transfers.PLATFORM,
        credit=transfers.wallet_account(user.id),
        amount_minor=minor,
        currency="EUR",
        kind="adjustment",
    )
    db.session.commit()


def test_a_link_alone_does_not_open_its_members_wallet(app: Flask) -> None:
    """A guest's order becomes the member's whose address was typed; who typed it still has the link."""
    victim, other = make_user(), make_user("other@example.org")
    rich(victim)
    order = closed(place(make_event(), 2, email=victim.email))
    accounts.claim_for(victim)
    db.session.commit()
    for payer_id in (None, other.id):
        with pytest.raises(DomainError) as refused:
            managing.pay_again(order.id, "wallet", payer_id=payer_id)
        assert refused.value.code == "not_your_wallet"
    assert transfers.wallet_of(victim.id, "EUR").balance_minor == 9000
    managing.pay_again(order.id, "wallet", payer_id=victim.id)
    assert transfers.wallet_of(victim.id, "EUR").balance_minor == 4000
    assert db.session.get_one(Order, order.id, populate_existing=True).state is OrderState.COMPLETED


@pytest.mark.parametrize("whose", ["event", "ticket_type"])
def test_an_old_order_is_no_way_around_the_end_of_a_sale(app: Flask, whose: str) -> None:
    event = make_event()
    order = closed(place(event))
    row = event if whose == "event" else event.ticket_types[0]
    row.sales_close_at = clock.now() - timedelta(minutes=1)
    db.session.commit()
    with pytest.raises(DomainError) as refused:
        managing.pay_again(order.id, "stripe", payer_id=None)
    assert refused.value.code == "sales_over"
    assert db.session.get_one(TicketType, event.ticket_types[0].id, populate_existing=True).held == 0


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        (" Ada@Example.ORG ", "ada@example.org"),
        ("ada@exämple.org", "ada@xn--exmple-cua.org"),
        ("ünï@example.org", None),
    ],
)
def test_an_address_that_is_taken_is_one_that_mail_is_sent_to(typed: str, kept: str | None) -> None:
    if kept is not None:
        assert addresses.normal(typed) == kept
        return
    with pytest.raises(DomainError, match="does not look right"):
        addresses.normal(typed)


def test_a_wallet_payment_that_was_not_started_is_cancelled_and_not_paid(app: Flask) -> None:
    member = make_user()
    rich(member)
    order = place(make_event(), 2, user=member, provider="wallet")
    assert [payment.state for payment in order.payments] == [PaymentState.CREATED]
    after = managing.cancel(order, door="order_page")
    assert (after.state, after.tickets) == (OrderState.CANCELLED, [])
    assert [payment.state for payment in after.payments] == [PaymentState.CANCELLED]
    assert transfers.wallet_of(member.id, "EUR").balance_minor == 9000
    assert db.session.scalars(select(TicketType.held)).one() == 0


def test_a_cancel_whose_answer_was_lost_ends_as_cancelled(app: Flask, sandbox: Sandbox) -> None:
    payment = starting.open_at_provider(place(make_event()))
    assert payment is not None
    order_id = payment.order_id
    sandbox.faults("timeout_after", rate=1, match={"method": "POST", "path": "/expire"}, times=1)
    with pytest.raises(DomainError) as silent:
        managing.cancel(payment.order, door="order_page")
    assert silent.value.code == "provider_silent"
    sandbox.faults()
    sandbox.advance(60)
    sweeping.run("test")
    order = db.session.get_one(Order, order_id, populate_existing=True)
    assert (order.state, order.payments[0].state) == (OrderState.CANCELLED, PaymentState.CANCELLED)


def test_a_refused_create_is_looked_for_on_one_page_while_a_buyer_waits(
    app: Flask, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the list is longer than that, the sweep reads it: the buyer gets the waiting page at once."""
    monkeypatch.setattr(stripe_adapter, "_PAGE", 2)
    event = make_event()
    for number in range(3):
        starting.open_at_provider(place(event, form_token=f"t{number}"))
    order = place(event, form_token="refused")
    payment = order.payments[0]
    payment.params = {**payment.params, "line_items": []}
    db.session.commit()
    payment_id, began = payment.id, clock.now().timestamp()
    starting.open_at_provider(order)
    asked = [call for call in sandbox.calls(began) if call["method"] == "GET"]
    payment = db.session.get_one(Payment, payment_id, populate_existing=True)
    assert (len(asked), payment.state) == (1, PaymentState.CREATED)
    reconciling.reconcile(payment_id, door="sweep", patient=True)
    payment = db.session.get_one(Payment, payment_id, populate_existing=True)
    assert payment.state is PaymentState.FAILED
