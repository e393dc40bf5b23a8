"""The back office in a browser: an order's file, refunds, the money inbox, the plain records."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from domain.office import demo
from domain.sweep import sweeping
from tests.browser.house import House
from tests.browser.visitor import DESK, PHONE, Visitor

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser-office")]
Visit = Callable[..., Visitor]


def admin_of(visit: Visit, width: int = DESK) -> Visitor:
    admin = visit(width=width)
    admin.log_in("admin@example.org")
    return admin


def refund(admin: Visitor, amount: str) -> None:
    """Tick the first ticket that is valid still: what it cost is sent back, after a look at what happens."""
    admin.page.locator("summary", has_text="Refund").click()
    admin.page.get_by_label("Reason", exact=True).fill("Rita is ill")
    admin.page.locator("input[name=tickets]").first.check()
    admin.look("admin-refund")
    admin.press("Go on")
    admin.look("admin-refund-shown")
    admin.press(f"Send {amount} back")


def test_an_order_is_refunded_in_part_and_then_in_full(house: House, visit: Visit) -> None:
    guest = visit()
    guest.order("lantern-night", "Seat", 2, "Rita Refund", "rita@example.org")
    guest.pay()
    guest.see(re.compile("You’re going to"))

    admin = admin_of(visit)
    admin.go("/admin/")
    admin.look("admin")
    admin.page.get_by_label("Find an order").fill("rita@example.org")
    admin.press("Find")
    admin.look("admin-orders")
    admin.page.locator("td a.code").first.click()
    expect(admin.page.locator(".timeline")).to_contain_text("fulfilled")
    admin.look("admin-order")

    refund(admin, "£22.00")
    admin.see(re.compile(r"The refund of £22.00 went through"))
    guest.page.reload()
    guest.see("Partly refunded")
    expect(guest.page.locator(".admit-void")).to_have_count(1)
    guest.look("order-partly-refunded")
    refund(admin, "£22.00")
    admin.see(re.compile(r"The refund of £22.00 went through"))
    admin.look("admin-order-refunded")
    for page in ("statistics", "rings"):
        admin.go(f"/admin/{page}")
        admin.look(f"admin-{page}")
    guest.page.reload()
    guest.see("You were paid back")
    guest.look("order-refunded")
    house.mail("rita@example.org", "refund")


def test_money_that_does_not_match_waits_for_a_decision(house: House, visit: Visit) -> None:
    guest = visit()
    guest.order("lantern-night", "Seat", 1, "Ivo Incident", "ivo@example.org")
    guest.page.wait_for_url("**/stripe/pay/**")
    session = house.session_of("ivo@example.org")
    house.sandbox.do(session, "tamper", set={"amount_minor": 100})
    guest.page.reload()
    guest.pay()
    guest.see("A person is looking at your payment")
    guest.look("order-review")

    admin = admin_of(visit)
    admin.go("/admin/incidents")
    admin.look("admin-incidents")
    admin.page.get_by_role("link", name=re.compile("does not match")).first.click()
    admin.look("admin-incident")
    admin.page.get_by_label("Hand over the goods for it").check()
    admin.page.get_by_label("Why").fill("Agreed by telephone")
    admin.press("Decide")
    admin.see("Decided: issue")
    admin.look("admin-incident-decided")
    guest.page.reload()
    guest.see(re.compile("You’re going to"))


def test_records_are_edited_under_the_policy(visit: Visit) -> None:
    admin = admin_of(visit)
    admin.go("/admin/records/")
    admin.look("records")
    admin.press("Events")
    admin.look("records-events")
    admin.page.get_by_role("link", name=re.compile("^Edit Night Train")).click()
    admin.look("records-event")
    admin.page.get_by_label("Venue", exact=True).fill("Depot 10")
    admin.press("Save")
    expect(admin.page.get_by_role("row", name=re.compile("Night Train"))).to_contain_text("Depot 10")
    admin.go("/events/night-train")
    admin.see("Depot 10")

    admin.go("/admin/records/")
    admin.page.get_by_role("link", name="Ticket types").first.click()
    admin.look("records-types")
    admin.page.get_by_role("link", name=re.compile("^Edit Sleeper berth")).click()
    admin.page.get_by_label("Capacity").fill("-1")
    admin.press("Save")
    admin.look("records-refused")
    admin.page.get_by_label("Capacity").fill("9")
    admin.press("Save")
    expect(admin.page.get_by_role("row", name=re.compile("Sleeper berth"))).to_contain_text("9")
    for name in ("People", "Agents", "Texts", "Door passes"):
        admin.page.get_by_label("Records").get_by_role("link", name=name).click()
        admin.look(f"records-{name.lower().replace(' ', '-')}")
        if name == "Agents":
            expect(admin.page.get_by_role("row", name=re.compile("QR code"))).to_contain_text("Yes")


def test_the_rest_of_the_back_office(visit: Visit) -> None:
    sweeping.run("command")
    admin = admin_of(visit)
    for page in ("payments", "sweeps", "mail", "stripe", "setup", "events/open-rehearsal/door"):
        admin.go(f"/admin/{page}")
        admin.look(f"admin-{page.replace('/', '-')}")
    admin.go("/admin/mail")
    admin.press("Send")
    admin.see(re.compile("admin@example.org"))


def test_a_buyer_is_not_let_into_the_back_office(visit: Visit) -> None:
    buyer = visit()
    buyer.foresee("status of 403")
    buyer.log_in("buyer@example.org", demo.PASSWORD)
    buyer.go("/admin/")
    buyer.see("This page is not for this account.")
    buyer.look("forbidden")


def test_an_admin_looks_after_a_payment_that_is_not_paid(house: House, visit: Visit) -> None:
    guest = visit()
    guest.order("lantern-night", "Seat", 1, "Pia Pending", "pia@example.org")
    guest.page.wait_for_url("**/stripe/pay/**")

    admin = admin_of(visit, PHONE)
    admin.go("/admin/payments")
    admin.look("admin-payments")
    admin.page.get_by_role("row", name=re.compile("pia@example.org")).locator("a.code").click()
    admin.page.locator("summary", has_text="Stop polling").click()
    admin.page.get_by_label("Reason for stopping").fill("Pia pays at the door")
    admin.look("admin-polling-stop")
    admin.press("Stop polling")
    admin.see("Polling is stopped")
    admin.page.locator("summary", has_text="Give it longer").click()
    admin.page.get_by_label("Why longer").fill("Her bank is slow")
    admin.look("admin-polling-longer")
    admin.press("Give it longer")
    admin.see("60 minutes more: Her bank is slow")
    expect(admin.page.locator(".timeline")).to_contain_text("Pia pays at the door")
    admin.look("admin-polled")
