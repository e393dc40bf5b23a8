"""The sandbox's merchants: the platform itself, eleven organisers, and whoever /control adds."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from sandbox import settings

PLATFORM = settings.SUMUP_MERCHANT
_BEGAN = 1_700_000_000.0


@dataclass(frozen=True)
class Merchant:
    """One SumUp account. `created` is in seconds since the epoch."""

    code: str
    name: str
    email: str
    country: str
    currency: str
    created: float = _BEGAN

    @property
    def number(self) -> int:
        """The number that the older parts of the API know a merchant by."""
        return 100_000 + zlib.crc32(self.code.encode()) % 900_000


_ORGANISERS = (
    ("MHARBOUR", "Harbour Jazz Club", "DE", "EUR"),
    ("MLANTERN", "Lantern Theatre", "DE", "EUR"),
    ("MORCHARD", "Orchard Folk Days", "FR", "EUR"),
    ("MRIVERBK", "Riverbank Cinema", "IE", "EUR"),
    ("MCLOCKTW", "Clocktower Comedy", "GB", "GBP"),
    ("MFJORDEN", "Fjorden Lyd", "NO", "NOK"),
    ("MALPHORN", "Alphorn im Hof", "CH", "CHF"),
    ("MVISTULA", "Vistula Chamber Music", "PL", "PLN"),
    ("MSODERBL", "Söder Blues", "SE", "SEK"),
    ("MCHESSUS", "Open Boards Chess", "US", "USD"),
    # The account of the demo's organiser, which the others leave free for whoever tries connecting one.
    ("MPIERNIN", "Pier Nine Sessions", "IE", "EUR"),
)
FIXED = {
    code: Merchant(code, name, f"{code.lower()}@sumup.example.org", country, currency)
    for code, name, country, currency in (
        (PLATFORM, settings.MERCHANT, "DE", "EUR"),
        *_ORGANISERS,
    )
}
