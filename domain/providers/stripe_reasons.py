"""Why an attempt failed at Stripe, in our codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from domain.providers.failure_reasons import Reason

# Stripe's codes, of which a decline's own is the more exact. Those that warn of fraud (stolen_card and the
# like) are not here: whoever holds such a card reads no more than that the bank refused it.
_REASONS = {
    "insufficient_funds": Reason.NO_FUNDS,
    "card_velocity_exceeded": Reason.NO_FUNDS,
    "withdrawal_count_limit_exceeded": Reason.NO_FUNDS,
    "expired_card": Reason.CARD_EXPIRED,
    "incorrect_cvc": Reason.CARD_DETAILS,
    "invalid_cvc": Reason.CARD_DETAILS,
    "incorrect_number": Reason.CARD_DETAILS,
    "invalid_number": Reason.CARD_DETAILS,
    "incorrect_zip": Reason.CARD_DETAILS,
    "incorrect_address": Reason.CARD_DETAILS,
    "invalid_expiry_month": Reason.CARD_DETAILS,
    "invalid_expiry_year": Reason.CARD_DETAILS,
    "card_not_supported": Reason.CARD_UNSUITED,
    "currency_not_supported": Reason.CARD_UNSUITED,
    "authentication_required": Reason.NOT_CONFIRMED,
    "payment_intent_authentication_failure": Reason.NOT_CONFIRMED,
    "processing_error": Reason.BANK_BUSY,
    "issuer_not_available": Reason.BANK_BUSY,
    "try_again_later": Reason.BANK_BUSY,
    "payment_intent_payment_attempt_failed": Reason.BANK_REFUSED,
}


def why(failed: Mapping[str, Any]) -> tuple[Reason, str]:
    """Our code and Stripe's words for a failed attempt: a payment error, or the charge that it left."""
    outcome = failed.get("outcome") or {}
    told = (failed.get("decline_code"), outcome.get("reason"), failed.get("code"), failed.get("failure_code"))
    code = next((_REASONS[name] for name in told if name in _REASONS), None)
    if code is None:
        card = any(told) or failed.get("type") == "card_error"
        code = Reason.CARD_REFUSED if card else Reason.BANK_REFUSED
    words = failed.get("message") or failed.get("failure_message") or "The bank did not make the payment."
    return code, str(words)
