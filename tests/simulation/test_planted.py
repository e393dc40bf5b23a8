"""Bugs planted in the domain one at a time: the simulation must find each, within a bounded number of lives.

That it finds nothing without them is what test_simulation.py shows.
"""

from __future__ import annotations

import pytest
from flask import Flask

from tests.simulation import runs
from tests.simulation.plants import PLANTS, Plant
from tests.simulation.story import Broken
from tests.support.sandbox import Sandbox

# So many worlds of so many lives are looked through for each bug. Most are found in the first: a small world
# shows as much as a large one, and ends sooner.
WORLDS = 40
LIVES = 12


@pytest.mark.parametrize("plant", PLANTS, ids=str)
def test_the_planted_bug_is_found(
    app: Flask, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, plant: Plant
) -> None:
    plant.put(monkeypatch)
    for seed in range(plant.first, plant.first + WORLDS):
        runs.clean(sandbox)
        try:
            runs.live(app, sandbox, seed, LIVES, plant.habits)
        except Broken as found:
            print(f"{plant} found with seed {seed}: {found.why}")
            return
    pytest.fail(f"{plant}: nothing was found in {WORLDS} worlds of {LIVES} lives")
