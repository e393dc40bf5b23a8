"""What the doctor says of one thing that it looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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


def failed(found: Iterable[Finding]) -> bool:
    """Whether any look found a failure."""
    return any(finding.state == FAIL for finding in found)


def table(found: Iterable[Finding], paint: Callable[[str, str], str] = lambda state, text: text) -> str:
    """The findings as lines for a terminal; `paint` may colour a state's mark."""
    lines = []
    for finding in found:
        mark = {OK: "ok  ", WARN: "warn", FAIL: "FAIL"}[finding.state]
        lines.append(f"{paint(finding.state, mark)}  {finding.title:<22}  {finding.words}")
        if finding.fix and finding.state != OK:
            lines.append(f"      {'':<22}  -> {finding.fix}")
    return "\n".join(lines)
