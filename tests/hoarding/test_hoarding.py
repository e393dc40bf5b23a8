"""Honest buyers get their tickets beside a hoarder, and lose nothing where there is none.

A short sale here; `python -m tests.hoarding` is the whole one.
"""

from __future__ import annotations

from datetime import datetime

import pytest
from flask import Flask

from domain import clock
from tests.hoarding.sale import HOARDERS, Hoarder, Outcome, Sale, browsers
from tests.support.sandbox import Sandbox


def hold_a_sale(
    app: Flask, monkeypatch: pytest.MonkeyPatch, sizes: dict[str, int], how: Hoarder, *, rarely: int = 1
) -> tuple[Sale, Outcome]:
    """A sale of these sizes, from its first request to its last."""
    offset = [clock.now()]
    monkeypatch.setattr(clock, "now", lambda: offset[0])

    def set_clock(moment: datetime) -> None:
        offset[0] = moment

    sale = Sale(browsers(app.test_client), set_clock, seed=7, rarely=rarely, how=how, **sizes)
    return sale, sale.run()


# The whole sale, and one of the same proportions that is held in seconds.
WHOLE, SHORT = {"tickets": 200, "buyers": 100}, {"tickets": 9, "buyers": 4}
# Whoever waits among the few need not look as often as their page would.
RARELY = 4


def test_all_honest_buyers_have_tickets_within_twenty_minutes(
    app: Flask, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config, sandbox: Sandbox, hoarder: str
) -> None:
    """Twice as many addresses that never pay, behind the same network address, all at once."""
    sizes = WHOLE if pytestconfig.getoption("--whole", False) else SHORT
    rarely = int(pytestconfig.getoption("--rarely", 1)) if sizes is WHOLE else RARELY
    hoarders = 2 * sizes["buyers"]
    how = HOARDERS[hoarder]
    sale, seen = hold_a_sale(app, monkeypatch, sizes | {"hoarders": hoarders}, how, rarely=rarely)
    slowest = max(seen.had_tickets.values(), default=0)
    print(
        f"hoarder {hoarder}: {len(seen.had_tickets)} of {sizes['buyers']} have tickets, the last after "
        f"{slowest / 60:.1f} minutes; the hoarder held {seen.orders_of_hoarder} times, "
        f"{seen.most_not_gone_on} tickets at most that it did not go on to pay for; {seen.looks} looks"
    )
    assert len(seen.had_tickets) == sizes["buyers"] == sale.sold()
    assert slowest <= 20 * 60
    assert seen.most_not_gone_on <= sizes["tickets"] // 3
    assert seen.tickets_of_hoarder >= sizes["tickets"] // 3, "the hoarder has held as much as it could"


def test_without_a_hoarder_nobody_is_delayed(
    app: Flask, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    sizes = WHOLE if pytestconfig.getoption("--whole", False) else SHORT
    sale, seen = hold_a_sale(app, monkeypatch, sizes | {"hoarders": 0}, Hoarder())
    print(f"nobody was delayed by more than {max(seen.delayed.values()):.1f} seconds")
    assert max(seen.delayed.values()) <= 10
    assert sale.sold() == sizes["buyers"]
