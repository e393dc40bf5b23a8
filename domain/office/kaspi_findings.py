"""What the doctor says of Kaspi's settings, and of what its QR API told of the account."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

import config
import kaspi_modes
from domain import clock
from domain.office.finding import FAIL, OK, WARN, Finding

_CODE, _TITLE = "kaspi_account", "Kaspi"
# A new certificate takes Kaspi some days.
_SOON = timedelta(days=30)


def settings() -> Finding:
    """Whether Kaspi is set up, and whether its payments are real."""
    now = config.get()
    if not now.kaspi_mode:
        return Finding(_CODE, _TITLE, OK, "It is not used. Set KASPI_MODE to take tenge through it.")
    if now.kaspi_mode in kaspi_modes.QR_API and not now.kaspi_device_token:
        words = f"KASPI_MODE is {now.kaspi_mode}, and this Kassa is no device yet, so it takes nothing."
        fix = "Run `flask kaspi register-device`, and set KASPI_DEVICE_TOKEN to what it prints."
        return Finding(_CODE, _TITLE, FAIL, words, fix)
    words = f"KASPI_MODE is {now.kaspi_mode}, for {now.kaspi_account}"
    if not now.kaspi_test:
        return Finding(_CODE, _TITLE, OK, f"{words}: payments move real money.")
    if now.development:
        return Finding(_CODE, _TITLE, OK, f"{words}, for tests: no real money.")
    fix = "Set what Kaspi gave you for real sales, and remove KASPI_TEST, when you are ready to sell."
    return Finding(_CODE, _TITLE, WARN, f"{words}, for tests, so buyers get tickets without real money.", fix)


def of_health(code: str, title: str, words: str, facts: Mapping[str, Any]) -> Finding | None:
    """What is wrong in what a provider tells of its account: a device's place, a certificate's end."""
    if facts.get("trade_point_known") is False:
        fix = "Compare KASPI_TRADE_POINT with what `flask kaspi trade-points` prints."
        return Finding(code, title, FAIL, f"{words} The trade point of the settings is none of its.", fix)
    ends = facts.get("certificate_ends")
    left = date.fromisoformat(ends) - clock.now().date() if isinstance(ends, str) else _SOON
    if left < _SOON:
        fix = "Ask for a new certificate, and set KASPI_PFX and KASPI_PFX_PASSWORD."
        state = WARN if left >= timedelta(0) else FAIL
        return Finding(code, title, state, f"{words} The certificate ends on {ends}.", fix)
    return None
