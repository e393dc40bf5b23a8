"""Connecting SumUp and selling through it; a guest pays there, never comes back, and gets the ticket."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from playwright.sync_api import expect
from sqlalchemy import select

from domain import accounts, clock, demo, sweep
from extensions import db
from models import Payment, PaymentState, Role
from tests.browser.house import House
from tests.browser.visitor import DESK, Visitor
from tests.support.people import PASSWORD

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]
Visit = Callable[..., Visitor]
CARD, DECLINED = "4200 0000 0000 0091", "4000 0000 0000 0002"
MERCHANT = "MRIVERBK"


@pytest.fixture(autouse=True)
def _real_time(house: House) -> Iterator[None]:
    """Nothing is broken and no time has gone by for who comes after."""
    yield
    house.sandbox.faults()
    house.sandbox.post("clock", {"reset": True})


def apply(visitor: Visitor, email: str, name: str) -> None:
    visitor.log_in(email)
    visitor.go("/organiser/apply")
    visitor.page.get_by_label("Name", exact=True).fill(name)
    visitor.press("Apply")
    visitor.see(re.compile("We have your application"))


def approve(admin: Visitor, name: str) -> None:
    admin.log_in("admin@example.org", demo.PASSWORD)
    admin.go("/admin/organisers?state=pending")
    admin.press(name)
    admin.press("Approve")
    admin.see(re.compile("is approved now"))


def connect(organiser: Visitor) -> None:
    """Say no first, which connects nothing; then yes."""
    organiser.go("/organiser/connect/sumup")
    organiser.see("Not connected")
    organiser.look("connect-not-yet")
    organiser.press("Connect SumUp")
    organiser.page.get_by_role("button", name="Refuse").click()
    organiser.see(re.compile("nothing was connected"))
    organiser.press("Connect SumUp")
    organiser.look("sumup-authorize")
    organiser.page.get_by_label("Log in as").select_option(MERCHANT)
    organiser.page.get_by_role("button", name="Allow").click()
    organiser.see(f"Account {MERCHANT} is connected. You can sell through it now.")
    organiser.look("connect-connected")


def make_event(organiser: Visitor, title: str) -> None:
    """An event that is paid through SumUp alone, with one ticket, published."""
    starts = clock.now() + timedelta(days=20)
    organiser.go("/organiser/events/new")
    organiser.page.get_by_label("Title").fill(title)
    organiser.page.get_by_label("Venue", exact=True).fill("The Slipway")
    organiser.page.get_by_label("Time zone").fill("Europe/Dublin")
    organiser.page.get_by_label("Starts").fill(starts.strftime("%Y-%m-%dT20:00"))
    organiser.page.get_by_label("Ends").fill(starts.strftime("%Y-%m-%dT23:00"))
    organiser.page.get_by_label("Currency").fill("EUR")
    organiser.page.get_by_label("SumUp").check()
    organiser.press("Save")
    organiser.press("Add the tickets that are sold")
    organiser.page.get_by_label("Name").fill("Evening")
    organiser.page.get_by_label("Price").fill("20.00")
    organiser.page.get_by_label("Capacity").fill("40")
    organiser.press("Save")
    organiser.press("Publish")
    if organiser.page.url.endswith("/publish"):
        organiser.look("publish")
        organiser.press("Publish")
    organiser.see(re.compile("on sale"))


def pay_and_vanish(guest: Visitor, event: str, email: str, *broken: str) -> None:
    """Pay at SumUp's page, and close the tab there; `broken`: the faults in force from the payment on."""
    guest.order(event, "Evening", 1, "Gil Guest", email)
    guest.page.wait_for_url("**/sumup/pay/**")
    guest.house.sandbox.faults(*broken)
    guest.pay(CARD, button="Pay and close the tab")
    guest.see("The tab is closed")


def payment_of(house: House, email: str) -> Payment:
    provider_id = house.session_of(email)
    return db.session.scalars(select(Payment).filter_by(provider="sumup", provider_id=provider_id)).one()


def run_sweep() -> None:
    db.session.rollback()
    sweep.run("test", everything=True)
    db.session.rollback()


def test_from_connecting_to_a_ticket_that_nobody_came_back_for(house: House, visit: Visit) -> None:
    accounts.create("sally@example.org", PASSWORD, Role.BUYER, "Sally Slipway")
    sally = visit()
    sally.foresee("status of 403")
    apply(sally, "sally@example.org", "Slipway Sessions")
    approve(visit(width=DESK), "Slipway Sessions")
    connect(sally)
    make_event(sally, "Slipway Evening")

    guest = visit()
    guest.go("/events/slipway-evening")
    guest.look("sumup-event")
    pay_and_vanish(guest, "slipway-evening", "vera@example.org", "webhook_lost")
    assert payment_of(house, "vera@example.org").account == MERCHANT
    house.sandbox.faults()
    run_sweep()
    assert "Slipway Evening" in house.mail("vera@example.org", "ticket")["text"]

    # The same while SumUp is out of order for ten minutes after the payment: nothing fails, and it is found.
    pay_and_vanish(guest, "slipway-evening", "otto@example.org", "http_500", "webhook_lost")
    for _ in range(5):
        house.sandbox.advance(120)
        run_sweep()
        assert payment_of(house, "otto@example.org").state not in (PaymentState.FAILED, PaymentState.EXPIRED)
    assert not [mail for mail in house.sandbox.mail("otto@example.org") if "ticket" in mail["subject"]]
    house.sandbox.faults()
    run_sweep()
    assert "Slipway Evening" in house.mail("otto@example.org", "ticket")["text"]


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
