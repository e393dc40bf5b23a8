"""A short run of the chaos; `python -m tests.chaos` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.instance import Instance
from tests.chaos.story import run


@pytest.mark.xdist_group("instance")
def test_every_paid_purchase_has_its_goods_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder: Path = tmp_path_factory.mktemp("chaos")
    instance = Instance(folder / "home", SWEEP_INTERVAL_SECONDS="5")
    try:
        # One more worker over the same PostgreSQL and Redis; the long run has a second web machine, too.
        instance.grow(webs=0, workers=1)
        outcome = run(instance, purchases=18, redis_down=3, outage=3, seed=1, buyers=6, hurry=True)
    finally:
        instance.stop()
    assert outcome.problems == []
    # A create whose answer was lost is a person's at Kaspi, so that fewer are paid there.
    assert outcome.paid > 8 and outcome.by.keys() == {"stripe", "sumup", "kaspi"}, outcome
    assert sum(outcome.killed.values()) >= 3
