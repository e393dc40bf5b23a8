"""What a buyer may do with an order afterwards, and what nobody else may do with it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from flask import Flask

from domain import clock, ledger, orders, payments
from domain.errors import DomainError
from extensions import db
from models import Order, OrderState, Payment, TicketType, User
from tests.support.shop import make_event, make_user, place, report_on


def closed(order: Order) -> Order:
    """The order after its payment has expired at the provider."""
    payment = order.payments[0]
    payments.settle(payment.id, report_on(payment, "open"), door="test")
    payment = db.session.get_one(Payment, payment.id, populate_existing=True)
    payments.settle(payment.id, report_on(payment, "expired"), door="test")
    return db.session.get_one(Order, order.id, populate_existing=True)


def rich(user: User, minor: int = 9000) -> None:
    ledger.post(
        key=f"gift:{user.id}",
        debit=ledger.PLATFORM,
        credit=ledger.wallet_account(user.id),
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
    orders.claim_for(victim)
    db.session.commit()
    for payer_id in (None, other.id):
        with pytest.raises(DomainError) as refused:
            orders.pay_again(order.id, "wallet", payer_id=payer_id)
        assert refused.value.code == "not_your_wallet"
    assert ledger.wallet_of(victim.id, "EUR").balance_minor == 9000
    orders.pay_again(order.id, "wallet", payer_id=victim.id)
    assert ledger.wallet_of(victim.id, "EUR").balance_minor == 4000
    assert db.session.get_one(Order, order.id, populate_existing=True).state is OrderState.COMPLETED


@pytest.mark.parametrize("whose", ["event", "ticket_type"])
def test_an_old_order_is_no_way_around_the_end_of_a_sale(app: Flask, whose: str) -> None:
    event = make_event()
    order = closed(place(event))
    row = event if whose == "event" else event.ticket_types[0]
    row.sales_close_at = clock.now() - timedelta(minutes=1)
    db.session.commit()
    with pytest.raises(DomainError) as refused:
        orders.pay_again(order.id, "stripe", payer_id=None)
    assert refused.value.code == "sales_over"
    assert db.session.get_one(TicketType, event.ticket_types[0].id, populate_existing=True).held == 0


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        (" Ada@Example.ORG ", "ada@example.org"),
        ("ada@exämple.org", "ada@exämple.org"),
        ("ünï@example.org", None),
    ],
)
def test_an_address_that_is_taken_is_one_that_mail_is_sent_to(typed: str, kept: str | None) -> None:
    if kept is not None:
        assert orders.clean_email(typed) == kept
        return
    with pytest.raises(DomainError, match="does not look right"):
        orders.clean_email(typed)
