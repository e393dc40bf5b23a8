"""Paying at SumUp's page: declined, then paid. Connecting is in tests/browser/test_organiser.py."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import expect
from sqlalchemy import select

from extensions import db
from models import Payment, PaymentState
from tests.browser.house import House
from tests.browser.visitor import Visitor

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]
Visit = Callable[..., Visitor]
CARD, DECLINED = "4200 0000 0000 0091", "4000 0000 0000 0002"


def payment_of(house: House, email: str) -> Payment:
    provider_id = house.session_of(email)
    return db.session.scalars(select(Payment).filter_by(provider="sumup", provider_id=provider_id)).one()


def test_the_demo_sells_through_its_organisers_account(house: House, visit: Visit) -> None:
    guest = visit()
    guest.order("pier-session", "Bench", 1, "Pia Pier", "pia@example.org")
    guest.page.wait_for_url("**/sumup/pay/**")
    guest.look("sumup-pay")
    guest.pay(DECLINED)
    guest.see(re.compile("declined"))
    guest.pay(CARD)
    guest.see("Payment successful")
    guest.look("sumup-paid")
    guest.page.get_by_role("link", name=re.compile("^Back to")).click()
    guest.see(re.compile("You’re going to Pier Session"))
    guest.look("sumup-order-paid")
    expect(guest.page.locator(".admit-code")).to_have_count(1)
    paid = payment_of(house, "pia@example.org")
    assert (paid.account, paid.state) == ("MPIERNIN", PaymentState.PAID)
