"""SumUp's documented test cards, the seeds' own, and what happens to each."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sandbox import cards

GOOD = "4200000000000091"
BAD = "4000000000000002"
THREE_D_SECURE = "4200000000000042"
_GOOD = frozenset((GOOD, THREE_D_SECURE, "4242424242424242", "5555444433331111", "5555555555554444"))
_DECLINES = {
    BAD: "The card was declined. Try another card.",
    "4000000000009995": "There is not enough money on the card. Try another card.",
}
NOT_A_TEST_CARD = "The card was declined: this is a sandbox, and only the test cards work here."
NOT_CONFIRMED = "The bank did not confirm the payment. Try again, or take another card."
FAILING_AMOUNT = "The payment failed. (This amount fails with any card, so that failing can be tried out.)"


@dataclass(frozen=True)
class Card:
    """A card as it was typed."""

    number: str

    @property
    def last4(self) -> str:
        return self.number[-4:]

    @property
    def type(self) -> str:
        return {"3": "AMEX", "4": "VISA", "5": "MASTERCARD"}.get(self.number[:1], "UNKNOWN")

    @property
    def decline(self) -> str:
        """Why this card is refused, in words for the buyer; "" for one that is good."""
        return "" if self.number in _GOOD else _DECLINES.get(self.number, NOT_A_TEST_CARD)

    @property
    def asks(self) -> bool:
        """Whether the bank asks its holder to confirm."""
        return self.number == THREE_D_SECURE


def read(number: str, expiry: str, cvc: str, now: float) -> Card:
    """The card that was typed, at the moment `now`. Raises sandbox.cards.Unreadable."""
    today = time.gmtime(now)
    known = _GOOD | _DECLINES.keys()
    return Card(cards.read(number, expiry, cvc, (today.tm_year, today.tm_mon), known).number)
