"""An organiser in a browser: from asking to become one, over a connected account and a paid fee, to the sales
of buyers who never come back; then a refund, the guest list and the end of an event."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from playwright.sync_api import expect
from sqlalchemy import select

from domain import clock
from domain.office import demo
from domain.orders import event_cancellation
from domain.people import accounts
from domain.sweep import sweeping
from extensions import db
from models import Payment, PaymentState, Role
from tests.browser.house import House
from tests.browser.visitor import DESK, Visitor
from tests.support.people import PASSWORD
from tests.support.shop import make_event

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser-office")]
Visit = Callable[..., Visitor]
CARD, MERCHANT = "4200 0000 0000 0091", "MRIVERBK"


@pytest.fixture(autouse=True)
def _real_time(house: House) -> Iterator[None]:
    """Nothing is broken and no time has gone by for who comes after."""
    yield
    house.sandbox.faults()
    house.sandbox.post("clock", {"reset": True})


def fill_in_event(organiser: Visitor, title: str) -> None:
    """Make a draft, sold through SumUp alone, and its ticket."""
    starts = clock.now() + timedelta(days=20)
    organiser.go("/organiser/events/new")
    organiser.page.get_by_label("Title").fill(title)
    organiser.page.get_by_label("Description").fill("An evening by the water.")
    organiser.page.get_by_label("Venue", exact=True).fill("The Boathouse")
    organiser.page.get_by_label("Time zone").select_option("Europe/Dublin")
    organiser.page.get_by_label("Starts").fill(starts.strftime("%Y-%m-%dT20:00"))
    organiser.page.get_by_label("Ends").fill(starts.strftime("%Y-%m-%dT23:00"))
    organiser.page.get_by_label("Currency").fill("EUR")
    organiser.page.get_by_label("SumUp").check()
    organiser.look("organiser-event-form")
    organiser.press("Save")
    organiser.see("What to do next")
    organiser.press("Add the tickets that are sold")
    organiser.page.get_by_label("Name").fill("Evening")
    organiser.page.get_by_label("Price").fill("20.00")
    organiser.page.get_by_label("Capacity").fill("40")
    organiser.look("organiser-type-form")
    organiser.press("Save")
    organiser.see(re.compile("that costs €12.50, once"))
    organiser.look("organiser-draft")


def publish(organiser: Visitor) -> None:
    """Pay the fee by card."""
    organiser.press("Publish")
    organiser.see("Listing fee: €12.50")
    organiser.look("publish")
    organiser.press("Pay and publish")
    organiser.pay()
    organiser.see(re.compile("is on sale"))
    organiser.look("publish-paid")


def connect(organiser: Visitor) -> None:
    organiser.go("/organiser/connect/sumup")
    organiser.press("Connect SumUp")
    organiser.look("sumup-authorize")
    organiser.page.get_by_label("Log in as").select_option(MERCHANT)
    organiser.page.get_by_role("button", name="Allow").click()
    organiser.see(f"Account {MERCHANT} is connected. You can sell through it now.")


def pay_and_vanish(guest: Visitor, email: str, *broken: str) -> Payment:
    """Pay at SumUp's page, and close the tab there; `broken`: the faults in force from the payment on."""
    guest.order("boathouse-evening", "Evening", 1, "Gil Guest", email)
    guest.page.wait_for_url("**/sumup/pay/**")
    guest.house.sandbox.faults(*broken)
    guest.pay(CARD, button="Pay and close the tab")
    guest.see("The tab is closed")
    provider_id = guest.house.session_of(email)
    return db.session.scalars(select(Payment).filter_by(provider="sumup", provider_id=provider_id)).one()


def run_sweep() -> None:
    db.session.rollback()
    sweeping.run("test", everything=True)
    db.session.rollback()


