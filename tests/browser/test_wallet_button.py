"""Paying by a wallet's button on our own page, on a phone; the button is the sandbox's stand-in."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import expect
from sqlalchemy import select

from domain.orders import managing
from extensions import db
from models import Order, Payment
from tests.browser.house import House
from tests.browser.visitor import Visitor

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]
Visit = Callable[..., Visitor]


def test_apple_pay_after_a_refused_card(house: House, visit: Visit) -> None:
    guest, plain = visit(), visit(javascript=False)
    guest.order("lantern-night", "Seat", 1, "Wanda Wallet", "wanda@example.org")
    order_id = db.session.scalars(select(Order.id).where(Order.email == "wanda@example.org")).one()
    payment = managing.pay_again(order_id, "stripe", payer_id=None, method="apple_pay")
    assert payment is not None and payment.url is not None

    guest.go(payment.url)
    guest.see("£22.00 to pay")
    button = guest.page.frame_locator("#wallet iframe")
    expect(button.get_by_role("button", name="Pay with Apple Pay")).to_be_visible()
    expect(guest.page.locator("#wallet-words")).to_be_hidden()
    guest.look("wallet-button")
    plain.go(payment.url)
    plain.see("Apple Pay needs JavaScript")
    plain.look("wallet-button-plain")

    guest.foresee("402")
    button.get_by_label("Card in the wallet").select_option("4000000000000002")
    button.get_by_role("button", name="Pay with Apple Pay").click()
    guest.see("Your card was declined. Nothing was charged. You can try again.")
    button.get_by_label("Card in the wallet").select_option("4000002500003155")
    button.get_by_role("button", name="Pay with Apple Pay").click()
    guest.page.get_by_role("button", name="Complete authentication").click()
    guest.see("You’re going to Lantern Night: Strings by Candlelight")
    assert "secret" not in guest.page.url
    db.session.rollback()
    assert db.session.get_one(Payment, payment.id).used_method == "apple_pay"
