"""Paying an entry's fee on a phone by Kaspi's code, and by a wallet's button that a program asked for."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from domain import clock
from domain.office import demo
from domain.sweep import sweeping
from tests.browser.house import House
from tests.browser.visitor import Visitor

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]
Visit = Callable[..., Visitor]
_CALL = """
async ([method, path, token, body]) => {
  const headers = { "Content-Type": "application/json", ...(token && { Authorization: `Bearer ${token}` }) };
  const answer = await fetch(`/api/v1${path}`, { method, headers, body: body && JSON.stringify(body) });
  return answer.json();
}
"""


def test_kaspi_s_code(house: House, visit: Visit) -> None:
    parent, app = visit(), visit()
    _enter(parent, "Kairat Code")
    parent.look("kaspi-code")
    picture = parent.page.get_by_alt_text(re.compile("QR code to pay"))
    assert picture.evaluate("image => image.complete && image.naturalWidth > 0")
    _pay_in_the_app(parent, app)
    # Nobody touches the page that shows the code.
    parent.see("Kairat Code is entered")
    expect(parent.page.locator(".admit-holder")).to_have_text("Kairat Code")


def test_the_tab_with_kaspi_s_code_is_closed(house: House, visit: Visit) -> None:
    parent, app = visit(javascript=False), visit()
    _enter(parent, "Tahir Tabless")
    parent.look("kaspi-code-plain")
    _pay_in_the_app(parent, app)
    parent.page.close()
    sweeping.run("test")
    assert "Tahir Tabless is entered" in house.mail("buyer@example.org", "entry")["text"]
    back = visit()
    back.log_in("buyer@example.org", demo.PASSWORD)
    back.go("/account/entries")
    entry = back.page.get_by_role("listitem").filter(has_text="Tahir Tabless")
    expect(entry.locator(".badge")).to_have_text("entered")


def test_a_program_sends_its_buyer_to_apple_pay(house: House, visit: Visit) -> None:
    athlete = visit()
    athlete.go("/tournaments/")

    def call(method: str, path: str, body: Any = None, token: str = "") -> Any:
        return athlete.page.evaluate(_CALL, [method, path, token, body])

    access = call("POST", "/auth/token", {"email": "buyer@example.org", "password": demo.PASSWORD})
    token = access["access_token"]
    open_now = call("GET", "/tournaments")["items"]
    harbour = next(one for one in open_now if one["slug"] == "harbour-open")
    kinds = call("GET", f"/tournaments/{harbour['slug']}/categories")["items"]
    kind = next(one for one in kinds if one["name"] == "Kumite, adults")
    who = call("POST", "/athletes", {"name": "Appolonia Adult", "birth_date": "1990-05-06"}, token)
    entry = {"category_id": kind["category_id"], "athlete_id": who["athlete_id"]}
    participant = call("POST", "/participants", entry, token)["participant_id"]
    asked = {"participant_id": participant, "method": "apple_pay", "amount": "25.00", "currency": "EUR"}
    started = call("POST", "/payments/initiate", asked, token)

    athlete.go(started["payment_url"])
    button = athlete.page.frame_locator("#wallet iframe")
    button.get_by_role("button", name="Pay with Apple Pay").click()
    athlete.see("Appolonia Adult is entered")
    status = call("GET", f"/payments/status/{participant}", token=token)
    assert (status["status"], status["payment_id"]) == ("COMPLETED", started["payment_id"])


def _enter(parent: Visitor, athlete: str) -> None:
    """Enter a child for a fee in tenge, up to the page that shows Kaspi's code."""
    parent.log_in("buyer@example.org", demo.PASSWORD)
    parent.go("/account/athletes/new")
    parent.page.get_by_label("Name").fill(athlete)
    parent.page.get_by_label("Born").fill(f"{clock.now().year - 15}-01-01")
    parent.press("Save")
    parent.go("/tournaments/harbour-open")
    parent.press("Enter Kumite, under 18")
    parent.page.get_by_label(re.compile(athlete)).check()
    parent.page.get_by_label("I am a parent or guardian, and I agree").check()
    parent.page.get_by_label("Kaspi").check()
    parent.press("Enter and pay")
    parent.see("scan this code with it")


def _pay_in_the_app(parent: Visitor, app: Visitor) -> None:
    """Follow the page's link into the app, and pay there."""
    app.go(str(parent.page.get_by_role("link", name="Pay in the app").get_attribute("href")))
    app.page.get_by_role("button", name=re.compile("^Pay .*9.000")).click()
    app.see("Payment successful")
