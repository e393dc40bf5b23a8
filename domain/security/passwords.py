"""Passwords: how they are kept, how they are compared, and which ones are refused."""

from __future__ import annotations

import secrets
import unicodedata
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from domain import addresses
from domain.errors import DomainError

MIN_LENGTH = 8
# Hashing takes the whole text, so a megabyte of password would be a cheap way to keep us busy.
MAX_LENGTH = 200
# OWASP's argon2id setting of 19 MiB: eight threads hashing at once still fit a 512 MB host.
_hasher = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
# What anybody tries first.
_TRIED_FIRST = """
password passw0rd password1 password12 password123 12345678 123456789 1234567890 87654321 11111111 00000000
qwertyui qwertyuiop qwerty123 asdfghjk asdfghjkl iloveyou iloveyou1 sunshine princess football baseball
superman trustno1 letmein1 welcome1 welcome123 abc12345 abcd1234 1q2w3e4r 1qaz2wsx admin123 administrator
changeme changeme1 whatever internet
"""
_COMMON = frozenset(_TRIED_FIRST.split())


def check(password: str, email: str = "") -> None:
    """Refuse a password that is too short, too long, the address itself, or among the first anybody tries."""
    text = _normal(password)
    if len(text) < MIN_LENGTH:
        raise DomainError("password_short", f"Choose a password of at least {MIN_LENGTH} characters.")
    if len(text) > MAX_LENGTH:
        raise DomainError("password_long", f"That password is too long. Use at most {MAX_LENGTH} characters.")
    lowered = text.lower()
    if lowered in _COMMON or len(set(lowered)) < 3:
        raise DomainError("password_common", "That password is too easy to guess. Choose another one.")
    if email and lowered in (email.lower(), addresses.shown(email.lower()), email.lower().partition("@")[0]):
        raise DomainError("password_is_address", "The password must not be your e-mail address.")


def hashed(password: str) -> str:
    """What the database keeps of a password (argon2id)."""
    return _hasher.hash(_normal(password))


def right(kept: str, password: str) -> bool:
    """Whether `password` is the one behind the hash `kept`.

    Takes as long for an account without a password, or for none at all (`kept` empty), so that the time of
    the answer does not tell which addresses have accounts.
    """
    text = _normal(password)[: MAX_LENGTH + 1]
    try:
        return _hasher.verify(kept or _nobodys(), text) and bool(kept)
    except (VerificationError, InvalidHashError):
        return False


def outdated(kept: str) -> bool:
    """Whether the hash was made with other parameters than today's, and should be made again."""
    return _hasher.check_needs_rehash(kept)


def _normal(password: str) -> str:
    """The same letters, whichever keyboard composed them. What is far too long is cut, and stays too long."""
    return unicodedata.normalize("NFKC", password[: MAX_LENGTH * 8])


@cache
def _nobodys() -> str:
    return _hasher.hash(secrets.token_urlsafe(32))
