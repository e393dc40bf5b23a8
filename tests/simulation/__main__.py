"""Any number of buyers' lives: `python -m tests.simulation --buyers 100000 --seed 7`.

Starts PostgreSQL and Redis as `./bin/test` does, and lives 250 lives a world, each world with the next seed,
on as many processes as there are cores. What goes wrong is printed with its seed and its steps; to see it
again: `python -m tests.simulation --buyers 250 --seed <that seed>`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Run it by bin/test; pytest's exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--buyers", type=int, default=2000, help="how many lives (default 2000)")
    parser.add_argument("--seed", type=int, default=1, help="the first world's seed (default 1)")
    options = parser.parse_args()
    command = [str(ROOT / "bin" / "test"), "tests/simulation/test_simulation.py", "-k", "ends_well"]
    command += ["-n", str(os.cpu_count() or 1), "--maxfail=3"]
    command += ["--buyers", str(options.buyers), "--seed", str(options.seed)]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
