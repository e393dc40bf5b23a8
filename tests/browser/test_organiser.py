"""An organiser in a browser: from asking to become one to the first sale, its refund and the guest list."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from playwright.sync_api import expect

from domain import accounts, cancelling, clock, demo
from extensions import db
from models import Role
from tests.browser.house import House
from tests.browser.visitor import DESK, Visitor
from tests.support.people import PASSWORD

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]
Visit = Callable[..., Visitor]


def make_event(organiser: Visitor, title: str) -> None:
    """Fill in the form of a new event, and of its first ticket."""
    starts = clock.now() + timedelta(days=20)
    organiser.go("/organiser/events/new")
    organiser.page.get_by_label("Title").fill(title)
    organiser.page.get_by_label("Description").fill("An evening by the water.")
    organiser.page.get_by_label("Venue", exact=True).fill("The Boathouse")
    organiser.page.get_by_label("Time zone").fill("Europe/Dublin")
    organiser.page.get_by_label("Starts").fill(starts.strftime("%Y-%m-%dT20:00"))
    organiser.page.get_by_label("Ends").fill(starts.strftime("%Y-%m-%dT23:00"))
    organiser.page.get_by_label("Currency").fill("EUR")
    organiser.look("organiser-event-form")
    organiser.press("Save")
    organiser.see("What to do next")
    organiser.look("organiser-draft")
    organiser.press("Add the tickets that are sold")
    organiser.page.get_by_label("Name").fill("Evening")
    organiser.page.get_by_label("Price").fill("20.00")
    organiser.page.get_by_label("Capacity").fill("40")
    organiser.look("organiser-type-form")
    organiser.press("Save")
    organiser.press("Publish")
    if organiser.page.url.endswith("/publish"):
        organiser.press("Publish")


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
    admin.log_in("admin@example.org", demo.PASSWORD)
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
    make_event(nora, "Boathouse Evening")
    nora.see(re.compile("on sale"))

    guest = visit()
    guest.order("boathouse-evening", "Evening", 2, "Gil Guest", "gil@example.org")
    guest.pay()
    guest.see(re.compile("You’re going to"))
    guest.see("Nora’s Boathouse")

    nora.go("/organiser/")
    nora.look("organiser-events")
    expect(nora.page.locator("main")).to_contain_text("€40.00")
    nora.press("Boathouse Evening")
    nora.look("organiser-event")
    expect(nora.page.locator(".tile").first).to_contain_text("2")
    nora.go("/organiser/events/boathouse-evening/attendees")
    nora.see("gil@example.org")
    nora.look("organiser-attendees")
    with nora.page.expect_download() as download:
        nora.press("Download as CSV")
    with open(download.value.path(), encoding="utf-8-sig", newline="") as file:
        assert [row["Name"] for row in csv.DictReader(file)] == ["Gil Guest", "Gil Guest"]


def test_refund_guest_list_and_the_end(house: House, visit: Visit) -> None:
    organiser = visit()
    organiser.log_in("organiser@example.org", demo.PASSWORD)
    make_event(organiser, "Last Waltz")
    guest = visit()
    guest.order("last-waltz", "Evening", 2, "Wim Waltz", "wim@example.org")
    guest.pay()
    guest.see(re.compile("You’re going to"))

    organiser.go("/organiser/events/last-waltz/orders")
    organiser.look("organiser-orders")
    organiser.page.locator("td a.code").first.click()
    organiser.look("organiser-order")
    organiser.page.locator("summary", has_text="Refund").click()
    organiser.page.get_by_label(re.compile("^Amount in")).fill("20.00")
    organiser.page.get_by_label("Reason", exact=True).fill("One fell ill")
    organiser.page.locator("input[name=tickets]").first.check()
    organiser.press("Send the money back")
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
    cancelling.refund_due()
    organiser.page.reload()
    organiser.see(re.compile("1 of 1 paid orders are paid back"))
    organiser.look("organiser-cancelled")
    guest.page.reload()
    guest.see("You were paid back")
