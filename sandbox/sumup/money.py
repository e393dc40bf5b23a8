"""SumUp's money: major units as JSON numbers, in the currencies that it takes. Inside: minor units."""

from __future__ import annotations

import math
from decimal import Decimal

_CODES = "BRL CHF CLP COP CZK DKK EUR GBP HUF NOK PLN RON SEK USD"
CURRENCIES = tuple(_CODES.split())
_WHOLE = frozenset(("CLP",))
# Amounts that fail with any card, in major units, for trying out what a decline looks like.
FAILING = frozenset(Decimal(text) for text in ("11.00", "42.01", "42.76", "42.91"))
# What a float's noise may be, at most, in minor units.
_NOISE = Decimal("0.001")


def minor(amount: float, currency: str) -> int | None:
    """A JSON number as minor units, its float noise dropped; None where it is finer than the currency."""
    exact = Decimal(repr(amount)).scaleb(_digits(currency))
    whole = exact.to_integral_value()
    return int(whole) if abs(exact - whole) <= _NOISE else None


def major(amount_minor: int, currency: str, *, noisy: bool = False) -> float:
    """Minor units as a JSON number; `noisy` as 0.1 + 0.2 comes out of a float, one step beside."""
    value = amount_minor / 10 ** _digits(currency)
    return math.nextafter(value, math.inf) if noisy else value


def fee(amount_minor: int) -> int:
    """What SumUp keeps of a payment: 2.5 %."""
    return amount_minor * 25 // 1000


def show(amount_minor: int, currency: str) -> str:
    """An amount for a person: `12.50 EUR`."""
    digits = _digits(currency)
    return f"{Decimal(amount_minor).scaleb(-digits):,.{digits}f} {currency}"


def fails(amount_minor: int, currency: str) -> bool:
    """Whether it is one of the amounts that fail with any card."""
    return Decimal(amount_minor).scaleb(-_digits(currency)) in FAILING


def _digits(currency: str) -> int:
    return 0 if currency in _WHOLE else 2
