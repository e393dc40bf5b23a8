"""Passwords: how they are kept, how they are compared, and which ones are refused."""

from __future__ import annotations

import secrets
import unicodedata
from collections.abc import Iterable
from functools import cache

from argon2 import PasswordHasher, low_level
from argon2.exceptions import InvalidHashError, VerificationError

import config
from domain import addresses
from domain.errors import DomainError
from domain.security import guessable

MIN_LENGTH = 8
# Hashing takes the whole text, so a megabyte of password would be a cheap way to keep us busy.
MAX_LENGTH = 200
# OWASP's argon2id setting of 19 MiB: eight threads hashing at once still fit a 512 MB host.
_hasher = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
# Of an admin's, who may do everything.
MIN_LENGTH_ADMIN = 10
# So many guesses, as a power of ten, must lie before a password in the order in which people try: those that
# leaked most often, words, names, dates, rows of keys, and what is made of them.
_LEAST_GUESSES = 6.0
# A password made of known words has at least so many other signs.
_LEAST_OWN = 5
# Unicode's categories of what has no picture of its own: controls, and marks of how to write.
_UNSEEN = ("Cc", "Cf")


def check(password: str, email: str = "", *, words: Iterable[str] = (), least: int = MIN_LENGTH) -> None:
    """Refuse a password that is too short, too long, the address itself, or soon guessed.

    `words` are what a stranger may know of the person; the shop's own are known to everybody.
    """
    text = _normal(password)
    shown = _shown(text)
    if len(shown) < least:
        raise DomainError("password_short", f"Choose a password of at least {least} characters.")
    if len(text) > MAX_LENGTH:
        raise DomainError("password_long", f"That password is too long. Use at most {MAX_LENGTH} characters.")
    lowered = shown.lower()
    if email and lowered in (email.lower(), addresses.shown(email.lower()), email.lower().partition("@")[0]):
        raise DomainError("password_is_address", "The password must not be your e-mail address.")
    settings = config.get()
    texts = (email, addresses.shown(email), *words, settings.site_name, settings.public_url, "kassa demo")
    known = guessable.words_of(_normal(text) for text in texts)
    if (
        len(set(lowered)) < 3
        or guessable.least_own(lowered, known) < _LEAST_OWN
        or guessable.guesses(lowered, known) < _LEAST_GUESSES
    ):
        raise DomainError(
            "password_common",
            "That password is too easy to guess: it is among those that are tried first, or is made of your "
            "name or the shop's. Choose another one: three or four words that have nothing to do with each "
            "other are good.",
        )


def _shown(text: str) -> str:
    """What is seen of a password: blanks around it and signs without a picture make it no better."""
    return "".join(sign for sign in text if unicodedata.category(sign) not in _UNSEEN).strip()


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


def stretched(text: str, salt: str) -> str:
    """46 signs for what may be looked up: argon2id as for passwords, with a salt of the caller's."""
    made = low_level.hash_secret_raw(
        text.encode(),
        salt.encode(),
        time_cost=_hasher.time_cost,
        memory_cost=_hasher.memory_cost,
        parallelism=_hasher.parallelism,
        hash_len=23,
        type=low_level.Type.ID,
    )
    return made.hex()


def outdated(kept: str) -> bool:
    """Whether the hash was made with other parameters than today's, and should be made again."""
    return _hasher.check_needs_rehash(kept)


def _normal(password: str) -> str:
    """The same letters, whichever keyboard composed them. What is far too long is cut, and stays too long."""
    return unicodedata.normalize("NFKC", password[: MAX_LENGTH * 8])


@cache
def _nobodys() -> str:
    return _hasher.hash(secrets.token_urlsafe(32))
