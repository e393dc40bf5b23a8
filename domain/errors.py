"""The small vocabulary of things that go wrong by rule."""

from __future__ import annotations


class DomainError(Exception):
    """A rule said no. `code` is for programs and tests, `message` for the person who reads it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class NotFound(DomainError):
    """There is no such thing, or it is not for this person to see."""
