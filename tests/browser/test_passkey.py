"""A second factor in a browser: the pages of the set-up, and a passkey of Chromium's own authenticator."""

from __future__ import annotations

import re
from collections.abc import Callable

import pyotp
import pytest

from domain import clock
from models import Role
from tests.browser.house import House
from tests.browser.visitor import Visitor
from tests.support.people import PASSWORD, make_member

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]
Visit = Callable[..., Visitor]
_AUTHENTICATOR = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}


def test_an_organiser_sets_up_an_app_and_a_passkey(house: House, visit: Visit) -> None:
    make_member("pia@example.org", Role.ORGANISER)
    pia = visit()
    pia.go("/account/login")
    pia.page.get_by_label("E-mail").fill("pia@example.org")
    pia.page.get_by_label("Password", exact=True).fill(PASSWORD)
    pia.press("Log in")
    pia.see("Please set it up before")
    pia.look("second-factor")
    pia.page.get_by_label("Your password").fill(PASSWORD)
    pia.press("Begin")
    pia.see("scan this picture")
    pia.look("second-factor-app")
    secret = pia.page.locator(".factor-secret").inner_text().replace(" ", "")
    pia.page.get_by_label("The code that the app shows now").fill(pyotp.TOTP(secret).at(clock.now()))
    pia.press("Go on")
    pia.see("Print these codes")
    pia.look("second-factor-codes")
    sheet = re.findall(r"[A-Z0-9]{4}(?:-[A-Z0-9]{4}){3}", pia.page.locator(".factor-codes").inner_text())
    assert len(sheet) == 10
    pia.page.get_by_label("Now type one of them, from the paper").fill(sheet[0])
    pia.press("I have them on paper")
    pia.see("Keep the sheet where you keep your papers")

    keeper = pia.context.new_cdp_session(pia.page)
    keeper.send("WebAuthn.enable")
    keeper.send("WebAuthn.addVirtualAuthenticator", {"options": _AUTHENTICATOR})
    pia.go("/account/second-factor/")
    pia.press("Add a passkey")
    pia.look("passkey-new")
    pia.page.get_by_label("Where is it kept?").fill("Pia's phone")
    pia.press("Make the passkey")
    pia.see("is added")
    pia.look("second-factor-done")
    pia.go("/account/devices/")
    pia.see("this one")
    pia.look("devices")

    pia.press("Log out", within="header")
    pia.go("/account/login?next=/organiser/")
    pia.page.get_by_label("E-mail").fill("pia@example.org")
    pia.page.get_by_label("Password", exact=True).fill(PASSWORD)
    pia.press("Log in")
    pia.see("Type the code that your app shows now.")
    pia.look("second-factor-asked")
    pia.press("Use a passkey")
    pia.see("My events")
