"""Entering a child in a tournament, on a phone: the athlete, the consent, the fee, the code for the door."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from domain import clock
from domain.office import demo
from tests.browser.house import House
from tests.browser.visitor import Visitor

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]
Visit = Callable[..., Visitor]


def test_a_child_is_entered_and_withdrawn(house: House, visit: Visit) -> None:
    parent = visit()
    parent.log_in("buyer@example.org", demo.PASSWORD)
    parent.go("/tournaments/")
    parent.look("tournaments")
    parent.press("Harbour Open: Karate for Everyone")
    parent.look("tournament")
    parent.go("/account/athletes/new")
    parent.look("athlete")
    parent.page.get_by_label("Name").fill("Tiago Teen")
    parent.page.get_by_label("Born").fill(f"{clock.now().year - 15}-01-01")
    parent.page.get_by_label("Weight in kg").fill("61,5")
    parent.press("Save")
    parent.see("Tiago Teen can be entered now.")
    parent.look("athletes")
    parent.go("/tournaments/harbour-open")
    parent.press("Enter Kumite, under 18")
    parent.look("enter")
    parent.page.get_by_label(re.compile("Tiago Teen")).check()
    parent.page.get_by_label("I am a parent or guardian, and I agree").check()
    parent.press("Enter and pay")
    parent.pay()
    parent.see("Tiago Teen is entered")
    expect(parent.page.locator(".admit-holder")).to_have_text("Tiago Teen")
    parent.look("order-entered")
    house.mail("buyer@example.org", "entry")

    parent.go("/account/entries")
    parent.look("entries")
    parent.page.get_by_text("Withdraw", exact=True).first.click()
    parent.press("Withdraw Tiago Teen")
    parent.see("The entry is withdrawn.")

    boss = visit(width=1280)
    boss.log_in("admin@example.org")
    boss.go("/organiser/events/harbour-open/entries")
    boss.see("Lena Sato")
    boss.look("organiser-entries")
    boss.go("/organiser/events/harbour-open/start-list")
    boss.look("organiser-start-list")
    boss.go("/organiser/events/harbour-open/categories/new")
    boss.look("organiser-category")