def test_from_asking_to_the_first_sale(house: House, visit: Visit) -> None:
    accounts.create("nora@example.org", PASSWORD, Role.BUYER, "Nora New")
    nora = visit()
    nora.foresee("status of 403")
    nora.log_in("nora@example.org")
    nora.go("/organiser/")
    nora.see("These pages are for organisers")
    nora.look("organiser-not-yet")
    nora.press("Ask to become an organiser")
    nora.page.get_by_label("Name", exact=True).fill("Nora’s Boathouse")
    nora.look("organiser-apply")
    nora.press("Apply")
    nora.see(re.compile("We have your application"))

    admin = visit(width=DESK)
    admin.log_in("admin@example.org")
    admin.go("/admin/organisers?state=pending")
    admin.look("admin-organisers")
    admin.press("Nora’s Boathouse")
    admin.look("admin-organiser")
    admin.press("Approve")
    admin.see(re.compile("is approved now"))
    assert "organiser" in house.mail("nora@example.org", "You are an organiser")["subject"]

    nora.go("/organiser/")
    nora.see("Your first event")
    nora.look("organiser-first")
    connect(nora)
    fill_in_event(nora, "Boathouse Evening")
    publish(nora)
    assert "12.50" in house.mail("nora@example.org", "is on sale")["text"]

    guest = visit()
    guest.go("/events/boathouse-evening")
    guest.see("Nora’s Boathouse")
    guest.look("sumup-event")
    assert pay_and_vanish(guest, "vera@example.org", "webhook_lost").account == MERCHANT
    house.sandbox.faults()
    run_sweep()
    (ticket,) = (
        a for a in house.mail("vera@example.org", "ticket")["attachments"] if a["name"].endswith("pdf")
    )
    assert ticket["size"] > 5000

    # The same while SumUp is out of order for ten minutes after the payment: nothing fails, and it is found.
    payment = pay_and_vanish(guest, "otto@example.org", "http_500", "webhook_lost")
    for _ in range(2):
        house.sandbox.advance(300)
        run_sweep()
        assert payment.state is PaymentState.OPEN
    assert not [mail for mail in house.sandbox.mail("otto@example.org") if "ticket" in mail["subject"]]
    house.sandbox.faults()
    run_sweep()
    assert "Boathouse Evening" in house.mail("otto@example.org", "ticket")["text"]

    nora.go("/organiser/")
    nora.look("organiser-events")
    expect(nora.page.locator("main")).to_contain_text("€40.00")
    nora.press("Boathouse Evening")
    nora.look("organiser-event")
    expect(nora.page.locator(".tile").first).to_contain_text("2")
    nora.go("/organiser/events/boathouse-evening/attendees")
    nora.see("vera@example.org")
    nora.look("organiser-attendees")
    with nora.page.expect_download() as download:
        nora.press("Download as CSV")
    with open(download.value.path(), encoding="utf-8-sig", newline="") as file:
        assert [row["Name"] for row in csv.DictReader(file)] == ["Gil Guest", "Gil Guest"]


def test_refund_guest_list_and_the_end(house: House, visit: Visit) -> None:
    owner = accounts.find("organiser@example.org")
    assert owner is not None
    event = make_event("last-waltz", organiser_id=owner.id, providers=["stripe"], price_minor=2000)
    # No name is so long that a page does not fit.
    event.ticket_types[0].name = long = "W" * 100
    db.session.commit()
    organiser = visit()
    organiser.log_in("organiser@example.org", demo.PASSWORD)
    guest = visit()
    guest.go("/events/last-waltz")
    guest.look("event-long-name")
    guest.order("last-waltz", long, 2, "Wim Waltz", "wim@example.org")
    guest.pay()
    guest.see(re.compile("You’re going to"))

    organiser.go("/organiser/events/last-waltz/orders")
    organiser.look("organiser-orders")
    organiser.page.locator("td a.code").first.click()
    organiser.look("organiser-order")
    organiser.page.locator("summary", has_text="Refund").click()
    organiser.page.get_by_label("Reason", exact=True).fill("One fell ill")
    organiser.page.locator("input[name=tickets]").first.check()
    organiser.press("Go on")
    organiser.look("organiser-refund-shown")
    organiser.press("Send €20.00 back")
    organiser.see(re.compile("The refund of €20.00 went through"))

    organiser.go("/organiser/events/last-waltz/guests")
    organiser.page.get_by_label("Name").fill("Gerda Guest")
    organiser.page.get_by_label("E-mail").fill("gerda@example.org")
    organiser.look("organiser-guests")
    organiser.press("Put on the list")
    organiser.see(re.compile("Gerda Guest is on the guest list"))
    house.mail("gerda@example.org", "ticket")
    organiser.go("/door/events/last-waltz/list")
    organiser.see("(guest list)")

    organiser.go("/organiser/events/last-waltz")
    organiser.press("Cancel the event")
    organiser.look("organiser-cancel")
    organiser.press("Cancel the event")
    organiser.see(re.compile("paid back"))
    db.session.rollback()
    event_cancellation.refund_due()
    organiser.page.reload()
    organiser.see(re.compile("1 of 1 paid orders are paid back"))
    organiser.look("organiser-cancelled")
    guest.page.reload()
    guest.see("You were paid back")
