"""Why a payment came to nothing: a code of ours, and what its buyer reads.

A provider's own sentence is in its language, for its own page, and may say what a buyer should not hear (that
a card was reported as stolen). It is kept for the timeline and for staff; buyers read these words.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Adapters map what a provider tells to the first of these; the last ones are Kassa's own."""

    CARD_REFUSED = "card_refused"
    NO_FUNDS = "no_funds"
    CARD_EXPIRED = "card_expired"
    CARD_DETAILS = "card_details"
    CARD_UNSUITED = "card_unsuited"
    NOT_CONFIRMED = "not_confirmed"
    BANK_BUSY = "bank_busy"
    BANK_REFUSED = "bank_refused"
    # What follows is not about a card: the payment was never opened, or somebody ended it.
    NOT_OPENED = "not_opened"
    # Nobody has begun to pay: an order that a program made before it asked for a payment.
    NOT_BEGUN = "not_begun"
    REFUSED_START = "refused_start"
    NOT_CONNECTED = "not_connected"
    WALLET_SHORT = "wallet_short"
    STAFF_CLOSED = "staff_closed"
    # It was being confirmed by a bank when a person ended it: see settling.override.
    STAFF_ENDED = "staff_ended"
    # Nobody can say whether it was opened, or paid: see payments/unknown_ends.py.
    MAYBE_OPENED = "maybe_opened"
    MAYBE_PAID = "maybe_paid"


_WORDS = {
    Reason.CARD_REFUSED: "The card was declined. The bank refused it, and does not tell us why: ask it, or "
    "use another card.",
    Reason.NO_FUNDS: "The bank says that there is not enough money on the card. Use another one.",
    Reason.CARD_EXPIRED: "The card has expired. Use another one.",
    Reason.CARD_DETAILS: "The card’s number, date or security code is not right. Type it once more.",
    Reason.CARD_UNSUITED: "This card cannot be used for this payment. Use another one.",
    Reason.NOT_CONFIRMED: "The payment was not confirmed with the bank, in its app or by its code. "
    "Try once more.",
    Reason.BANK_BUSY: "The bank could not be reached. Try again in a few minutes.",
    Reason.BANK_REFUSED: "The bank did not make the payment.",
    Reason.NOT_BEGUN: "Its payment has not been begun, and no place is kept until it is.",
    Reason.NOT_OPENED: "The payment service did not open a page to pay on, though we kept asking.",
    Reason.REFUSED_START: "The payment service refused to open a page to pay on. That is no fault of yours.",
    Reason.NOT_CONNECTED: "The payment could not be opened, because the organiser’s account is not connected "
    "any more.",
    Reason.WALLET_SHORT: "There is not enough money in the wallet.",
    Reason.STAFF_CLOSED: "It was closed by hand, because it could not be checked any more.",
    Reason.STAFF_ENDED: "It was ended by hand, because the bank did not confirm it for too long.",
    Reason.MAYBE_OPENED: "The payment service did not answer, so we do not know whether it has begun a "
    "payment for this order. A person finds out.",
    Reason.MAYBE_PAID: "The time to pay is over, and we have not seen your money yet. It may be on its way: "
    "a person looks at the bank’s statement.",
}


def words(code: str) -> str:
    """What the buyer reads: whole sentences; "" where there is nothing to say but that it ended."""
    return _WORDS.get(Reason(code), "") if code in set(Reason) else ""


def outward(code: str, reason: str) -> str:
    """What an organiser reads: the reason, but for what staff wrote, of which our own words stand there."""
    return words(code) if code in (Reason.STAFF_CLOSED, Reason.STAFF_ENDED) else reason
