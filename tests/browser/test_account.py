"""Becoming a member in a browser: the links in the mail, the orders of before, a forgotten password."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from domain.catalogue import events
from tests.browser.house import House
from tests.browser.visitor import Visitor
from tests.support.people import PASSWORD, make_member
from tests.support.shop import place

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]
Visit = Callable[..., Visitor]


def test_a_guest_becomes_a_member_and_finds_the_order(house: House, visit: Visit) -> None:
    order = place(events.event("open-rehearsal"), 2, name="Mona Member", email="mona@example.org")
    assert order.user_id is None
    mona = visit()
    mona.go("/account/login")
    mona.look("login")
    mona.press("Make an account")
    mona.look("register")
    mona.page.get_by_label("Your name").fill("Mona Member")
    mona.page.get_by_label("E-mail").fill("mona@example.org")
    mona.page.get_by_label("Password").fill(PASSWORD)
    mona.press("Make the account")
    mona.see("We have sent a mail to mona@example.org.")
    mona.look("account-mailed")

    mona.go(house.link("mona@example.org", "/account/confirm/"))
    mona.look("account-confirm")
    mona.page.get_by_label("Password", exact=True).fill(PASSWORD)
    mona.press("Confirm and log in")
    mona.see("Your e-mail address is confirmed, and you are logged in.")
    mona.see(order.code)
    mona.look("account")
    mona.press("Log out", within="header")
    mona.see("You are logged out.")
    mona.log_in("mona@example.org")
    mona.press("Open Rehearsal: Brass and Bread")
    mona.see("You’re going to Open Rehearsal: Brass and Bread")


def test_a_forgotten_password_is_replaced_by_a_link_that_works_once(house: House, visit: Visit) -> None:
    make_member("fay@example.org")
    fay = visit()
    fay.foresee("status of 4(00|10)")
    fay.go("/account/forgot")
    fay.look("forgot")
    fay.page.get_by_label("E-mail").fill("fay@example.org")
    fay.press("Send me the link")
    link = house.link("fay@example.org", "/account/reset/")
    fay.go(link)
    fay.look("reset")
    fay.page.get_by_label("New password").fill("four blue bottles")
    fay.press("Set it and log in")
    fay.see("Your new password is set, and you are logged in.")
    fay.press("Log out", within="header")
    fay.go(link)
    fay.see("This link does not work")
    fay.look("link-gone")

    fay.go("/account/login")
    fay.page.get_by_label("E-mail").fill("fay@example.org")
    fay.page.get_by_label("Password", exact=True).fill(PASSWORD)
    fay.press("Log in")
    fay.look("login-refused")
    fay.log_in("fay@example.org", "four blue bottles")
    fay.press("Change your password")
    fay.look("password")
