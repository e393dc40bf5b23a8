"""Two worlds of payments at providers that can do less: told by hand, and told by calls, beside one asked."""

from __future__ import annotations

import pytest
from flask import Flask

from tests.simulation import kaspi

_STEPS = 110
# What both worlds must have used, and what one of them must.
_BOTH = (
    *("order by quartz", "order by kaspi", "page", "sweep", "tell paid: done"),
    *("at the bank: paid", "at the bank: failed", "at the bank: unheard"),
    *("refund: done", "refund made: done", "sweep: died", "confirm: done", "take back: done"),
)
_CALLED, _BY_HAND = 8, 1
_OF = {
    _CALLED: (
        *("call pay: done", "create: timeout", "at the bank: paid late", "tell unpaid: done"),
        "tell paid: reference_used",
    ),
    _BY_HAND: ("pay again by quartz: done",),
}


@pytest.mark.parametrize("seed", [_CALLED, _BY_HAND])
def test_whatever_happens_where_less_can_be_done_money_ends_well(app: Flask, seed: int) -> None:
    used = kaspi.live(app, seed, _STEPS)
    left_out = [name for name in (*_BOTH, *_OF[seed]) if not used[name]]
    assert not left_out, (left_out, used)
