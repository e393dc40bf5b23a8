"""Cards as buyers type them into a hosted page, whichever provider's."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Typed:
    """A card that can be read. `number` is digits alone."""

    number: str
    exp_month: int
    exp_year: int


class Unreadable(Exception):
    """What was typed is no card. `field` is the form's; the text is for the buyer."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def read(number: str, expiry: str, cvc: str, today: tuple[int, int], known: Collection[str]) -> Typed:
    """The card that was typed, with any spaces, in the (year, month) `today`. Raises Unreadable.

    Test cards, which are `known`, need no right check digit.
    """
    digits = re.sub(r"[\s-]", "", number)
    if not re.fullmatch(r"[0-9]{13,19}", digits):
        raise Unreadable("number", "Your card number is incomplete.")
    if digits not in known and not _luhn(digits):
        raise Unreadable("number", "Your card number is invalid.")
    match = re.fullmatch(r"(0?[1-9]|1[0-2])\s*/?\s*((?:20)?[0-9]{2})", expiry.strip())
    if match is None:
        raise Unreadable("expiry", "Your card's expiration date is incomplete. Type it as MM / YY.")
    exp_month, exp_year = int(match.group(1)), 2000 + int(match.group(2)) % 100
    if (exp_year, exp_month) < today:
        raise Unreadable("expiry", "Your card's expiration date is in the past.")
    if not re.fullmatch(r"[0-9]{3,4}", cvc.strip()):
        raise Unreadable("cvc", "Your card's security code is incomplete.")
    return Typed(digits, exp_month, exp_year)


def _luhn(digits: str) -> bool:
    doubled = [int(d) * (1 + i % 2) for i, d in enumerate(reversed(digits))]
    return sum(d - 9 if d > 9 else d for d in doubled) % 10 == 0
