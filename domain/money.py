"""Minor units and currencies: how many decimals each has, parsing what a person types, formatting for one."""

from __future__ import annotations

import re
import unicodedata
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
# A space between digits can only stand for thousands, and only before three of them.
_SPACED = re.compile(r"(?<=[0-9]) (?=[0-9]{3}(?![0-9]))")
# Thousands that were set apart otherwise, with what people put between digits: points and commas (Arabic,
# full-width and ideographic ones, too), apostrophes, underscores. It is refused, with what to type instead.
_GROUPED = re.compile(r"([0-9]{1,3}([.,'_ ])[0-9]{3}(?:\2[0-9]{3}){0,4})(?:[.,]([0-9]{1,2}))?")
_LIKE_A_POINT = str.maketrans(
    dict.fromkeys("\uff0e\u066b\u3002\uff61\u00b7", ".")
    | dict.fromkeys("\uff0c\u060c\u3001\ufe50", ",")
    | dict.fromkeys("\u2019\u2018\u02bc\uff07\u00b4`\u2032\u066c\uff3f", "'")
)


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
    """What a person typed as an amount, in minor units. Not negative; MoneyError in the reader's words.

    A point or comma before three digits may stand for thousands or for decimals, and which of them is not
    guessed: the error says both. Exponents, other scripts' digits and other separators are refused likewise.
    """
    read = _read(text)
    if read is None:
        raise MoneyError("not_an_amount", f"“{text.strip()[:40]}” is not an amount. {_instead(text)}")
    amount, thousands = read
    if amount < 0:
        raise MoneyError("not_an_amount", "The amount must be zero or more.")
    if thousands is not None:
        raise _which(text.strip(), amount, thousands, currency)
    minor = to_minor(amount, currency)
    if minor > MAX_MINOR:
        raise MoneyError("too_much", f"The largest amount is {show(MAX_MINOR, currency)}.")
    return minor


def readings(text: str) -> list[Decimal]:
    """All that a typed amount can mean, in major units: for a search, which may find more than was meant."""
    read = _read(text)
    return [] if read is None else [amount for amount in read if amount is not None]


def plain(minor: int, currency: str) -> str:
    """An amount as a person would type it: what a field shows is never asked about when it is sent back."""
    typed = f"{to_major(minor, currency):f}"
    whole, _, rest = typed.partition(".")
    return (
        f"{whole}.{rest.removesuffix('0') if rest.endswith('0') else rest + '0'}" if len(rest) == 3 else typed
    )


def _read(text: str) -> tuple[Decimal, Decimal | None] | None:
    """A typed number and, where its separator may be for thousands, what it means then. None: no number."""
    typed = _SPACED.sub("", " ".join(text.split()))
    if not config.TYPED_AMOUNT.fullmatch(typed):
        return None
    whole, _, rest = typed.replace(",", ".").partition(".")
    amount = Decimal(f"{whole}.{rest}" if rest else whole)
    return amount, Decimal(whole + rest) if len(rest) >= 3 and whole.strip("-0") else None


def _which(typed: str, amount: Decimal, thousands: Decimal, currency: str) -> MoneyError:
    """The question what a separator means. Where its amount has too many decimals, that is said, too."""
    largest = to_major(MAX_MINOR, currency)
    large = (
        f"{thousands:f} for {show(to_minor(thousands, currency), currency)}" if thousands <= largest else ""
    )
    try:
        minor = to_minor(amount, currency)
    except MoneyError as error:
        return MoneyError(error.code, f"{error.message} Or type {large}." if large else error.message)
    if minor > MAX_MINOR:
        return MoneyError("too_much", f"The largest amount is {show(MAX_MINOR, currency)}.")
    choices = [
        large or f"less than {show(MAX_MINOR, currency)}",
        f"{plain(minor, currency)} for {show(minor, currency)}",
    ]
    return MoneyError("which_amount", f"“{typed[:30]}” may mean two amounts. Type {' or '.join(choices)}.")


def _instead(text: str) -> str:
    """What to type in place of what is no amount: its digits, where it is one in another writing."""
    typed = "".join(
        sign if sign.isascii() or (digit := unicodedata.decimal(sign, None)) is None else str(digit)
        for sign in " ".join(text.split())[:40].translate(_LIKE_A_POINT)
    )
    read = _read(typed)
    if read is not None and typed != text.strip():
        amount, thousands = read
        return f"Type {amount:f}." if thousands is None else f"Type {thousands:f} or {amount.normalize():f}."
    grouped = _GROUPED.fullmatch(typed)
    if grouped is None:
        return "Type a number such as 12.50."
    return f"Type {re.sub('[^0-9]', '', grouped[1])}{'.' + grouped[3] if grouped[3] else ''}."


def check_settings(settings: config.Settings) -> None:
    """Refuse currencies and a listing fee that nobody could be asked to pay. Raises config.ConfigError."""
    fee = f"{settings.listing_fee:f}"
    checks: dict[str, Callable[[], object]] = {
        "CURRENCY": lambda: check_currency(settings.currency),
        "WALLET_CURRENCY": lambda: check_currency(settings.wallet_currency),
        "LISTING_FEE_CURRENCY": lambda: check_currency(settings.listing_fee_currency),
        "LISTING_FEE": lambda: parse(fee, settings.listing_fee_currency),
        "DESK_REFUND_PER_ORDER": lambda: parse(f"{settings.desk_refund_per_order:f}", settings.currency),
        "DESK_REFUND_PER_DAY": lambda: parse(f"{settings.desk_refund_per_day:f}", settings.currency),
        "WALLET_TOPUP_AMOUNTS": lambda: [
            parse(str(amount), settings.wallet_currency) for amount in settings.topup_amounts
        ],
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
