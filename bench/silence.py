"""A provider that does not answer, and the open pages that ask about it: what everybody else notices."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass

from bench.client import percentile
from bench.report import Results
from bench.scenes import Stage, order_page

# What a request of ours waits for a provider, and as much again.
_QUIET_AFTER_SECONDS = 6.0
# How often an open page asks again.
_PAGE_SECONDS = 2.0


@dataclass(frozen=True)
class Audience:
    """How many pages are open, and for how long the provider is silent."""

    pages: int
    seconds: float


FULL = Audience(pages=100, seconds=30)
# More than there are threads.
QUICK = Audience(pages=12, seconds=4)


def silence(stage: Stage, who: Audience, type_id: int) -> Results:
    """`/livez`, from the first moment of the silence on, while each page asks again every two seconds."""
    pages = [order_page(stage, type_id) for _ in range(who.pages)]
    times: list[float] = []
    over = threading.Event()

    def page(address: str) -> None:
        browser = stage.browser()
        while not over.wait(_PAGE_SECONDS):
            with suppress(OSError):
                browser.get(f"{address}.json")
        browser.close()

    asking = [threading.Thread(target=page, args=(address,), daemon=True) for address in pages]
    control = stage.dashboard()
    rule = {"kinds": ["timeout_before"], "match": {"path": "^/stripe/"}}
    try:
        control.control("faults", rule)
        for thread in asking:
            thread.start()
        ends = time.perf_counter() + who.seconds
        while time.perf_counter() < ends:
            began = time.perf_counter()
            browser = stage.browser()
            assert browser.get("/livez").status == 200
            browser.close()
            times.append(time.perf_counter() - began)
            time.sleep(0.05)
    finally:
        over.set()
        for thread in asking:
            thread.join()
        control.control("faults", {})
        time.sleep(_QUIET_AFTER_SECONDS)
    return {
        "silence.pages": who.pages,
        "silence.p99": percentile(times, 0.99) * 1000,
        "silence.longest": max(times) * 1000,
    }
