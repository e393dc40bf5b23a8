"""Somebody with a browser, who notices what goes wrong in it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, WebError, expect

from tests.browser.house import House
from tests.support.people import PASSWORD

PHONE, DESK = 390, 1280
PATIENCE_MS = 40_000
_HEIGHTS = {PHONE: 844, DESK: 900}
_AXE = Axe()
# What a browser says in its console when the policy stops something it never draws is easily missed.
_WATCH = """
document.addEventListener("securitypolicyviolation", (event) =>
  console.error(`policy: ${event.violatedDirective} stopped ${event.blockedURI} at ${location.pathname}`));
"""
GOOD_CARD, DECLINED_CARD = "4242 4242 4242 4242", "4000 0000 0000 0002"


class Visitor:
    """One person's browser: a window, its cookies, and a list of what went wrong in it."""

    def __init__(
        self, browser: Browser, house: House, *, width: int, javascript: bool, base_url: str = ""
    ) -> None:
        self.house = house
        self.width = width
        self.problems: list[str] = []
        self._foreseen: list[str] = []
        self._javascript = javascript
        self.context = browser.new_context(
            base_url=base_url or house.url,
            viewport={"width": width, "height": _HEIGHTS[width]},
            java_script_enabled=javascript,
            has_touch=width == PHONE,
            accept_downloads=True,
            # Colours are measured as they are, not on their way to being so.
            reduced_motion="reduce",
        )
        self.context.set_default_timeout(PATIENCE_MS)
        self.context.on("console", self._heard)
        self.context.on("weberror", self._crashed)
        self.context.add_init_script(_WATCH)
        self.page: Page = self.context.new_page()

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.problems.append(f"{message.text} ({message.location.get('url', '')})")

    def _crashed(self, error: WebError) -> None:
        self.problems.append(str(error.error))

    def foresee(self, words: str) -> None:
        """Not a problem: an error of the console that matches `words`, which this visit is about."""
        self._foreseen.append(words)

    def close(self) -> list[str]:
        """Close the browser; what went wrong in it."""
        self.context.close()
        return [
            problem
            for problem in self.problems
            if not any(re.search(words, problem) for words in self._foreseen)
        ]

    # --- Looking --------------------------------------------------------------------------------------------

    def go(self, path: str) -> None:
        self.page.goto(path)

    def see(self, words: str | re.Pattern[str]) -> Locator:
        """Expect these words on the page, where the reader can see them."""
        found = self.page.get_by_text(words).filter(visible=True).first
        expect(found).to_be_visible(timeout=PATIENCE_MS)
        return found

    def look(self, name: str) -> None:
        """Look closely: the page fits in the window at both widths, and axe finds nothing serious in it.

        With KASSA_SHOTS=<folder>, pictures of it are kept there under `name`.
        """
        # A press waits until its page begins to arrive; what is looked at must be there.
        self.page.wait_for_load_state()
        for width in (DESK, PHONE) if self.width == PHONE else (PHONE, DESK):
            self.page.set_viewport_size({"width": width, "height": _HEIGHTS[width]})
            self._keep(name, width)
            over = self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert over <= 0, f"{name} is {over} px too wide at {width} px: {self._widest()}"
        if self._javascript:
            self._ask_axe(name)

    def _widest(self) -> Any:
        wide = "element => element.getBoundingClientRect().right > innerWidth"
        first = f"[...document.querySelectorAll('body *')].filter({wide}).slice(0, 5)"
        return self.page.evaluate(f"{first}.map(element => element.outerHTML.slice(0, 120))")

    def _keep(self, name: str, width: int) -> None:
        folder = os.environ.get("KASSA_SHOTS")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=Path(folder) / f"{name}-{width}.png", full_page=True)

    def _ask_axe(self, name: str) -> None:
        # Nothing here needs what axe would load anew beforehand: styles of other origins, sounds.
        options = {"resultTypes": ["violations"], "preload": False}
        found = _AXE.run(self.page, options=options).response["violations"]
        # Colours are the one thing that differs in the dark.
        self.page.emulate_media(color_scheme="dark")
        only_colours = {"resultTypes": ["violations"], "runOnly": ["color-contrast"]}
        # axe is in the page by now.
        found += self.page.evaluate("options => axe.run(document, options)", only_colours)["violations"]
        self._keep(f"{name}-dark", self.width)
        self.page.emulate_media(color_scheme="light")
        bad = [violation for violation in found if violation["impact"] in ("serious", "critical")]
        told = [
            {
                "rule": each["id"],
                "at": [(node["target"], node["failureSummary"]) for node in each["nodes"][:4]],
            }
            for each in bad
        ]
        assert not bad, f"axe on {name}: {json.dumps(told, indent=1)}"

    # --- Doing ----------------------------------------------------------------------------------------------

    def press(self, name: str, *, within: str = "main") -> None:
        """Press the button or follow the link that says `name`, in the page's own part or in its `header`."""
        part = self.page.locator(within)
        button = part.get_by_role("button", name=name, exact=True)
        link = part.get_by_role("link", name=name, exact=True)
        button.or_(link).filter(visible=True).first.click()

    def order(self, slug: str, kind: str, count: int, name: str, email: str) -> None:
        """Fill in and send an event page's form."""
        self.go(f"/events/{slug}")
        self.page.get_by_label(kind, exact=True).fill(str(count))
        self.page.get_by_label("Your name").fill(name)
        self.page.get_by_label("E-mail").fill(email)
        self.press("Continue to payment")

    def pay(self, card: str = GOOD_CARD, *, button: str | None = None) -> None:
        """Fill in the provider's page and press its button: the main one, or the one that says `button`."""
        form = self.page.locator("form.card")
        form.get_by_label("Card number").fill(card)
        form.get_by_label("Expiry").fill("12 / 34")
        form.get_by_label("CVC").fill("123")
        (form.get_by_role("button", name=button) if button else form.locator("button.main")).click()

    def log_in(self, email: str, password: str = PASSWORD) -> None:
        """Log in by the form."""
        self.go("/account/login")
        self.page.get_by_label("E-mail").fill(email)
        self.page.get_by_label("Password", exact=True).fill(password)
        self.press("Log in")
        self.see("Your account")
