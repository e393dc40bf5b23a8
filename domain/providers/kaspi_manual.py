"""Kaspi by hand: our page says whom to pay, and a person who has looked at the bank's statement confirms it.

Nothing is opened anywhere, so no call is made, and nothing can be asked, closed or sent back by one. What the
base class has is the same for `biller` (kaspi_biller.py), where Kaspi calls us.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar

from config import Settings
from domain.providers.contract import (
    Abilities,
    Happening,
    Missing,
    Presentation,
    ProviderError,
    Purchase,
    RefundReport,
    Report,
    Told,
)

_CURRENCY = "KZT"
# Receipts are numbered by digits, with letters and strokes before or between: QR6458937894, 0123-4567/89.
_REFERENCE = re.compile(r"[A-Z0-9][A-Z0-9./-]{4,38}[A-Z0-9]")
_LEAST_DIGITS = 4
# What our own codes look like: who types one here has not looked at the bank.
_OURS = re.compile(r"ORD-?[A-Z0-9]{8}(-[0-9]+(-E[0-9]+)?)?")


class KaspiTold:
    """What is the same wherever Kaspi cannot be asked. See `domain.providers.Provider`.

    A payment's id says by which mode it was made, so that another mode never takes it for its own.
    """

    name = "kaspi"
    label = "Kaspi"
    methods: tuple[str, ...] = ("kaspi_qr",)
    immediate = False
    connects = False
    pending_alert = False
    keeps_refund_keys = True
    can: Abilities
    mode: ClassVar[str]

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.livemode = settings.kaspi_livemode
        # By its mode, too: what was opened in another one is not told in this one.
        self.account = f"{settings.kaspi_account}-{self.mode}"

    @property
    def open_minutes(self) -> int:
        return self._settings.kaspi_manual_minutes

    @property
    def ready(self) -> bool:
        return False

    @property
    def two_people_above_minor(self) -> int | None:
        return self._settings.kaspi_two_people_above_minor or None

    def presents(self, method: str) -> Presentation:
        return Presentation.WORDS

    def supports(self, currency: str) -> bool:
        return currency == _CURRENCY

    def minimum_minor(self, currency: str) -> int:
        """Nobody sends less than a tenge."""
        return 100

    def step_minor(self, currency: str) -> int:
        """Whole tenge, as in every mode, unless the operator says otherwise."""
        return 1 if self._settings.kaspi_allow_tiyn else 100

    def bank_reference(self, typed: str) -> str:
        found = re.sub(r"[\s№#]+", "", typed).upper()
        plausible = _REFERENCE.fullmatch(found) and sum(map(str.isdigit, found)) >= _LEAST_DIGITS
        return found if plausible and not _OURS.fullmatch(found) else ""

    def params(self, purchase: Purchase) -> dict[str, Any]:
        return {"reference": purchase.reference, "amount_minor": purchase.amount_minor}

    def create(self, params: dict[str, Any], key: str, *, patient: bool = False) -> Report:
        """Nothing is made anywhere: the payment is open from now on, and its page says what to do."""
        return Report(
            provider=self.name,
            provider_id=f"{self.mode}-{params['reference']}",
            state="open",
            amount_minor=params["amount_minor"],
            currency=_CURRENCY,
            reference=params["reference"],
            account=self.account,
            livemode=self.livemode,
            url=self._url,
        )

    @property
    def _url(self) -> str | None:
        return None

    def find(self, reference: str, since: datetime, *, patient: bool = True) -> Report | None:
        """What was not opened here is nowhere."""
        return None

    def fetch(self, provider_id: str, *, patient: bool = False, thorough: bool = False) -> Report:
        raise Missing(f"Kaspi cannot be asked in mode {self.mode}: reports are told.")

    def pages(self, since: datetime, until: datetime) -> Iterator[list[Report]] | None:
        return None

    def happened(self, since: datetime, until: datetime) -> Iterator[Told] | None:
        return None

    def behind(self, happening: Happening) -> Report | None:
        return None

    def close(self, provider_id: str, key: str, *, patient: bool = False) -> Report:
        raise self._cannot("close a payment")

    def refund(self, provider_id: str, amount_minor: int, key: str, *, patient: bool = False) -> RefundReport:
        raise self._cannot("send money back")

    def find_refund(self, provider_id: str, key: str) -> RefundReport | None:
        return None

    def refunded_minor(self, provider_id: str, *, patient: bool = False) -> int:
        raise self._cannot("tell what went back")

    def _cannot(self, what: str) -> ProviderError:
        words = f"Kaspi cannot {what} in mode {self.mode}."
        return ProviderError(words, permanent=True, code="not_possible", undone=True)

    def health(self) -> Mapping[str, Any]:
        """Nobody is asked: what is set is all that there is to know."""
        return {"account": self.account, "mode": "live" if self.livemode else "test", "form": self.mode}


class KaspiManual(KaspiTold):
    """The buyer sends the money in their own app; KASPI_MANUAL_TEXT says to whom."""

    mode = "manual"
    # Money that was sent at the last moment may be seen in the next statement only.
    can = Abilities(
        ask=False, close=False, refund=False, search=True, lingers=timedelta(hours=1), tells=False
    )

    @property
    def ready(self) -> bool:
        return bool(self._settings.kaspi_mode == self.mode and self._settings.kaspi_manual_text)

    @property
    def instructions(self) -> str:
        return self._settings.kaspi_manual_text
