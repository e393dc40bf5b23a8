"""A member's wallet in a browser: topping up once, giving up, buying a ticket and a service from it."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.browser.visitor import Visitor
from tests.support.people import make_member

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]
Visit = Callable[..., Visitor]


def top_up(member: Visitor, amount: str) -> None:
    member.go("/wallet/topup/")
    member.page.get_by_role("button", name=amount).click()


def has(member: Visitor, amount: str) -> None:
    """Expect this balance on the wallet's page."""
    expect(member.page.locator(".purse-sum").first).to_have_text(re.compile(rf"AED\s{amount}"))


def test_a_top_up_is_credited_at_once_and_once(visit: Visit) -> None:
    make_member("tula@example.org")
    member = visit()
    member.log_in("tula@example.org")
    member.go("/wallet/topup/")
    member.look("wallet-topup")
    returns: list[str] = []
    member.page.on(
        "request",
        lambda request: returns.append(request.url) if "/top-up/success/" in request.url else None,
    )
    member.page.get_by_role("button", name="50.00").click()
    member.pay()
    member.see(re.compile("50.00 is in your wallet now"))
    has(member, "50.00")
    for _ in range(2):
        member.go(returns[0])
        member.see(re.compile("already processed"))
        has(member, "50.00")
    expect(member.page.locator(".entry")).to_have_count(1)
    member.look("wallet")


def test_a_top_up_that_is_given_up_costs_nothing_and_can_be_continued(visit: Visit) -> None:
    make_member("gil@example.org")
    member = visit()
    member.log_in("gil@example.org")
    top_up(member, "10.00")
    member.page.get_by_role("link", name=re.compile("^Cancel and return")).click()
    member.see(re.compile("nothing was charged"))
    member.look("wallet-cancelled")
    member.press("Continue paying")
    member.pay()
    member.see(re.compile("10.00 is in your wallet now"))
    has(member, "10.00")


def test_a_ticket_and_a_service_are_paid_from_the_wallet(visit: Visit) -> None:
    make_member("wilma@example.org")
    member = visit()
    member.log_in("wilma@example.org")
    top_up(member, "500.00")
    member.pay()
    has(member, "500.00")
    member.go("/events/desert-jazz")
    member.page.get_by_label("Rug", exact=True).fill("2")
    member.page.get_by_label(re.compile("^Wallet")).check()
    member.look("event-wallet")
    member.press("Order and pay")
    member.see("You’re going to Desert Jazz under the Stars")
    member.go("/wallet/")
    has(member, "260.00")

    member.press("Use a service")
    member.look("services")
    member.press("QR code")
    member.page.locator("#text").fill("https://example.org/lantern-night")
    member.page.get_by_role("button", name=re.compile("^Use it for")).click()
    member.see(re.compile("was taken from your wallet"))
    member.look("service-done")
    member.go("/wallet/")
    has(member, "259.00")


def test_a_service_that_the_wallet_cannot_pay_takes_nothing(visit: Visit) -> None:
    make_member("paula@example.org")
    member = visit()
    member.foresee("status of 402")
    member.log_in("paula@example.org")
    member.go("/wallet/agents/qr-code/")
    member.page.locator("#text").fill("https://example.org/")
    member.page.get_by_role("button", name=re.compile("^Use it for")).click()
    expect(member.page.get_by_role("alert")).to_contain_text("Top up your wallet")
    member.look("service-poor")
    member.go("/wallet/")
    has(member, "0.00")
