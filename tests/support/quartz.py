"""Quartz: a toy provider that can be asked, and nothing else: not closed, not searched, nothing sent back.

Its payments are codes to scan that live for three minutes. It lives in memory; what is on its counter is
`BANK`, and what goes wrong with the next call is `trouble`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Lock
from typing import Any

import pytest

from config import Settings
from domain import clock
from domain.providers import registry
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
from domain.providers.failure_reasons import Reason
from tests.support.benches import fresh

# A state of the bank's that no document tells of: the adapter says that it is not over.
UNHEARD = "unheard"
LIVES = timedelta(minutes=3)
LINGERS = timedelta(minutes=2)


@dataclass
class Bank:
    """What is on the other side: states by id, and how often it was asked to make one."""

    payments: dict[str, dict[str, Any]] = field(default_factory=dict)
    creates: int = 0
    # "before": refused at the door; "after": made, and the answer is lost; "refused": for good.
    trouble: str = ""
    lock: Lock = field(default_factory=Lock)

    def be(self, provider_id: str, state: str) -> None:
        """Somebody scans, pays, or is refused."""
        self.payments[provider_id]["state"] = state


BANK = Bank()


def use(monkeypatch: pytest.MonkeyPatch) -> Bank:
    """Put Quartz among the providers, with an empty bank."""
    global BANK
    fresh(monkeypatch)
    BANK = Bank()
    monkeypatch.setitem(registry._BUILDERS, "quartz", "tests.support.quartz")
    return BANK


def build(settings: Settings) -> Quartz:
    return Quartz()


class Quartz:
    """See `domain.providers.Provider`."""

    name = "quartz"
    label = "Quartz"
    methods = ("quartz",)
    can = Abilities(close=False, refund=False, search=False, lingers=LINGERS)
    immediate = False
    connects = False
    pending_alert = False
    keeps_refund_keys = False
    open_minutes = 20
    ready = True
    account = "quartz-1"
    livemode = False

    def presents(self, method: str) -> Presentation:
        return Presentation.QR

    def supports(self, currency: str) -> bool:
        return True

    def minimum_minor(self, currency: str) -> int:
        return 1

    def params(self, purchase: Purchase) -> dict[str, Any]:
        return {
            "reference": purchase.reference,
            "amount_minor": purchase.amount_minor,
            "currency": purchase.currency,
        }

    def create(self, params: dict[str, Any], key: str, *, patient: bool = False) -> Report:
        with BANK.lock:
            BANK.creates += 1
            if BANK.trouble == "before":
                raise ProviderError("It is full.", permanent=False, code="429", undone=True)
            if BANK.trouble == "refused":
                raise ProviderError("It wants no such payment.", permanent=True, code="refused")
            name = f"quartz-{BANK.creates}"
            BANK.payments[name] = {**params, "state": "open", "until": clock.now() + LIVES}
            if BANK.trouble == "after":
                raise ProviderError("It did not answer.", permanent=False, code="timeout", silent=True)
        return self.fetch(name)

    def find(self, reference: str, since: datetime, *, patient: bool = True) -> Report | None:
        raise ProviderError("It has no list.", permanent=False, code="cannot_search")

    def fetch(self, provider_id: str, *, patient: bool = False, thorough: bool = False) -> Report:
        known = BANK.payments.get(provider_id)
        if known is None:
            raise Missing("It has no such payment.")
        failed = known["state"] == "failed"
        return Report(
            provider=self.name,
            provider_id=provider_id,
            state="processing" if known["state"] == UNHEARD else known["state"],
            amount_minor=known["amount_minor"],
            currency=known["currency"],
            reference=known["reference"],
            account=self.account,
            livemode=False,
            expires_at=known["until"],
            url=f"https://quartz.example/{provider_id}" if known["state"] == "open" else None,
            charge_id=f"{provider_id}-charge" if known["state"] == "paid" else None,
            reason="Refused in the app." if failed else "",
            reason_code=Reason.BANK_REFUSED if failed else "",
        )

    def pages(self, since: datetime, until: datetime) -> Iterator[list[Report]] | None:
        return None

    def happened(self, since: datetime, until: datetime) -> Iterator[Told] | None:
        return None

    def behind(self, happening: Happening) -> Report | None:
        return None

    def close(self, provider_id: str, key: str, *, patient: bool = False) -> Report:
        raise AssertionError("Nothing can be closed there, so nobody may ask for it.")

    def refund(self, provider_id: str, amount_minor: int, key: str, *, patient: bool = False) -> RefundReport:
        raise AssertionError("Nothing is sent back by a call, so nobody may ask for it.")

    def find_refund(self, provider_id: str, key: str) -> RefundReport | None:
        raise AssertionError("No refund of ours is there.")

    def refunded_minor(self, provider_id: str, *, patient: bool = False) -> int:
        raise AssertionError("It does not tell what went back.")

    def health(self) -> Mapping[str, Any]:
        return {"account": self.account}
