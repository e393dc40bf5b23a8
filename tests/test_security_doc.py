"""docs/security.md is whole, and what it names is there: numbers, files, names in them, tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "security.md").read_text()
STATES = ("holds", "in part", "no", "not here")
# ASVS 5.0.0: all of level 1, and level 2 of V4 (APIs), V5 (files), V6 (authentication), V7 (sessions) and V8
# (authorisation). Each section with how many of its requirements that is: they are numbered so that it is the
# first ones.
ASKED = """
    1.2:5 1.3:2 1.5:1  2.1:1 2.2:2 2.3:1  3.2:2 3.3:1 3.4:2 3.5:3  4.1:3 4.2:1 4.3:2 4.4:4
    5.1:1 5.2:3 5.3:2 5.4:3  6.1:3 6.2:12 6.3:4 6.4:4 6.5:5 6.6:3 6.8:4  7.1:3 7.2:4 7.3:2 7.4:5 7.5:2 7.6:2
    8.1:2 8.2:3 8.3:1 8.4:1  9.1:3 9.2:1  10.4:5  11.3:2 11.4:1  12.1:1 12.2:2  13.4:1  14.2:1 14.3:1
    15.1:1 15.2:1 15.3:1
"""
NUMBERS = [
    f"{section}.{number}"
    for section, how_many in (one.split(":") for one in ASKED.split())
    for number in range(1, int(how_many) + 1)
]


def rows() -> list[tuple[str, str, str, str, str]]:
    """(number, asks for, state, what and where, tests) of each row of the walk."""
    found = re.findall(r"^\| v5\.0\.0-([0-9.]+) \|(.*)\|(.*)\|(.*)\|(.*)\|$", PAGE, re.M)
    return [(number, *(cell.strip() for cell in cells)) for number, *cells in found]


def test_the_walk_is_whole_and_in_order() -> None:
    assert [number for number, *_ in rows()] == NUMBERS
    assert len(NUMBERS) == 120


def test_every_row_says_how_it_stands_and_what_shows_it() -> None:
    for number, asks, state, what, tests in rows():
        assert asks and what and state in STATES, number
        # What holds is shown by a test, but where it is a matter of words alone.
        assert tests or state == "not here" or number == "15.1.1", number


@pytest.fixture(scope="module")
def tests_there() -> set[str]:
    return {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)\(", file.read_text(), re.M)
    }


def test_every_test_that_is_named_is_there(tests_there: set[str]) -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert named - tests_there == set()
    assert len(named) > 80


def test_every_name_in_a_file_is_there() -> None:
    """Names that follow a file in backquotes, in the same cell, are in it."""
    asked = 0
    for line in PAGE.splitlines():
        for cell in line.split("|"):
            file: Path | None = None
            for token, rest in re.findall(r"`([^`]+)`([^`]*)", cell):
                path = ROOT / token
                if re.fullmatch(r"[\w./@-]+\.\w+", token) and "/" in token or path.is_file():
                    assert path.is_file(), token
                    file = path
                elif file is not None and re.fullmatch(r"(?!test_)[A-Za-z_]\w+", token):
                    assert re.search(rf"\b{token}\b", file.read_text()), f"{token} in {file}"
                    asked += 1
                # A sentence that ends, or a bracket that closes, ends what is said of a file.
                if re.search(r"[.);]", rest):
                    file = None
    assert asked > 60
