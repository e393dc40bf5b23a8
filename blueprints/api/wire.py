"""JSON as it is on the line: what is read and written is exact to the last digit.

Python's own reader turns 50.10 into something near it and takes NaN, and of two fields of one name the last;
Flask's writer makes texts of decimals. Here a number keeps the text that it was written as.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, NoReturn

import simplejson

JSON = "application/json"
# No amount and no count of ours is longer; reading a long number costs more than its length.
_LONGEST_NUMBER = 40


class Unreadable(ValueError):
    """What was sent is no JSON that can be read in one way only. Its text says why."""


class Written(Decimal):
    """A number of a body, with the text that it was sent as."""

    text: str


def read(body: bytes) -> Any:
    """The value that is written in `body`. Numbers with a point or an exponent are `Written`; Unreadable."""
    try:
        return json.loads(
            body.decode(),
            parse_float=_number,
            parse_int=_whole,
            parse_constant=_no_number,
            object_pairs_hook=_object,
        )
    except Unreadable:
        raise
    except (ValueError, RecursionError) as error:
        raise Unreadable("The body is not JSON that can be read.") from error


def write(value: Any) -> str:
    """JSON for what is made of dicts, lists, texts, numbers, Decimals (as numbers), true, false and null."""
    return simplejson.dumps(
        value, use_decimal=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False
    )


def write_to_read(value: Any) -> str:
    """The same on several lines, for a page."""
    return simplejson.dumps(value, use_decimal=True, ensure_ascii=False, indent=2, allow_nan=False)


def _number(text: str) -> Written:
    if len(text) > _LONGEST_NUMBER:
        raise Unreadable("A number in the body has too many digits.")
    number = Written(text)
    number.text = text
    return number


def _whole(text: str) -> int | Written:
    # What is below zero by its sign alone would lose it.
    return _number(text) if len(text) > _LONGEST_NUMBER or text == "-0" else int(text)


def _no_number(text: str) -> NoReturn:
    raise Unreadable(f"{text} is no number in JSON.")


def _object(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in pairs:
        if name in made:
            raise Unreadable(f"The field “{name[:40]}” is in the body twice.")
        made[name] = value
    return made
