"""Files for spreadsheets: what people typed stays text in them, however a file is taken apart."""

from __future__ import annotations

import csv
import io

import pytest
from flask import Flask

from domain import spreadsheets
from domain.ledger import agents
from domain.office import attendees
from tests.support.shop import make_event, place

FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "＝1+1", "＋1", "－1", "＠x"]
BEFORE = [
    "",
    " ",
    "\u00a0",
    "\t",
    "\r",
    "\n",
    "\x00",
    "\u200b",
    "\ufeff",
    "Ada,",
    "Ada;",
    "Ada; ",
    "Ada|",
    "Ada:",
    "Ada\t",
    "Ada\r\n",
    "Ada ",
    "Ada\u3000",
    "Ada \u200b",
]


def cells(file: bytes, separator: str, quoting: bool) -> list[str]:
    """Every cell that a reader finds that separates by `separator`, and may know of no quotes."""
    text = file.decode("utf-8-sig")
    file_of = io.StringIO(text, newline="")
    if quoting:
        rows = csv.reader(file_of, delimiter=separator)
    else:
        rows = csv.reader(file_of, delimiter=separator, quoting=csv.QUOTE_NONE)
    return [cell for row in rows for cell in row]


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("formula", FORMULAS)
def test_no_cell_is_read_as_a_formula_after_any_separator(before: str, formula: str) -> None:
    file = spreadsheets.as_csv(
        [before + formula], [[before + formula, formula + before], ["x", before + formula]]
    )
    for separator in ",;|:\t ":
        for quoting in (True, False):
            for cell in cells(file, separator, quoting):
                seen = cell.strip(" \u00a0\u200b\ufeff")
                assert not seen.startswith(tuple("=+-@＝＋－＠")), (separator, cell)


def test_every_cell_is_quoted_and_harmless_text_is_as_it_was() -> None:
    file = spreadsheets.as_csv(
        ["Name"],
        [['Ada "Bo" O’Brien, M.Sc', "a+b@example.org", "2026-11-29 10:00"]],
    )
    assert file == (
        b"\xef\xbb\xbf"
        + '"Name"\r\n"Ada ""Bo"" O’Brien, M.Sc","a+b@example.org","2026-11-29 10:00"\r\n'.encode()
    )
    assert spreadsheets.plain("Anna-Maria - Sophie") == "Anna-Maria - Sophie"
    assert spreadsheets.plain("Ada\ud800\r\nBo") == "Ada  Bo"


@pytest.mark.parametrize("cell", ["Anna - VIP", "A @ B + C = D", "Anna-Lena", "ada@example.org"])
def test_a_sign_that_begins_nothing_is_as_it_was(cell: str) -> None:
    assert spreadsheets.plain(cell) == cell


def test_every_export_is_written_so(app: Flask) -> None:
    event = make_event(price_minor=0)
    event.ticket_types[0].name = "=Seat"
    place(event, name="Ada; =1+1", email="info@münchen.de")
    rows = list(csv.reader(io.StringIO(b"".join(attendees.as_csv(event)).decode("utf-8-sig"), newline="")))
    assert rows[1][:3] == ["Ada; '=1+1", "info@münchen.de", "'=Seat"]
    (file,) = agents.SERVICES["guest_list"].run("=1+1 ada@example.org").files
    assert file.data == b'\xef\xbb\xbf"name","email"\r\n"\'=1+1","ada@example.org"\r\n'
