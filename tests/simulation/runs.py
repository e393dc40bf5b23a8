"""One run of the simulation: a world of some lives, healed and judged."""

from __future__ import annotations

from flask import Flask

from tests.simulation import buyers, oracle, staff
from tests.simulation.coverage import Coverage
from tests.simulation.world import World
from tests.support.sandbox import Sandbox


def live(app: Flask, sandbox: Sandbox, seed: int, lives: int) -> Coverage:
    """Run a seed. Returns what it used; raises Broken, with the seed and its steps, when something is wrong."""
    with World(app, sandbox, seed) as world:
        world.run(lives, buyers.begin, staff.others)
        oracle.heal(world)
        oracle.judge(world)
        world.coverage.note_all("death", world.deaths.died)
        world.coverage.note_all("point", world.deaths.seen)
        world.coverage.note_all("fault", world.network.fates)
        world.coverage.note("total", "lives", lives)
        world.coverage.note("total", "steps", len(world.trace))
        return world.coverage
