"""Passwords: how they are kept, how they are compared, and which ones are refused."""

from __future__ import annotations

import re
import secrets
import unicodedata
from collections.abc import Iterable
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

import config
from domain import addresses
from domain.errors import DomainError

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
# Weighing takes seconds for a long text of signs that stand for letters. What begins well enough is good.
_WEIGHED = 32
# A password made of known words has at least so many other signs.
_LEAST_OWN = 5
_WORD = re.compile(r"[^\W_]+")


def check(password: str, email: str = "", *, words: Iterable[str] = (), least: int = MIN_LENGTH) -> None:
    """Refuse a password that is too short, too long, the address itself, or soon guessed.

    `words` are what a stranger may know of the person; the shop's own are known to everybody.
    """
    text = _normal(password)
    if len(text) < least:
        raise DomainError("password_short", f"Choose a password of at least {least} characters.")
    if len(text) > MAX_LENGTH:
        raise DomainError("password_long", f"That password is too long. Use at most {MAX_LENGTH} characters.")
    lowered = text.lower()
    if email and lowered in (email.lower(), addresses.shown(email.lower()), email.lower().partition("@")[0]):
        raise DomainError("password_is_address", "The password must not be your e-mail address.")
    settings = config.get()
    known = _words(
        (email, addresses.shown(email), *words, settings.site_name, settings.public_url, "kassa demo")
    )
    if (
        len(set(lowered)) < 3
        or _own(lowered, known) < _LEAST_OWN
        or _guesses(lowered, known) < _LEAST_GUESSES
    ):
        raise DomainError(
            "password_common",
            "That password is too easy to guess: it is among those that are tried first, or is made of your "
            "name or the shop's. Choose another one: three or four words that have nothing to do with each "
            "other are good.",
        )


def _words(texts: Iterable[str]) -> list[str]:
    """The words in these texts, the longest first, and whole texts without their gaps."""
    found = set()
    for text in texts:
        parts = [part for part in _WORD.findall(_normal(text).lower()) if len(part) > 2]
        found |= {*parts, "".join(parts)}
    return sorted(found - {"", "https", "http", "www"}, key=lambda word: (-len(word), word))


def _own(lowered: str, known: Iterable[str]) -> int:
    """How many signs are the owner's: letters and digits of no known word, and kinds of other signs."""
    for word in known:
        lowered = lowered.replace(word, " ")
    plain = "".join(_WORD.findall(lowered))
    return len(plain) + len(set(lowered) - set(plain) - {" "})


def _guesses(lowered: str, known: list[str]) -> float:
    """How many guesses lie before a password, as a power of ten (zxcvbn's lists and rules)."""
    # Its lists take memory, and a worker never needs them.
    from zxcvbn import matching, scoring

    begin = lowered[:_WEIGHED]
    # Its own front door writes the words into what all threads share.
    lists = {**matching.RANKED_DICTIONARIES, "user_inputs": matching.build_ranked_dict(known)}
    found = scoring.most_guessable_match_sequence(begin, matching.omnimatch(begin, lists))
    return float(found["guesses_log10"])


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
