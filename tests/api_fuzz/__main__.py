"""The attack at length, on a Kassa of its own: `.venv/bin/python -m tests.api_fuzz --examples 200`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.api_fuzz.attack import PHASES, Outcome, attack
from tests.chaos.instance import Instance

# With fewer a run has stood before closed doors. Which of DEEP are reached is told, for that is luck.
_LEAST_SERVED = 20


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.api_fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, help="an end for the whole run")
    parser.add_argument("--examples", type=int, default=60, help="for each operation")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--phases", nargs="+", choices=PHASES, default=PHASES)
    parser.add_argument(
        "--web", help="a Kassa with the demo that runs already, such as http://localhost:8080"
    )
    parser.add_argument("--sandbox", default="", help="its sandbox's address")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kassa-api-fuzz-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        instance = None if options.web else Instance(folder / "home")
        try:
            outcome = attack(
                options.web or instance.web if instance else options.web,
                options.sandbox or (instance.sandbox if instance else ""),
                folder,
                seconds=options.seconds,
                examples=options.examples,
                seed=options.seed,
                phases=options.phases,
            )
        finally:
            if instance:
                instance.stop()
    return _report(outcome)


def _report(outcome: Outcome) -> int:
    print(outcome.told)
    for name, counted in sorted(outcome.seen.items()):
        codes = ", ".join(f"{code} {count}" for code, count in sorted(outcome.codes.get(name, {}).items()))
        told = ", ".join(f"{status}: {count}" for status, count in sorted(counted.items()))
        print(f"{name}: {told}" + (f" ({codes})" if codes else ""))
    print(f"Did what was asked at least once: {len(outcome.served())} operations")
    print(f"Not reached: {outcome.missed() or 'nothing'}")
    return 1 if outcome.failed or len(outcome.served()) < _LEAST_SERVED else 0


if __name__ == "__main__":
    sys.exit(main())
