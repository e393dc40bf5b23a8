"""What a deployment alone shows: first admin, clear text, Referer, blocked cookies. And bin/run's way."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import requests

from domain.catalogue import events
from domain.office import demo
from tests.browser.conftest import OWNER
from tests.browser.house import House
from tests.browser.visitor import Visitor
from tests.support.shop import place

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]
Visit = Callable[..., Visitor]


def test_the_first_admin_chooses_a_password_and_sees_what_is_missing(house: House, visit: Visit) -> None:
    owner = visit()
    owner.go(house.first_admin)
    owner.see("Welcome, admin")
    owner.look("first-admin")
    owner.page.get_by_label("New password").fill("a box office of my own")
    owner.press("Set it and log in")
    # A second factor can wait for 14 days.
    owner.press("Not now, go on")
    owner.page.wait_for_url("**/admin/setup")
    owner.see(re.compile(f"Links begin with {house.url}"))
    owner.press("Log out", within="header")
    owner.log_in(OWNER, "a box office of my own")
    cookies = {cookie["name"]: cookie for cookie in owner.context.cookies()}
    assert cookies["__Host-session"]["secure"] and cookies["__Host-session"]["httpOnly"]


def test_what_is_typed_without_https_leads_to_it(house: House, visit: Visit) -> None:
    guest = visit()
    guest.go(f"http://{house.url.removeprefix('https://')}/events/lantern-night")
    guest.page.wait_for_url(f"{house.url}/events/lantern-night")
    # Who comes in clear and is no browser that knows better.
    clear = f"http://127.0.0.1:{house.front.http}/account/login"
    host = {"Host": house.url.removeprefix("https://")}
    led = requests.get(clear, headers=host, timeout=10, allow_redirects=False)
    assert (led.status_code, led.headers["Location"]) == (308, f"{house.url}/account/login")
    refused = requests.post(
        clear, headers=host, data={"password": "secret"}, timeout=10, allow_redirects=False
    )
    assert refused.status_code == 403
    assert "without encryption" in refused.text


def test_an_order_s_link_leaves_by_no_referer(house: House, visit: Visit) -> None:
    """Neither to the provider, nor to us: not even the forms of the page say where they were sent from."""
    order = place(events.event("open-rehearsal"), 1, email="ref@example.org")
    house.front.asked.clear()
    guest = visit()
    told: list[str | None] = []
    guest.page.on("request", lambda request: told.append(request.all_headers().get("referer")))
    guest.go(f"/o/{order.code}/{order.secret}")
    guest.press("Mail them again")
    guest.see("Your tickets are on their way once more.")
    guest.press("Events", within="header")
    asked = b"\n".join(house.front.asked).lower()
    assert b"\npost " in asked or asked.startswith(b"post ")
    assert b"\nreferer:" not in asked
    assert order.secret.lower().encode() not in re.sub(rb"(?m)^(get|post) .*$", b"", asked)


def test_cookies_that_are_blocked_are_named(house: House, visit: Visit) -> None:
    shy = visit()
    shy.foresee("status of 400")
    shy.go("/account/login")
    shy.page.get_by_label("E-mail").fill("admin@example.org")
    shy.page.get_by_label("Password", exact=True).fill(demo.PASSWORD)
    # A browser that keeps none of ours.
    shy.context.clear_cookies()
    shy.press("Log in")
    shy.see(re.compile("Allow cookies for tickets.example.org"))
    shy.look("cookies-blocked")


def test_the_same_in_development_without_tls(workshop: str, visit: Visit) -> None:
    admin = visit(base_url=workshop)
    admin.log_in("admin@example.org")
    admin.go("/stripe/debug/")
    admin.look("stripe-debug")
    admin.order("lantern-night", "Seat", 1, "Dev Developer", "dev@example.org")
    admin.pay()
    admin.see("You’re going to Lantern Night: Strings by Candlelight")
    assert admin.page.url.startswith(f"{workshop}/o/")
