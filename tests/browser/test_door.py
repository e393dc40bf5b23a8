"""The door on a phone: a link and its PIN, the camera, typed codes, a lost connection."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from domain import codes as short_codes
from domain.catalogue import events
from domain.door import staff
from models import Order
from tests.browser.camera import Camera
from tests.browser.house import House
from tests.browser.visitor import Visitor
from tests.support.shop import place

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]
Visit = Callable[..., Visitor]
EVENT = "open-rehearsal"


def guests(house: House, email: str, count: int) -> tuple[Order, list[str]]:
    """An order of free tickets, and its codes as they are printed."""
    order = place(events.event(EVENT), count, name="Dora Guest", email=email)
    return order, [short_codes.show(ticket.code) for ticket in order.tickets]


def enter(visit: Visit, *, javascript: bool = True) -> Visitor:
    """Somebody who has typed the PIN of a new pass."""
    made, pin = staff.make_pass(events.event(EVENT), "North door", None)
    keeper = visit(javascript=javascript)
    keeper.go(f"/door/{made.token}/")
    keeper.page.get_by_label("Your name").fill("Ned")
    keeper.page.get_by_label("PIN").fill(pin)
    keeper.press("Open the door")
    expect(keeper.page.get_by_label("Code on the ticket")).to_be_visible()
    # The page is there before its script is: until then a form is sent as without one.
    keeper.page.wait_for_load_state()
    return keeper


def check(keeper: Visitor, code: str) -> None:
    keeper.page.get_by_label("Code on the ticket").fill(code)
    keeper.press("Check")


def says(keeper: Visitor, verdict: str, words: str | re.Pattern[str]) -> None:
    """Expect this verdict, in its colour and its words."""
    panel = keeper.page.locator(f"#verdict[data-verdict={verdict}]")
    expect(panel).to_be_visible(timeout=20_000)
    expect(panel).to_contain_text(words)


def test_staff_enter_by_a_link_and_a_pin_that_the_admin_makes(visit: Visit) -> None:
    admin = visit()
    admin.log_in("admin@example.org")
    admin.go("/door/")
    admin.look("doors")
    admin.go(f"/door/events/{EVENT}/passes")
    admin.page.get_by_label("Which door, or who is it for?").fill("South door")
    admin.press("Make a link")
    admin.see("South door: note the PIN now")
    admin.look("door-passes")
    pin = admin.page.locator(".new-pin b").inner_text()
    link = admin.page.locator(".pass-link").inner_text()

    keeper = visit()
    keeper.foresee("status of 400")
    keeper.go(link)
    keeper.look("door-enter")
    for typed in ("000000", pin):
        keeper.page.get_by_label("Your name").fill("Sue")
        keeper.page.get_by_label("PIN").fill(typed)
        keeper.press("Open the door")
        if typed != pin:
            keeper.see("That PIN is not right. It has 6 digits.")
    keeper.see(re.compile("Sue, South door"))
    keeper.look("door")


def test_a_typed_code_lets_in_once(house: House, visit: Visit) -> None:
    _, codes = guests(house, "typed@example.org", 3)
    keeper = enter(visit)
    check(keeper, codes[0].lower())
    says(keeper, "valid", "Dora Guest")
    keeper.look("door-valid")
    keeper.press("Next")
    check(keeper, codes[0])
    says(keeper, "used", re.compile("Already used"))
    keeper.look("door-used")
    keeper.press("Next")
    check(keeper, "AAAA AAAA")
    says(keeper, "unknown", re.compile("No ticket has this code|not the code of a ticket"))
    keeper.look("door-unknown")
    keeper.press("Next")

    keeper.page.get_by_label("Name, mail address or order").fill("Dora")
    keeper.press("Look up")
    keeper.look("door-results")
    keeper.page.get_by_role("button", name=re.compile(f"^Let in.*{codes[1]}")).click()
    says(keeper, "valid", "Dora Guest")
    keeper.page.get_by_role("button", name=re.compile("Let in 1 more of this order")).click()
    says(keeper, "valid", "1 more")
    keeper.press("Next")
    keeper.press("List to print")
    keeper.look("door-list")


def test_the_camera_reads_the_code_from_the_buyers_page(house: House, visit: Visit, camera: Camera) -> None:
    order, _ = guests(house, "camera@example.org", 1)
    guest = visit()
    guest.go(f"/o/{order.code}/{order.secret}")
    camera.show(guest.page.locator(".admit-qr").screenshot())

    keeper = enter(visit)
    keeper.press("Start the camera")
    says(keeper, "valid", "Dora Guest")
    keeper.look("door-camera-valid")
    keeper.press("Next")
    # The code is still before the camera. Taken away and shown again, it is a second guest with a copy.
    keeper.press("Stop the camera")
    keeper.page.wait_for_timeout(3200)
    keeper.press("Start the camera")
    says(keeper, "used", re.compile("Already used"))
    guest.page.reload()
    guest.see(re.compile("Checked in"))


def test_a_code_that_stays_before_the_camera_while_the_verdict_is_read_is_one_scan(
    house: House, visit: Visit, camera: Camera
) -> None:
    order, _ = guests(house, "stays@example.org", 2)
    guest = visit()
    guest.go(f"/o/{order.code}/{order.secret}")
    camera.show(guest.page.locator(".admit-qr").first.screenshot())

    keeper = enter(visit)
    keeper.press("Start the camera")
    says(keeper, "valid", "Dora Guest")
    keeper.page.wait_for_timeout(3500)  # longer than a code has to be away to count again
    keeper.press("Next")
    keeper.page.wait_for_timeout(2500)
    expect(keeper.page.locator("#verdict")).to_be_hidden()
    expect(keeper.page.locator(".recent-entry")).to_have_count(1)


def test_without_a_connection_nothing_is_checked_and_the_retry_is_no_second_guest(
    house: House, visit: Visit
) -> None:
    _, codes = guests(house, "offline@example.org", 1)
    keeper = enter(visit)
    keeper.foresee("ERR_INTERNET_DISCONNECTED")
    keeper.context.set_offline(True)
    check(keeper, codes[0])
    says(keeper, "not_checked", "NOT CHECKED: no connection, scan again")
    keeper.look("door-offline")
    keeper.press("Next")
    keeper.context.set_offline(False)
    check(keeper, codes[0])
    says(keeper, "valid", "Dora Guest")


def test_an_answer_that_was_lost_is_repeated(house: House, visit: Visit) -> None:
    _, codes = guests(house, "lost-answer@example.org", 1)
    keeper = enter(visit)
    keeper.foresee("ERR_EMPTY_RESPONSE|ERR_CONNECTION")
    # The scan arrives, its answer does not.
    house.front.losing = "/scan"
    check(keeper, codes[0])
    says(keeper, "not_checked", "NOT CHECKED: no connection, scan again")
    keeper.press("Next")
    check(keeper, codes[0])
    says(keeper, "valid", "Dora Guest")


def test_the_door_without_javascript(house: House, visit: Visit) -> None:
    _, codes = guests(house, "plain@example.org", 1)
    keeper = enter(visit, javascript=False)
    check(keeper, codes[0])
    says(keeper, "valid", "Dora Guest")
    check(keeper, codes[0])
    says(keeper, "used", "Already used")
