"""The numbers of a run: as a table for people, as JSON for what comes after."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.goals import MEASURES, TOLERATED, Better, short_by

Results = dict[str, float]


def table(results: Results) -> str:
    """A Markdown table of what was measured; what is short of its goal by more than tolerated is marked."""
    rows = [("what", "measured", "goal", "short by", "pretix")]
    work = ""
    for key, measure in MEASURES.items():
        if key not in results:
            continue
        if measure.work != work:
            work = measure.work
            rows.append((f"**{work}**", "", "", "", ""))
        value, short = results[key], short_by(measure, results[key])
        goal = ""
        if measure.goal is not None:
            goal = f"{'at least' if measure.better is Better.MORE else 'at most'} {measure.goal:g}"
        verdict = "" if short is None else "" if short <= 1 else f"{short:.2f}"
        if short is not None and short > TOLERATED:
            verdict = f"**{verdict}**"
        rows.append((measure.name, f"{_show(value)} {measure.unit}".strip(), goal, verdict, measure.peer))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _show(value: float) -> str:
    if float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def write(path: Path, results: Results, details: dict[str, Any], *, quick: bool) -> None:
    """Write a run to `path`: when and where it was, each measure with its goal, and the details."""
    path.parent.mkdir(parents=True, exist_ok=True)
    measures = {
        key: {
            "work": measure.work,
            "name": measure.name,
            "unit": measure.unit,
            "value": results[key],
            "goal": measure.goal,
            "better": measure.better,
            "short_by": short_by(measure, results[key]),
        }
        for key, measure in MEASURES.items()
        if key in results
    }
    run = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "machine": {
            "cores": os.cpu_count(),
            "system": platform.platform(),
            "python": platform.python_version(),
        },
        "measures": measures,
        "details": details,
    }
    path.write_text(json.dumps(run, indent=2) + "\n")
