"""What is read and written to the last digit: amounts, numbers, JSON that says two things."""

from __future__ import annotations

import json
from decimal import Decimal
from enum import StrEnum

import pytest
from pydantic import ValidationError

from blueprints.api import shapes, wire
from blueprints.api.shapes import Answer, Body, Choice, Day, Moment, Money, Priced, sums
from domain import clock


class Colour(StrEnum):
    RED = "red"


class Sent(Priced):
    colour: Choice[Colour] | None = None
    count: int = 1
    sure: bool = False
    day: Day | None = None


class Told(Answer):
    amount: Money
    amount_minor: int
    currency: str
    at: Moment | None = None


def read(amount: str, currency: str = "USD", more: str = "") -> Sent:
    body = f'{{"amount": {amount}, "currency": "{currency}"{more}}}'
    return Sent.model_validate(wire.read(body.encode()))


@pytest.mark.parametrize(
    ("written", "currency", "minor"),
    [
        ("50.00", "USD", 5000),
        ("50", "USD", 5000),
        ("50.1", "USD", 5010),
        ('"50.00"', "USD", 5000),
        ('"50"', "USD", 5000),
        ("0", "USD", 0),
        ("0.07", "USD", 7),
        ("5000", "JPY", 5000),
        ("1.250", "BHD", 1250),
        ("999999.99", "KZT", 99999999),
    ],
)
def test_amounts(written: str, currency: str, minor: int) -> None:
    assert read(written, currency).amount_minor == minor


@pytest.mark.parametrize(
    ("written", "currency"),
    [
        *(
            (text, "USD")
            for text in ("50.001", "50.000", "50.000000000000000001", "0.1234", "-50", "-0", "-0.0")
        ),
        *(
            (text, "USD")
            for text in ("5e1", "5E1", "50e0", "5.0e1", "1e400", "true", "false", "null", "[]", "{}")
        ),
        *(
            (f'"{text}"', "USD")
            for text in ("", " ", "50.", ".5", "050", "5e1", "+50", "-50", " 50", "50 ", "50,00")
        ),
        *(
            (f'"{text}"', "USD")
            for text in ("NaN", "Infinity", "0x32", "5_0", "$50", "50.000", "true", "1,000")
        ),
        ('"\u0665\u0660"', "USD"),
        ('"50\\n"', "USD"),
        ("50.5", "JPY"),
        ("50.0", "JPY"),
        ("1.2505", "BHD"),
        ("1" * 13, "USD"),
        ("50", "usd"),
        ("50", "EURO"),
        ("50", "XYZ"),
        ("50", "EUR\\n"),
    ],
)
def test_amounts_that_are_refused(written: str, currency: str) -> None:
    with pytest.raises(ValidationError):
        read(written, currency)


@pytest.mark.parametrize(
    "body",
    [
        *('{"a": NaN}', '{"a": Infinity}', '{"a": -Infinity}', '{"a": 1, "a": 2}', '{"a": {"b": 1, "b": 1}}'),
        *("", "{", "nothing", "{'a': 1}", '{"a": 01}', '{"a": 1,}', '{"a": ' + "9" * 5000 + "}", "[" * 2000),
        *('{"a": 1.' + "0" * 100 + "}", "\ufeff{}", '{"a": 1} {"a": 2}'),
    ],
)
def test_json_that_is_refused(body: str) -> None:
    with pytest.raises(wire.Unreadable):
        wire.read(body.encode())


def test_text_that_is_no_utf8_is_refused() -> None:
    for body in (b'{"a": "\xff"}', '{"a": "\u00e4"}'.encode("latin-1"), '{"a": 1}'.encode("utf-16")):
        with pytest.raises(wire.Unreadable):
            wire.read(body)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (', "count": "1"', "count must be a whole number."),
        (', "count": 1.0', "count must be a whole number."),
        (', "count": true', "count must be a whole number."),
        (', "count": -0', "count must be a whole number."),
        (', "sure": 1', "sure must be true or false."),
        (', "sure": "true"', "sure must be true or false."),
        (', "colour": "blue"', "colour must be 'red'."),
        (', "colour": 1', "colour must be 'red'."),
        (', "day": "2026-02-30"', "day must be a day such as 2026-05-31."),
        (', "day": 1780000000', "day must be a day such as 2026-05-31."),
        (', "day": "2026-05-31T00:00"', "day must be a day such as 2026-05-31."),
        (', "size": 1', "size is no field here."),
    ],
)
def test_types_are_what_they_are(more: str, words: str) -> None:
    with pytest.raises(ValidationError) as refused:
        read("50", more=more)
    assert shapes.say(refused.value) == words


def test_choices_and_days_are_read() -> None:
    sent = read("50", more=', "colour": "red", "day": "2026-05-31", "count": 2, "sure": true')
    assert (sent.colour, sent.day.isoformat() if sent.day else "", sent.count) == (
        Colour.RED,
        "2026-05-31",
        2,
    )
    assert sent.sure


@pytest.mark.parametrize(
    ("minor", "currency", "written"),
    [
        (5000, "USD", "50.00"),
        (0, "USD", "0.00"),
        (1, "USD", "0.01"),
        (5000, "JPY", "5000"),
        (1250, "BHD", "1.250"),
    ],
)
def test_amounts_go_out_as_numbers_with_their_decimals(minor: int, currency: str, written: str) -> None:
    text = wire.write(Told(**sums(minor, currency)).model_dump())
    assert f'"amount":{written},"amount_minor":{minor},' in text
    assert wire.write(wire.read(text.encode())) == text, "what is kept and sent again is the same"
    assert json.loads(text)["amount"] == float(written)


def test_moments_go_out_in_utc() -> None:
    at = clock.now().replace(2026, 5, 31, 14, 30, 5, 999)
    told = Told(**sums(1, "EUR"), at=at).model_dump()
    assert told["at"] == "2026-05-31T14:30:05Z"
    assert told["amount"] == Decimal("0.01")


def test_bodies_are_strict() -> None:
    assert Body.model_config["strict"]
    assert Body.model_config["extra"] == "forbid"
