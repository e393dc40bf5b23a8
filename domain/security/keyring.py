"""Secrets at rest: sealed under the first key of a ring, opened by whichever key they were sealed under.

The ring is TOKEN_KEYS, newest first, and behind it a key made of SECRET_KEY, so that an installation that
never set TOKEN_KEYS works, and goes on working when it does. Behind that are those of the keys before it, the
revoked ones, too: what is kept here is ours, whoever else has the key, and is sealed anew under the first.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

import config


class Unreadable(Exception):
    """None of the ring's keys opens this text."""


def seal(text: str) -> str:
    """`text`, encrypted under the first key; "" stays "", for there is nothing to hide."""
    return _ring(*_keys()).encrypt(text.encode()).decode() if text else ""


def unseal(sealed: str) -> str:
    """What was sealed. Raises Unreadable where the key is not in the ring any more."""
    if not sealed:
        return ""
    try:
        return _ring(*_keys()).decrypt(sealed.encode()).decode()
    except InvalidToken as error:
        raise Unreadable from error


def reseal(sealed: str) -> str:
    """The same secret under the first key. Raises Unreadable."""
    return seal(unseal(sealed))


def _keys() -> tuple[bytes, ...]:
    settings = config.get()
    # Keys may be any text, as long as it is long: Fernet wants exactly 32 bytes.
    ours = (
        hashlib.blake2b(key.encode(), digest_size=32, person=b"kassa-tokens").digest()
        for key in settings.token_keys
    )
    return (*ours, *settings.derived_keys("tokens"), *settings.revoked_keys("tokens"))


@lru_cache(maxsize=8)
def _ring(*keys: bytes) -> MultiFernet:
    return MultiFernet([Fernet(urlsafe_b64encode(key)) for key in keys])
