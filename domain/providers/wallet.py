"""Paying from the wallet: the money is already in our own ledger, so a payment is settled as it starts.

The transfer itself is made by `settling.settle`, in the transaction that settles; if the wallet lacks the
money, nothing of that transaction stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from config import Settings
from domain.providers.contract import (
    Abilities,
    Happening,
    Missing,
    Presentation,
    Purchase,
    RefundReport,
    Report,
    Told,
)


def build(settings: Settings) -> WalletProvider:
    """The adapter; it has nothing to configure but the mode."""
    return WalletProvider(settings.livemode)


class WalletProvider:
    """See `domain.providers.Provider`. `account` of a payment is the buyer's wallet in the ledger."""

    name = "wallet"
    label = "Wallet"
    methods: tuple[str, ...] = ("wallet",)
    can = Abilities()
    immediate = True
    connects = False
    pending_alert = False
    keeps_refund_keys = True
    # A payment is settled as it starts; what was interrupted in between is given up after these.
    open_minutes = 30
    account = "wallet"
    ready = True

    def __init__(self, livemode: bool) -> None:
        self.livemode = livemode

    def presents(self, method: str) -> Presentation:
        return Presentation.PAGE

    def supports(self, currency: str) -> bool:
        return True

    def minimum_minor(self, currency: str) -> int:
        return 1

    def params(self, purchase: Purchase) -> dict[str, Any]:
        return {
            "reference": purchase.reference,
            "amount_minor": purchase.amount_minor,
            "currency": purchase.currency,
            "account": purchase.account,
        }

    def create(self, params: dict[str, Any], key: str, *, patient: bool = False) -> Report:
        return Report(
            provider=self.name,
            provider_id=key,
            state="paid",
            amount_minor=params["amount_minor"],
            currency=params["currency"],
            reference=params["reference"],
            account=params["account"],
            livemode=self.livemode,
            charge_id=key,
        )

    def find(self, reference: str, since: datetime, *, patient: bool = True) -> Report | None:
        """Settling is all the trace a wallet payment leaves; a row that is still `created` was never paid."""
        return None

    def fetch(self, provider_id: str, *, patient: bool = False, thorough: bool = False) -> Report:
        raise Missing("A wallet payment has no record outside the ledger.")

    def pages(self, since: datetime, until: datetime) -> Iterator[list[Report]] | None:
        return None

    def happened(self, since: datetime, until: datetime) -> Iterator[Told] | None:
        """All that happens to a wallet is in the ledger."""
        return None

    def behind(self, happening: Happening) -> Report | None:
        return None

    def close(self, provider_id: str, key: str, *, patient: bool = False) -> Report:
        raise Missing("A wallet payment has no record outside the ledger.")

    def refund(self, provider_id: str, amount_minor: int, key: str, *, patient: bool = False) -> RefundReport:
        """The money moves in the ledger, where the refund's success is recorded."""
        return RefundReport(
            provider_id=key, amount_minor=amount_minor, currency="", state="succeeded", our_key=key
        )

    def find_refund(self, provider_id: str, key: str) -> RefundReport | None:
        return None

    def refunded_minor(self, provider_id: str, *, patient: bool = False) -> int:
        raise Missing("A wallet payment has no record outside the ledger.")

    def health(self) -> Mapping[str, Any]:
        return {"account": self.account}
