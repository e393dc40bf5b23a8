"""Buying tickets as a guest, on a phone: paid, declined, never back, later, and without JavaScript."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from domain import codes as short_codes
from domain.tickets import issuing
from tests.browser import camera
from tests.browser.house import House
from tests.browser.visitor import DECLINED_CARD, Visitor

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]
Visit = Callable[..., Visitor]
EVENT, KIND = "lantern-night", "Seat"


def codes_of(guest: Visitor) -> list[str]:
    return [code.strip() for code in guest.page.locator(".admit-code").all_inner_texts()]


def test_two_tickets_bought_seen_downloaded_and_mailed(house: House, visit: Visit) -> None:
    guest = visit()
    guest.go("/")
    guest.look("events")
    guest.press("Lantern Night: Strings by Candlelight")
    guest.look("event")
    guest.page.get_by_role("button", name=f"One more: {KIND}").click(click_count=2)
    expect(guest.page.locator("#total")).to_have_text("Total £44.00")
    guest.page.get_by_label("Your name").fill("Greta Guest")
    guest.page.get_by_label("E-mail").fill("greta@straße.example.org")
    guest.press("Continue to payment")
    guest.pay()
    guest.see("You’re going to Lantern Night: Strings by Candlelight")
    guest.see("greta@straße.example.org")
    guest.look("order-paid")
    codes = codes_of(guest)
    assert len(set(codes)) == 2

    for code, picture in zip(codes, guest.page.locator(".admit-qr").all(), strict=True):
        claim = issuing.read(camera.read(picture.screenshot()))
        assert claim.kind is issuing.ClaimKind.GENUINE
        assert short_codes.show(claim.code) == code

    with guest.page.expect_download() as downloading:
        guest.press("Save as PDF")
    assert Path(downloading.value.path()).read_bytes().startswith(b"%PDF")

    # Not to strasse.example.org, who is somebody else.
    mail = house.mail("greta@xn--strae-oqa.example.org", "ticket")
    assert all(code in mail["text"] for code in codes)
    assert any(part["type"] == "application/pdf" for part in mail["attachments"])
    guest.page.reload()
    assert codes_of(guest) == codes


def test_a_declined_card_leaves_the_order_payable_by_another(house: House, visit: Visit) -> None:
    guest = visit()
    guest.order(EVENT, KIND, 1, "Dennis Declined", "dennis@example.org")
    guest.pay(DECLINED_CARD)
    guest.see(re.compile("declined", re.IGNORECASE))
    guest.page.get_by_role("link", name=re.compile("^Cancel and return")).click()
    guest.see("£22.00 to pay")
    guest.see(re.compile("The last try did not work. .+ Nothing was charged"))
    guest.look("order-declined")
    guest.press("Continue to payment")
    guest.pay("5555 4444 3333 1111")
    guest.see("You’re going to Lantern Night: Strings by Candlelight")
    assert len(codes_of(guest)) == 1
    house.mail("dennis@example.org", "ticket")


@pytest.mark.usefixtures("webhooks")
def test_a_closed_tab_and_the_other_one_changes_by_itself(house: House, visit: Visit) -> None:
    guest = visit()
    guest.order(EVENT, KIND, 1, "Cleo Closer", "cleo@example.org")
    guest.page.wait_for_url("**/stripe/pay/**")
    other = visit()
    other.go(house.link("cleo@example.org", "/o/"))
    other.see("£22.00 to pay")
    other.look("order-open")
    guest.pay(button="Pay and close the tab")
    guest.see("The tab is closed")
    # Nobody touches the other tab.
    other.see("You’re going to Lantern Night: Strings by Candlelight")
    assert len(codes_of(other)) == 1


def test_a_bank_that_takes_its_time_fails_nothing(house: House, visit: Visit) -> None:
    guest = visit()
    guest.order("open-rehearsal", "Seat with breakfast", 1, "Lara Later", "lara@example.org")
    guest.pay(button="Pay later (bank debit)")
    guest.see(
        "Payment received, your bank is still confirming. You don't need to pay again; we will email you."
    )
    guest.look("order-waiting")
    expect(
        guest.page.get_by_text(re.compile("failed|declined|did not go through", re.IGNORECASE))
    ).to_have_count(0)
    house.sandbox.do(house.session_of("lara@example.org"), "complete_later")
    guest.see("You’re going to Open Rehearsal: Brass and Bread")
    house.mail("lara@example.org", "ticket")


def test_a_purchase_without_javascript(house: House, visit: Visit) -> None:
    guest = visit(javascript=False)
    guest.order(EVENT, KIND, 2, "Nora Noscript", "nora@example.org")
    guest.pay()
    guest.see("You’re going to Lantern Night: Strings by Candlelight")
    assert len(codes_of(guest)) == 2
    house.mail("nora@example.org", "ticket")


def test_without_javascript_the_waiting_page_looks_again_by_itself(house: House, visit: Visit) -> None:
    guest = visit(javascript=False)
    guest.order("open-rehearsal", "Seat with breakfast", 1, "Nils Noscript", "nils@example.org")
    guest.pay(button="Pay later (bank debit)")
    guest.see("Waiting for your bank")
    house.sandbox.do(house.session_of("nils@example.org"), "complete_later")
    guest.see("You’re going to Open Rehearsal: Brass and Bread")


def test_an_order_that_is_given_up_and_taken_up_again(visit: Visit) -> None:
    guest = visit()
    guest.order(EVENT, KIND, 1, "Ines Indecisive", "ines@example.org")
    guest.page.get_by_role("link", name=re.compile("^Cancel and return")).click()
    guest.press("Cancel this order")
    guest.see("This order was cancelled")
    guest.look("order-cancelled")
    guest.press("Try again")
    guest.pay()
    guest.see("You’re going to Lantern Night: Strings by Candlelight")


def test_back_before_the_word_and_given_up_while_the_provider_is_away(house: House, visit: Visit) -> None:
    guest = visit()
    guest.order(EVENT, KIND, 1, "Petra Pending", "petra@example.org")
    guest.page.wait_for_url("**/stripe/pay/**")
    session = house.session_of("petra@example.org")
    guest.go(house.sandbox.get(f"payments/{session}")["success_url"])
    guest.see("We are confirming your payment")
    expect(guest.page.get_by_role("link", name="Continue to payment")).to_be_hidden()
    guest.look("order-confirming")
    guest.page.get_by_text("I have not paid").click()
    guest.look("order-confirming-open")
    house.sandbox.faults("http_500", match={"path": "^/stripe/"})
    try:
        guest.press("Cancel this order")
        guest.see("We are cancelling this order")
        guest.look("order-cancelling")
    finally:
        house.sandbox.faults()
    guest.see("This order was cancelled")
    guest.look("order-cancelled-late")
