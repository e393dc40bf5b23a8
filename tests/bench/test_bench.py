"""The bench runs, and its JSON has the shape that is compared from run to run. No clock is judged here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.goals import MEASURES, Better, Measure, short_by

ROOT = Path(__file__).resolve().parents[2]


def test_how_short_a_measure_is_of_its_goal() -> None:
    less, more = Measure("w", "n", "ms", 10), Measure("w", "n", "1/s", 10, Better.MORE)
    assert (short_by(less, 20), short_by(less, 5), short_by(more, 5)) == (2, 0.5, 2)
    assert short_by(Measure("w", "n", ""), 5) is None
    # Never means never: one ticket too many is not a matter of degree.
    never = Measure("w", "n", "", 0)
    assert (short_by(never, 0), short_by(never, 1)) == (1, 2)


@pytest.mark.slow
def test_a_quick_run(tmp_path: Path) -> None:
    out = tmp_path / "run.json"
    # A database of the person's own must never be filled with the bench's rows.
    env = {**os.environ, "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    command = [sys.executable, "-m", "bench", "--quick", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    run = json.loads(out.read_text())
    assert run["quick"] is True
    assert set(MEASURES) - set(run["measures"]) == {
        key for key in MEASURES if key == "rest.million" or key.startswith("million.")
    }
    for key, told in run["measures"].items():
        assert set(told) == {"work", "name", "unit", "value", "goal", "better", "short_by"}
        assert told["value"] >= 0, key
    assert run["measures"]["rush.oversold"]["value"] == 0
    # More slow strangers than threads, and the shop goes on.
    assert run["measures"]["strangers.failed"]["value"] == 0
    assert run["measures"]["strangers.bought"]["value"] >= 1
    for measure in {told["work"] for told in run["measures"].values()}:
        assert f"**{measure}**" in done.stdout
