"""Addresses of our own pay page: who has one may pay that payment there, and sees its amount and code.

The address is made of the payment's reference alone, so that it can be told wherever a provider names the
payment, and nothing of it is stored; the key behind it is derived from SECRET_KEY.
"""

from __future__ import annotations

import hashlib
import hmac

from config import Settings

# 128 bits, which nobody guesses.
_LETTERS = 32


def address(settings: Settings, reference: str) -> str:
    """Where a payment is made on our own page."""
    return f"{settings.public_url}/pay/wallet/{reference}/{key(settings, reference)}"


def key(settings: Settings, reference: str) -> str:
    """What opens the page of a payment."""
    mac = hmac.new(settings.derived_key("pay page"), reference.encode(), hashlib.sha256)
    return mac.hexdigest()[:_LETTERS]


def opens(settings: Settings, reference: str, given: str) -> bool:
    """Whether somebody has the right key of the payment's page."""
    return hmac.compare_digest(key(settings, reference).encode(), given.encode())
