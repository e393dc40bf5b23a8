"""The chaos at length: `.venv/bin/python -m tests.chaos --purchases 200 --redis-down 60 --outage 60`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.chaos.instance import Instance
from tests.chaos.story import run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--purchases", type=int, default=200)
    parser.add_argument("--redis-down", type=float, default=60)
    parser.add_argument("--outage", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--webs", type=int, default=2, help="web machines over one PostgreSQL and Redis")
    parser.add_argument("--workers", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kassa-chaos-") as folder:
        Path(folder).chmod(0o711)
        instance = Instance(Path(folder) / "home", SWEEP_INTERVAL_SECONDS="15")
        try:
            instance.grow(webs=options.webs - 1, workers=options.workers - 1)
            outcome = run(
                instance,
                purchases=options.purchases,
                redis_down=options.redis_down,
                outage=options.outage,
                seed=options.seed,
            )
        finally:
            instance.stop()
    for name, value in asdict(outcome).items():
        print(f"{name}: {value}")
    return 1 if outcome.problems else 0


if __name__ == "__main__":
    sys.exit(main())
