"""A shop of a million orders, measured whole: filled once, and kept where a folder for it is named."""

from __future__ import annotations

import time
from typing import Any

from bench import scenes
from bench.report import Results
from bench.scenes import Stage

# Purchases are counted for so long, without the night's check and beside it; it runs once a minute.
_BUYING_SECONDS = 120.0
_LATE_MS = 100


def measure(
    stage: Stage, orders: int, requests: int = 50, buying_seconds: float = _BUYING_SECONDS
) -> Results:
    """What its pages, files, checks and digests cost, and what a purchase does beside the night's check."""
    took = stage.details["seconds of each part, at a million orders"] = {}

    def do(part: str, **arguments: Any) -> Any:
        began = time.perf_counter()
        found = stage.inside.do(f"million_{part}", **arguments)
        took[part] = round(time.perf_counter() - began, 1)
        return found

    do("fill", orders=orders)
    pages: dict[str, float] = do("pages", requests=requests)
    files: dict[str, dict[str, float]] = do("files")
    periodic: dict[str, float] = do("periodic")
    whole: dict[str, float] = do("whole")
    began = time.perf_counter()
    alone, beside = _purchases(stage, buying_seconds)
    took["purchases"] = round(time.perf_counter() - began, 1)
    slowest = sorted(pages.items(), key=lambda page: -page[1])
    stage.details["p95 of pages at a million orders, ms"] = {path: round(ms, 1) for path, ms in slowest}
    stage.details["files at a million orders"] = files
    stage.details["duties at a million orders, ms"] = periodic
    stage.details["the night's check of a million orders"] = whole
    stage.details["purchases a second, alone and beside the night's check"] = [alone, beside]
    return {
        "million.pages": len(pages),
        "million.pages_late": sum(ms > _LATE_MS for ms in pages.values()),
        "million.slowest": slowest[0][1],
        **{f"million.{name}": pages[path] for name, path in _NAMED.items()},
        "million.first_byte": max(file["first_ms"] for file in files.values()),
        "million.grown": max(file["grown_mb"] for file in files.values()),
        "million.checks": periodic["checks"],
        "million.expired": periodic["expired"],
        "million.untold": periodic["expired, never told"],
        "million.mail": periodic["slow mail"],
        "million.whole": whole["runs"] * 60,
        "million.whole_work": whole["seconds"],
        "million.slower": max(0.0, (1 - beside / alone) * 100),
    }


# What was slow once, by name.
_NAMED = {
    "dashboard": "/admin/",
    "search": "/admin/orders?q=lindquist",
    "metrics": "/metrics",
    "healthz": "/healthz",
}


def _purchases(stage: Stage, seconds: float) -> tuple[float, float]:
    """Orders placed and settled a second: alone, and while another process asks about everything."""
    event = f"beside-{int(time.time())}"
    stage.inside.do("event", slug=event, capacity=1_000_000)
    arguments = {"slug": event, "threads": scenes.CONNECTIONS}
    number = stage.inside.do("settled_in", seconds=seconds, **arguments)
    stage.insides[1].begin("million_night", seconds=seconds)
    beside = stage.inside.do("settled_in", seconds=seconds, **arguments)
    stage.details["seconds that the night's check worked meanwhile"] = stage.insides[1].result()
    return number / seconds, beside / seconds
