"""Minor units and currencies: how many decimals each has, parsing what a person types, formatting for one."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache

from babel.numbers import format_currency, get_currency_precision

import config
from domain.errors import DomainError

# Where payment providers count otherwise than ISO 4217 as Babel knows it (PROVIDERS: Stripe's lists).
ZERO_DECIMAL = frozenset(
    ["BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF"]
)
THREE_DECIMAL = frozenset(["BHD", "JOD", "KWD", "OMR", "TND"])
# Sources contradict each other on UGX's decimals at the provider, so it is not sold in; ISK is sent in
# hundredths of whole krónur there.
_BLOCKED = frozenset({"UGX"})
MAX_MINOR = 99_999_999
# What a person types; Decimal alone would take 1e9, 1_000 and other scripts' digits too.
_TYPED = re.compile(r"-?([0-9]{1,20}(\.[0-9]{0,10})?|\.[0-9]{1,10})")


class MoneyError(DomainError):
    """An amount or currency that cannot be used."""


def check_currency(code: str) -> str:
    """`code` in upper case; MoneyError when it is unknown or cannot be sold in."""
    code = code.strip().upper()
    if code not in config.known_currencies():
        raise MoneyError(
            "unknown_currency",
            f"“{code}” is not a currency that people pay with. Use three letters, such as EUR.",
        )
    if code in _BLOCKED:
        raise MoneyError(
            "blocked_currency", f"Payments in {code} are not supported. Choose another currency."
        )
    return code


def decimals(currency: str) -> int:
    """How many decimal places the currency's minor unit has, as payment providers count them."""
    if currency in ZERO_DECIMAL:
        return 0
    if currency in THREE_DECIMAL:
        return 3
    return 2 if currency in ("ISK", "HUF", "TWD") else max(2, get_currency_precision(currency))


def to_minor(amount: Decimal, currency: str) -> int:
    """Major units to minor units, exactly; MoneyError when there are too many decimals."""
    scaled = amount.scaleb(decimals(currency))
    if not scaled.is_finite() or scaled != scaled.to_integral_value():
        raise MoneyError(
            "too_precise", f"{currency} amounts have at most {decimals(currency)} digits after the point."
        )
    minor = int(scaled)
    if currency in THREE_DECIMAL and minor % 10 or currency == "ISK" and minor % 100:
        raise MoneyError("too_precise", f"Payment providers round {currency}: end the amount with a zero.")
    return minor


def to_major(minor: int, currency: str) -> Decimal:
    """Minor units to major units, with the currency's decimals."""
    return Decimal(minor).scaleb(-decimals(currency))


def parse(text: str, currency: str) -> int:
    """What a person typed as an amount, in minor units. Not negative; MoneyError in the reader's words."""
    cleaned = "".join(text.split()).replace(",", ".")
    if not _TYPED.fullmatch(cleaned):
        raise MoneyError(
            "not_an_amount", f"“{text.strip()[:40]}” is not an amount. Type a number such as 12.50."
        )
    amount = Decimal(cleaned)
    if amount < 0:
        raise MoneyError("not_an_amount", "The amount must be zero or more.")
    minor = to_minor(amount, currency)
    if minor > MAX_MINOR:
        raise MoneyError("too_much", f"The largest amount is {show(MAX_MINOR, currency)}.")
    return minor


def check_settings(settings: config.Settings) -> None:
    """Refuse currencies and a listing fee that nobody could be asked to pay. Raises config.ConfigError."""
    fee = f"{settings.listing_fee:f}"
    checks: dict[str, Callable[[], object]] = {
        "CURRENCY": lambda: check_currency(settings.currency),
        "WALLET_CURRENCY": lambda: check_currency(settings.wallet_currency),
        "LISTING_FEE_CURRENCY": lambda: check_currency(settings.listing_fee_currency),
        "LISTING_FEE": lambda: parse(fee, settings.listing_fee_currency),
    }
    for name, check in checks.items():
        try:
            check()
        except MoneyError as error:
            raise config.ConfigError(f"{name} cannot be used. {error.message}") from error


@lru_cache(maxsize=4096)
def show(minor: int, currency: str, locale: str = "en") -> str:
    """An amount for a person to read, such as €12.50."""
    places = decimals(currency)
    pattern = "¤#,##0" + ("." + "0" * places if places else "")
    major = to_major(minor, currency)
    shown = format_currency(major, currency, pattern, locale=locale, currency_digits=False)
    # A currency without a sign of its own is written by its letters, which a space keeps from the digits.
    return re.sub(r"([A-Za-z])(?=\d)", "\\1\u00a0", shown)
