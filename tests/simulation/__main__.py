"""Any number of buyers' lives: `python -m tests.simulation --buyers 100000 --seed 7`.

Starts PostgreSQL and Redis as `./bin/test` does, and lives 250 lives a world, each world with the next seed,
on as many processes as there are cores. What goes wrong is printed with its seed and its steps; to see it
again: `python -m tests.simulation --buyers 250 --seed <that seed>`.

With `--known` it lives the worlds that once failed. With `--unseen` the first seed is drawn, so that no
run repeats another, and every world is lived, also after one that broke. What broke is kept in
`.kassa-simulation/<seed>.txt` and belongs into `regressions.py`.
"""

from __future__ import annotations

import argparse
import os
import secrets
import subprocess
import sys
from pathlib import Path

from tests.simulation import LIVES_A_WORLD, NIGHTLY
from tests.simulation.regressions import KNOWN

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / ".kassa-simulation"
# Above all seeds that were ever named anywhere, and short enough to type.
_UNSEEN_FROM, _UNSEEN_COUNT = 10_000_000, 90_000_000


def main() -> int:
    """Run it by bin/test; pytest's exit status."""
    once = "; ".join(f"--seed {seed} --buyers {lives}: {what}" for seed, lives, what in KNOWN)
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation", description=__doc__, epilog=f"What once failed: {once}."
    )
    parser.add_argument("--buyers", type=int, default=NIGHTLY, help=f"how many lives (default {NIGHTLY})")
    seeds = parser.add_mutually_exclusive_group()
    seeds.add_argument("--seed", type=int, default=1, help="the first world's seed (default 1)")
    seeds.add_argument("--unseen", action="store_true", help="draw the first seed, and keep what breaks")
    seeds.add_argument("--known", action="store_true", help="the worlds that once failed")
    options = parser.parse_args()
    if options.known:
        return max(_live(seed, lives, "--maxfail=3") for seed, lives, _ in KNOWN)
    seed = _UNSEEN_FROM + secrets.randbelow(_UNSEEN_COUNT) if options.unseen else options.seed
    if not options.unseen:
        return _live(seed, options.buyers, "--maxfail=3")
    worlds = -(-options.buyers // LIVES_A_WORLD)
    print(f"Seeds {seed} to {seed + worlds - 1}, never lived before.", flush=True)
    status = _live(seed, options.buyers, "--keep", str(KEPT))
    _tell_what_broke(seed)
    return status


def _live(seed: int, buyers: int, *more: str) -> int:
    """Live so many lives by bin/test, from a seed on; its exit status."""
    command = [str(ROOT / "bin" / "test"), "tests/simulation/test_simulation.py", "-k", "ends_well"]
    command += ["-n", str(os.cpu_count() or 1), "--buyers", str(buyers), "--seed", str(seed), *more]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def _tell_what_broke(first: int) -> None:
    """Name the seeds of this run that were kept, and how each is seen again."""
    kept = sorted(int(path.stem) for path in KEPT.glob("*.txt") if int(path.stem) >= first)
    for seed in kept:
        print(f"Broke: python -m tests.simulation --buyers 250 --seed {seed}  (see {KEPT.name}/{seed}.txt)")
    print(f"{len(kept)} of these worlds broke.", flush=True)


if __name__ == "__main__":
    sys.exit(main())
