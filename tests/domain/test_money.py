"""Minor units: how many decimals each currency has, what people type, what they read."""

from __future__ import annotations

import random
from decimal import Decimal

import pytest

from domain import money
from domain.money import MoneyError

# As payment providers count them, which is not always as ISO 4217 does.
DECIMALS = {
    "EUR": 2,
    "USD": 2,
    "GBP": 2,
    "AED": 2,
    "KZT": 2,
    "JPY": 0,
    "KRW": 0,
    "CLP": 0,
    "VND": 0,
    "XOF": 0,
    "KWD": 3,
    "BHD": 3,
    "TND": 3,
    # No coins below the whole unit, and two decimals all the same.
    "HUF": 2,
    "ISK": 2,
    "TWD": 2,
}
# The smallest step that providers take.
STEPS = {"KWD": 10, "BHD": 10, "TND": 10, "ISK": 100}


@pytest.mark.parametrize(("currency", "places"), DECIMALS.items())
def test_decimals(currency: str, places: int) -> None:
    assert money.decimals(currency) == places
    assert money.to_minor(Decimal(7), currency) == 7 * 10**places
    assert money.to_major(7 * 10**places, currency) == 7


@pytest.mark.parametrize(
    ("text", "currency", "minor"),
    [
        ("12.50", "EUR", 1250),
        ("12,50", "EUR", 1250),
        ("12", "EUR", 1200),
        ("0", "EUR", 0),
        ("-0", "EUR", 0),
        ("0.01", "EUR", 1),
        ("  7.5 ", "EUR", 750),
        ("1 000", "EUR", 100000),
        ("1\u00a0000,50", "EUR", 100050),
        (".5", "EUR", 50),
        ("5.", "EUR", 500),
        ("0012", "EUR", 1200),
        ("0.500", "EUR", 50),
        ("0,500", "KWD", 500),
        ("1 000 000", "JPY", 1000000),
        ("100000", "JPY", 100000),
        ("999999.99", "EUR", 99999999),
        ("1250", "JPY", 1250),
        ("1250.0", "JPY", 1250),
        ("1.25", "KWD", 1250),
        ("100.5", "HUF", 10050),
        ("2500", "ISK", 250000),
    ],
)
def test_what_a_person_types(text: str, currency: str, minor: int) -> None:
    assert money.parse(text, currency) == minor


@pytest.mark.parametrize(
    ("text", "currency", "code"),
    [
        ("", "EUR", "not_an_amount"),
        ("  ", "EUR", "not_an_amount"),
        (".", "EUR", "not_an_amount"),
        ("abc", "EUR", "not_an_amount"),
        ("12.50 €", "EUR", "not_an_amount"),
        ("1.234,50", "EUR", "not_an_amount"),
        ("1,234.50", "EUR", "not_an_amount"),
        ("-1", "EUR", "not_an_amount"),
        ("-0.01", "EUR", "not_an_amount"),
        ("+5", "EUR", "not_an_amount"),
        ("1e3", "EUR", "not_an_amount"),
        ("1e999999", "EUR", "not_an_amount"),
        ("1_000", "EUR", "not_an_amount"),
        ("0x10", "EUR", "not_an_amount"),
        ("NaN", "EUR", "not_an_amount"),
        ("sNaN", "EUR", "not_an_amount"),
        ("Infinity", "EUR", "not_an_amount"),
        ("٣", "EUR", "not_an_amount"),
        ("½", "EUR", "not_an_amount"),
        ("1\x00", "EUR", "not_an_amount"),
        ("9" * 5000, "EUR", "not_an_amount"),
        ("12.505", "EUR", "too_precise"),
        # What may be for thousands is never taken for something cheaper.
        ("1,234", "EUR", "too_precise"),
        ("1,000", "EUR", "which_amount"),
        ("1.000", "EUR", "which_amount"),
        ("12.500", "EUR", "which_amount"),
        ("1,0000", "EUR", "which_amount"),
        ("-1,000", "EUR", "not_an_amount"),
        ("100,000", "JPY", "which_amount"),
        ("1,000", "KWD", "which_amount"),
        ("1.250", "KWD", "which_amount"),
        ("123,000", "ISK", "which_amount"),
        ("99999,000", "EUR", "which_amount"),
        ("1'000", "EUR", "not_an_amount"),
        ("1\u2019000", "CHF", "not_an_amount"),
        ("1\u066c000", "EUR", "not_an_amount"),
        ("1\uff0c000", "EUR", "not_an_amount"),
        ("\uff11\uff12", "EUR", "not_an_amount"),
        ("1,000,000", "EUR", "not_an_amount"),
        ("1 00", "EUR", "not_an_amount"),
        ("12 50", "EUR", "not_an_amount"),
        ("1 0000", "EUR", "not_an_amount"),
        ("1 000.000", "EUR", "which_amount"),
        ("1.5", "JPY", "too_precise"),
        ("1.2345", "KWD", "too_precise"),
        ("1.255", "KWD", "too_precise"),
        ("1.50", "ISK", "too_precise"),
        ("1000000", "EUR", "too_much"),
        ("100000000", "JPY", "too_much"),
        ("100000", "KWD", "too_much"),
        ("9" * 20, "EUR", "too_much"),
    ],
)
def test_what_is_no_amount(text: str, currency: str, code: str) -> None:
    with pytest.raises(MoneyError) as refused:
        money.parse(text, currency)
    assert refused.value.code == code
    assert refused.value.message.endswith(".") and len(refused.value.message) < 120


