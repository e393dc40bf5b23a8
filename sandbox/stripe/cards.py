"""The documented test cards, and what happens to each."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import Enum

from sandbox import cards


class Fate(Enum):
    """What becomes of a payment with a card."""

    OK = "ok"
    DECLINED = "card_declined"
    AUTHENTICATE = "authenticate"
    DISPUTED = "disputed"
    REFUND_PENDS = "refund_pends"
    REFUND_FAILS = "refund_fails"


@dataclass(frozen=True)
class Decline:
    """Why a card was refused, in Stripe's codes and in words for the buyer."""

    code: str
    decline_code: str | None
    message: str


@dataclass(frozen=True)
class Card:
    """A card as it was typed."""

    number: str
    exp_month: int = 12
    exp_year: int = 2034

    @property
    def last4(self) -> str:
        return self.number[-4:]

    @property
    def brand(self) -> str:
        return {"3": "amex", "4": "visa", "5": "mastercard", "6": "discover"}.get(self.number[:1], "unknown")

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.number.encode()).hexdigest()[:16]

    @property
    def fate(self) -> Fate:
        return Fate.DECLINED if self.decline else _FATES.get(self.number, Fate.OK)

    @property
    def decline(self) -> Decline | None:
        """Why this card is refused; None for one that is good."""
        if self.number in _DECLINES:
            return _DECLINES[self.number]
        return None if self.number in _FATES else _NOT_A_TEST_CARD


GOOD = "4242424242424242"
BAD = "4000000000000002"
_FATES = {
    GOOD: Fate.OK,
    "5555444433331111": Fate.OK,
    "5555555555554444": Fate.OK,
    "378282246310005": Fate.OK,
    "4000002500003155": Fate.AUTHENTICATE,
    "4000000000000259": Fate.DISPUTED,
    "4000000000007726": Fate.REFUND_PENDS,
    "4000000000005126": Fate.REFUND_FAILS,
}
_DECLINES = {
    BAD: Decline("card_declined", "generic_decline", "Your card was declined."),
    "4000000000009995": Decline("card_declined", "insufficient_funds", "Your card has insufficient funds."),
    "4000000000000069": Decline("expired_card", "expired_card", "Your card has expired."),
    "4000000000000127": Decline("incorrect_cvc", "incorrect_cvc", "Your card's security code is incorrect."),
}
_NOT_A_TEST_CARD = Decline(
    "card_declined",
    "test_mode_live_card",
    "Your card was declined: this is a sandbox, and only the test cards work here.",
)
AUTHENTICATION_FAILED = Decline(
    "payment_intent_authentication_failure",
    None,
    "We are unable to authenticate your payment method. Please choose a different payment method and try "
    "again.",
)
DEBIT_FAILED = Decline("payment_intent_payment_attempt_failed", None, "The payment failed.")


def read(number: str, expiry: str, cvc: str, year: int, month: int) -> Card:
    """The card that was typed, with any spaces, in the `month` of `year`. Raises Unreadable."""
    typed = cards.read(number, expiry, cvc, (year, month), _FATES)
    return Card(typed.number, typed.exp_month, typed.exp_year)
