"""A ticket's short code as people see and type it; what its letters are, and which are taken for which."""

from __future__ import annotations

import re

# No character looks like another: of 0 and O, 1 and I and L, 2 and Z, 5 and S, 8 and B at most one is in.
ALPHABET = "23456789ACDEFGHJKMNPQRTVWXY"
LENGTH = 8
_LOOK_ALIKES = str.maketrans({"Z": "2", "S": "5", "B": "8"})


def clean(text: str) -> str:
    """A short code as a person types it, in its one form; empty when it cannot be one.

    Case, spaces and dashes do not matter, and a letter that looks like a digit of the alphabet is read as it.
    """
    code = re.sub(r"[\s\-–—_.]", "", text[:100]).upper().translate(_LOOK_ALIKES)
    return code if len(code) == LENGTH and set(code) <= set(ALPHABET) else ""


def show(code: str) -> str:
    """A short code in two groups, as it is printed: `7KQ2 M4XP`."""
    return f"{code[:4]} {code[4:]}"
