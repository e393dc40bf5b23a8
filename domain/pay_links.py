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
_PURPOSE = "pay page"


def address(settings: Settings, reference: str) -> str:
    """Where a payment is made on our own page."""
    return f"{settings.public_url}/pay/wallet/{reference}/{key(settings, reference)}"


def key(settings: Settings, reference: str) -> str:
    """What opens the page of a payment."""
    return _made_of(settings.derived_key(_PURPOSE), reference)


def opens(settings: Settings, reference: str, given: str) -> bool:
    """Whether somebody has the right key of the payment's page, also one of a SECRET_KEY that was rotated."""
    right = (_made_of(secret, reference) for secret in settings.derived_keys(_PURPOSE))
    return any(hmac.compare_digest(one.encode(), given.encode()) for one in right)


def _made_of(secret: bytes, reference: str) -> str:
    return hmac.new(secret, reference.encode(), hashlib.sha256).hexdigest()[:_LETTERS]
