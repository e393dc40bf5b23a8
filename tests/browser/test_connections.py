"""OAuth in a real browser: to SumUp and back, a refusal, and the end of the connection."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from domain.people import accounts
from models import Role
from tests.browser.visitor import DESK, PHONE, Visitor
from tests.support.people import PASSWORD

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser-office")]
Visit = Callable[..., Visitor]


@pytest.mark.parametrize(("width", "merchant"), [(PHONE, "MALPHORN"), (DESK, "MVISTULA")])
def test_an_organiser_connects_an_account_and_ends_it(visit: Visit, width: int, merchant: str) -> None:
    email = f"connie{width}@example.org"
    accounts.create(email, PASSWORD, Role.ORGANISER, "Connie Connect")
    connie = visit(width=width)
    connie.log_in(email)
    connie.go("/organiser/connect/sumup")
    connie.look("connection-none")
    connie.press("Connect SumUp")
    connie.page.get_by_role("button", name="Refuse").click()
    connie.see(re.compile("You did not let"))
    connie.press("Connect SumUp")
    connie.page.get_by_label("Log in as").select_option(merchant)
    connie.page.get_by_role("button", name="Allow").click()
    connie.see(re.compile(f"Account {merchant} is connected"))
    connie.look("connection-connected")
    connie.press("Disconnect")
    connie.see(re.compile("The account is disconnected"))
    connie.look("connection-disconnected")
