"""How many lives to live, and from which seed on."""

from __future__ import annotations

import pytest

from tests.simulation import SHORT


def pytest_addoption(parser: pytest.Parser) -> None:
    """Known where the simulation is run by itself: ./bin/test tests/simulation --buyers 20000 --seed 7"""
    group = parser.getgroup("simulation")
    group.addoption("--buyers", type=int, default=SHORT, help=f"how many buyers' lives ({SHORT})")
    group.addoption("--seed", type=int, default=1, help="the seed of the first world of 250 lives (1)")
    group.addoption("--keep", default="", help="a directory for the stories of worlds that broke (none)")
