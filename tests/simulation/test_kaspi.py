"""Two worlds of payments at providers that can do less: told by hand, and told by calls, beside one asked."""

from __future__ import annotations

import pytest
from flask import Flask

from tests.simulation import kaspi

_STEPS = 190
# What both worlds must have used, and what one of them must.
_BOTH = (
    *("order by quartz", "order by kaspi", "page", "sweep", "tell paid: done"),
    *("at the bank: paid", "refund: done", "refund made: done", "sweep: died"),
)
_OF = {0: ("call pay: done", "call check: done"), 1: ("tell unpaid: done", "at the bank: failed")}


@pytest.mark.parametrize("seed", [0, 1])
def test_whatever_happens_where_less_can_be_done_money_ends_well(app: Flask, seed: int) -> None:
    used = kaspi.live(app, seed, _STEPS)
    left_out = [name for name in (*_BOTH, *_OF[seed]) if not used[name]]
    assert not left_out, (left_out, used)
