"""Grades of martial arts as one row of numbers: the kyu count down to 1, the dan go on from there."""

from __future__ import annotations

from domain.errors import DomainError

LOWEST, HIGHEST = -10, 10
_ENDS = {1: "st", 2: "nd", 3: "rd"}


def say(grade: int) -> str:
    """`3rd kyu` for -3, `1st dan` for 1."""
    number = abs(grade)
    return f"{number}{_ENDS.get(number, 'th')} {'kyu' if grade < 0 else 'dan'}"


def listed() -> list[tuple[int, str]]:
    """All of them, the lowest first, each with its words."""
    return [(grade, say(grade)) for grade in range(LOWEST, HIGHEST + 1) if grade]


def check(grade: int | None) -> None:
    """Refuse what is no grade. DomainError `grade`."""
    if grade is not None and (grade == 0 or not LOWEST <= grade <= HIGHEST):
        raise DomainError("grade", "Choose a grade from the list.")
