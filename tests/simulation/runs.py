"""One run of the simulation: a world of some lives, healed and judged."""

from __future__ import annotations

from pathlib import Path

from flask import Flask

from tests.simulation import buyers, oracle, staff
from tests.simulation.coverage import Coverage
from tests.simulation.story import Broken
from tests.simulation.world import Habits, World
from tests.support import tables
from tests.support.sandbox import Sandbox

USUAL = Habits()


def live(app: Flask, sandbox: Sandbox, seed: int, lives: int, habits: Habits = USUAL) -> Coverage:
    """Run a seed. Returns what it used; raises Broken, with seed and steps, when anything is wrong."""
    with World(app, sandbox, seed, habits) as world:
        world.run(lives, buyers.begin, staff.others)
        oracle.heal(world)
        oracle.judge(world)
        world.coverage.note_all("death", world.deaths.died)
        world.coverage.note_all("point", world.deaths.seen)
        world.coverage.note_all("database dropped at", world.deaths.dropped)
        world.coverage.note_all("fault", world.network.fates)
        world.coverage.note("total", "lives", lives)
        world.coverage.note("total", "steps", len(world.trace))
        return world.coverage


def clean(sandbox: Sandbox) -> None:
    """Empty tables and an empty sandbox, for another world in the same test."""
    sandbox.reset()
    tables.empty()


def keep(broken: Broken, seed: int, directory: str) -> None:
    """Write a broken world's story where it is still found tomorrow; nothing without a directory."""
    if directory:
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{seed}.txt").write_text("\n".join((*broken.trace, "", str(broken), "")))