@pytest.mark.parametrize(
    ("text", "currency", "words"),
    [
        ("1,000", "EUR", "Type 1000 for €1,000.00 or 1.00 for €1.00."),
        ("100.000", "JPY", "Type 100000 for ¥100,000 or 100 for ¥100."),
        ("1.250", "KWD", "Type 1250 for KWD\u00a01,250.000 or 1.25 for KWD\u00a01.250."),
        ("1,234", "EUR", "EUR amounts have at most 2 digits after the point. Or type 1234 for €1,234.00."),
        ("1,000,000", "JPY", "Type 1000000."),
        ("1.234,50", "EUR", "Type 1234.50."),
        ("1'000", "CHF", "Type 1000."),
        ("\u0661\u0662\u066b\u0665\u0660", "AED", "Type 12.50."),
        ("\uff11\uff0c\uff10\uff10\uff10", "JPY", "Type 1000 or 1."),
        ("12 50", "EUR", "Type a number such as 12.50."),
    ],
)
def test_what_is_asked_about_is_answered_in_words(text: str, currency: str, words: str) -> None:
    with pytest.raises(MoneyError) as refused:
        money.parse(text, currency)
    assert refused.value.message.endswith(words)


def test_a_search_finds_whatever_an_amount_may_mean() -> None:
    assert money.readings("1,000") == [1, 1000]
    assert money.readings("45.00") == [45]
    assert money.readings("1e999999999") == []


@pytest.mark.parametrize(
    ("minor", "currency", "shown"),
    [
        (1250, "EUR", "€12.50"),
        (0, "EUR", "€0.00"),
        (1, "USD", "$0.01"),
        (123456789, "GBP", "£1,234,567.89"),
        (-500, "EUR", "-€5.00"),
        (1250, "JPY", "¥1,250"),
        (1250, "KWD", "KWD\u00a01.250"),
        (5000, "AED", "AED\u00a050.00"),
        (250000, "ISK", "ISK\u00a02,500.00"),
        (10050, "HUF", "HUF\u00a0100.50"),
        (500, "TWD", "NT$5.00"),
    ],
)
def test_what_a_person_reads(minor: int, currency: str, shown: str) -> None:
    assert money.show(minor, currency) == shown


def test_other_languages_have_other_commas() -> None:
    assert money.show(123456, "EUR", "de") == "€1.234,56"


def test_currencies() -> None:
    assert money.check_currency(" eur ") == "EUR"
    for unknown in ("", "EU", "EURO", "E1R", "€", "ZZZ", "XXX", "XTS", "XAU", "DEM"):
        with pytest.raises(MoneyError) as refused:
            money.check_currency(unknown)
        assert refused.value.code == "unknown_currency"
    with pytest.raises(MoneyError) as blocked:
        money.check_currency("ugx")
    assert blocked.value.code == "blocked_currency"


@pytest.mark.parametrize("currency", sorted(DECIMALS))
def test_minor_units_survive_every_way_through(currency: str) -> None:
    chance = random.Random(currency)
    step = STEPS.get(currency, 1)
    for _ in range(300):
        minor = chance.randint(0, money.MAX_MINOR // step) * step
        major = money.to_major(minor, currency)
        assert money.to_minor(major, currency) == minor
        # What a form shows is taken back as it is, with either mark.
        typed = money.plain(minor, currency)
        assert Decimal(typed) == major
        assert money.parse(typed, currency) == minor
        assert money.parse(typed.replace(".", ","), currency) == minor
        # What is shown reads as the same number.
        digits = "".join(sign for sign in money.show(minor, currency) if sign.isdigit() or sign == ".")
        assert Decimal(digits) == major


@pytest.mark.parametrize("currency", sorted(STEPS))
def test_between_the_provider_s_steps_there_is_nothing(currency: str) -> None:
    for minor in range(1, STEPS[currency]):
        with pytest.raises(MoneyError):
            money.parse(money.plain(minor, currency), currency)


def test_garbage_is_refused_and_never_breaks() -> None:
    chance = random.Random(7)
    signs = "0123456789.,-+ eE_xNaIinf\u00a0\u0663½\x00'"
    for _ in range(5000):
        text = "".join(chance.choices(signs, k=chance.randint(0, 12)))
        try:
            minor = money.parse(text, "EUR")
        except MoneyError:
            continue
        assert 0 <= minor <= money.MAX_MINOR
        assert minor == Decimal("".join(text.split()).replace(",", ".")) * 100
