"""Buyers' lives, in one world; `--buyers` and `--seed` make it any number of others.

Two thousand lives must have used every transition, door, fault and point of death between them, as those of
`python -m tests.simulation` do each night; of these here a fifth may be left out. Each world leaves what
it used in a directory that all test processes share, and whichever is the last adds it up.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from flask import Flask

from tests.simulation import LIVES_A_WORLD, NIGHTLY, SHORT, buyers, runs, staff
from tests.simulation.coverage import Coverage
from tests.simulation.story import Broken
from tests.simulation.world import World
from tests.support.sandbox import Sandbox

# Of all that two thousand lives use, the one world of every run may leave out one in so many: what a few of
# them meet, as an event that is cancelled, is in it or not with every change of the program.
ONE_IN = 5


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test for each world that the options ask for."""
    if "world_seed" not in metafunc.fixturenames:
        return
    buyers = int(metafunc.config.getoption("--buyers"))
    first = int(metafunc.config.getoption("--seed"))
    worlds = -(-buyers // LIVES_A_WORLD)
    lives = [min(LIVES_A_WORLD, buyers - n * LIVES_A_WORLD) for n in range(worlds)]
    metafunc.parametrize(("world_seed", "lives"), [(first + n, lives[n]) for n in range(worlds)])
    metafunc.parametrize("worlds", [worlds], ids=lambda worlds: f"{worlds} worlds")


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A directory of this run, the same for all its processes."""
    base = tmp_path_factory.getbasetemp()
    path = (base if worker_id == "main" else base.parent) / "simulation"
    path.mkdir(exist_ok=True)
    return path


def test_whatever_happens_every_payment_ends_well(
    app: Flask,
    sandbox: Sandbox,
    shared: Path,
    pytestconfig: pytest.Config,
    world_seed: int,
    lives: int,
    worlds: int,
) -> None:
    try:
        used = runs.live(app, sandbox, world_seed, lives)
    except Broken as broken:
        runs.keep(broken, world_seed, pytestconfig.getoption("--keep"))
        raise
    used.save(shared / f"{world_seed}.json")
    saved = sorted(shared.glob("*.json"))
    if len(saved) < worlds:
        return
    together = Coverage()
    for path in saved:
        together.add(path)
    print(together.table())
    # Fewer lives, and those of seeds that were drawn, need not have seen everything.
    if worlds * LIVES_A_WORLD >= SHORT and not pytestconfig.getoption("--keep"):
        left_out, new = together.missing()
        most = 0 if worlds * LIVES_A_WORLD >= NIGHTLY else len(together.wanted()) // ONE_IN
        assert not new and len(left_out) <= most, "\n".join([*new, *left_out])


def test_a_seed_takes_the_same_steps_again(app: Flask, sandbox: Sandbox) -> None:
    """But for the codes, which are drawn from the system: else a seed that failed would tell nothing."""
    traces = []
    for _ in range(2):
        runs.clean(sandbox)
        with World(app, sandbox, 5, runs.USUAL) as world:
            world.run(8, buyers.begin, staff.others)
        traces.append([_CODES.sub("#", line) for line in world.trace])
    assert traces[0] == traces[1]


_CODES = re.compile(
    r"ORD-\w{8}|(?:cs_test|pi)_\w+|(?:athlete|participant|payment)_[\w-]+"
    r"|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\b\w{6}\b"
)
