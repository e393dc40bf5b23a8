"""What publishing an event costs, by the settings."""

from __future__ import annotations

from dataclasses import dataclass

import config
from domain import money
from domain.catalogue import prices


@dataclass(frozen=True)
class Fee:
    """What publishing costs: minor units of `currency`; 0 for nothing."""

    amount_minor: int
    currency: str

    @property
    def tag(self) -> str:
        """The fee as a form carries it."""
        return prices.tag(self.amount_minor, self.currency)


def fee() -> Fee:
    """The fee by the settings LISTING_FEE and LISTING_FEE_CURRENCY. DomainError where they make no amount."""
    settings = config.get()
    currency = money.check_currency(settings.listing_fee_currency)
    return Fee(money.parse(f"{settings.listing_fee:f}", currency), currency)
