"""The one writer of files for spreadsheets: what people typed is text in them, and never a formula."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

# With these a spreadsheet takes a cell for a formula; East Asian ones read the full-width signs alike.
_FORMULA = "=+\\-@＝＋－＠"
# One that is told to separate by something else than commas begins a cell in the middle of ours.
# By blanks, too: then a sign that stands alone (Anna - VIP) is a cell of its own, and no formula.
_BEGINS = re.compile(rf"(?:^|[,;|:\t])\s*(?=[{_FORMULA}])|\s(?=[{_FORMULA}]\S)")

_BLANKS_FIRST = re.compile(rf"\s+'[{_FORMULA}]")


def as_csv(columns: Sequence[str], rows: Iterable[Iterable[str]]) -> bytes:
    """A file that spreadsheets open by a double click: UTF-8 with its mark, commas, all quoted, CRLF."""
    return b"".join(in_parts(columns, [rows]))


def in_parts(columns: Sequence[str], parts: Iterable[Iterable[Iterable[str]]]) -> Iterator[bytes]:
    """The same as it comes: the head, and then some rows at a time, of which none is kept."""
    yield b"\xef\xbb\xbf" + _lines([columns])
    yield from (_lines(rows) for rows in parts)


def _lines(rows: Iterable[Iterable[str]]) -> bytes:
    file = io.StringIO(newline="")
    csv.writer(file, quoting=csv.QUOTE_ALL).writerows([plain(cell) for cell in row] for row in rows)
    return file.getvalue().encode()


def plain(cell: str) -> str:
    """A cell's text, in one line and without what cannot be seen, that no spreadsheet takes for a formula."""
    line = "".join(
        " " if unicodedata.category(sign) in ("Cc", "Zl", "Zp") else sign
        for sign in cell
        if sign != "\x00" and unicodedata.category(sign) != "Cs"
    )
    hidden = "".join(sign for sign in line if unicodedata.category(sign) != "Cf")
    # What cannot be seen would stand between a separator and the sign behind it.
    text = _BEGINS.sub(r"\g<0>'", hidden if _BEGINS.search(hidden) else line)
    # Some readers look at a cell's first sign, others at the first that is no blank.
    return f"'{text}" if _BLANKS_FIRST.match(text) else text
