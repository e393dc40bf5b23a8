"""Honest buyers get their tickets beside a hoarder, and lose nothing where there is none.

A short sale here; `python -m tests.hoarding` is the whole one.
"""

from __future__ import annotations

import pytest
from flask import Flask

from domain import clock
from tests.hoarding.sale import Outcome, Sale, browsers


def hold_a_sale(app: Flask, monkeypatch: pytest.MonkeyPatch, **sizes: int) -> tuple[Sale, Outcome]:
    """A sale of these sizes, from its first request to its last."""
    offset = [clock.now()]
    monkeypatch.setattr(clock, "now", lambda: offset[0])
    sale = Sale(browsers(app.test_client), lambda moment: offset.__setitem__(0, moment), **sizes)
    return sale, sale.run()


# The whole sale, and one of the same proportions that is held in seconds.
WHOLE, SHORT = {"tickets": 200, "buyers": 100}, {"tickets": 9, "buyers": 4}
# Whoever waits among the few need not look as often as their page would.
RARELY = 4


def test_all_honest_buyers_have_tickets_within_twenty_minutes(
    app: Flask, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    """Twice as many addresses that never pay, behind the same network address, all at once."""
    sizes = WHOLE if pytestconfig.getoption("--whole", False) else SHORT
    rarely = int(pytestconfig.getoption("--rarely", 1)) if sizes is WHOLE else RARELY
    hoarders = 2 * sizes["buyers"]
    sale, seen = hold_a_sale(app, monkeypatch, **sizes, hoarders=hoarders, seed=7, rarely=rarely)
    slowest = max(seen.had_tickets.values())
    print(
        f"{len(seen.had_tickets)} of {sizes['buyers']} have tickets, the last after {slowest / 60:.1f} "
        f"minutes; the hoarder held {seen.orders_of_hoarder} times, {seen.most_not_gone_on} tickets at most; "
        f"{seen.looks} looks at the line"
    )
    assert len(seen.had_tickets) == sizes["buyers"] == sale.sold()
    assert slowest <= 20 * 60
    assert seen.most_not_gone_on <= sizes["tickets"] // 3
    assert seen.orders_of_hoarder >= sizes["tickets"] // 3, "the hoarder has held as much as it could"


def test_without_a_hoarder_nobody_is_delayed(
    app: Flask, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    sizes = WHOLE if pytestconfig.getoption("--whole", False) else SHORT
    sale, seen = hold_a_sale(app, monkeypatch, **sizes, hoarders=0, seed=7)
    print(f"nobody was delayed by more than {max(seen.delayed.values()):.1f} seconds")
    assert max(seen.delayed.values()) <= 10
    assert sale.sold() == sizes["buyers"]
