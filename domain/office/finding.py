"""What the doctor says of one thing that it looked at."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARN, FAIL = "ok", "warning", "failure"


@dataclass(frozen=True)
class Finding:
    """One look: what was looked at, its state (ok, warning, failure), what was seen, and the fix if any."""

    code: str
    title: str
    state: str
    words: str
    fix: str = ""
