"""The pages that no journey passes: what is sold out, refused, lost, or only to be read."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from domain.catalogue import events
from tests.browser.house import House
from tests.browser.visitor import Visitor
from tests.support.shop import place

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]
Visit = Callable[..., Visitor]


@pytest.mark.parametrize("page", ["terms", "privacy", "contact"])
def test_the_operators_texts(visit: Visit, page: str) -> None:
    reader = visit()
    reader.go(f"/{page}")
    reader.look(page)


def test_lost_tickets_are_found_by_mail(house: House, visit: Visit) -> None:
    order = place(events.event("open-rehearsal"), 1, email="lost@example.org")
    loser = visit()
    loser.go("/tickets/find")
    loser.page.get_by_label("E-mail").fill("lost@example.org")
    loser.press("Send me the links")
    loser.see("If lost@example.org has bought anything here")
    loser.look("find")
    loser.go(house.link("lost@example.org", f"/o/{order.code}"))
    loser.see(order.code)
    loser.look("order-free")


def test_nothing_here(visit: Visit) -> None:
    stray = visit()
    stray.foresee("status of 404")
    stray.go("/events/no-such-event")
    stray.see("Nothing here")
    stray.look("not-found")


def test_an_event_that_is_sold_out_says_so(visit: Visit) -> None:
    late = visit()
    late.go("/events/lighthouse-walk")
    expect(late.page.get_by_role("status").first).to_contain_text("old out")
    late.look("event-sold-out")


def test_a_form_that_is_refused_says_what_to_mend(visit: Visit) -> None:
    hasty = visit()
    hasty.foresee("status of 400")
    hasty.order("lantern-night", "Seat", 0, "Hedda Hasty", "hedda@example.org")
    hasty.see("Choose how many tickets you want.")
    expect(hasty.page.locator("#problems")).to_be_focused()
    expect(hasty.page.get_by_label("Your name")).to_have_value("Hedda Hasty")
    hasty.look("event-refused")
