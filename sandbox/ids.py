"""Ids that look like the provider's."""

from __future__ import annotations

import secrets
import string

_ALPHABET = string.ascii_letters + string.digits


def new(prefix: str, length: int = 24) -> str:
    """`prefix_` and `length` random letters and digits, the first of them a digit."""
    return f"{prefix}_{secrets.choice(string.digits)}{text(length - 1)}"


def text(length: int) -> str:
    """`length` random letters and digits."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))
