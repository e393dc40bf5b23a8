"""`.venv/bin/python -m bench`: start everything, measure, print the table, write JSON, stop everything.

It takes about five minutes, and the machine should have nothing else to do meanwhile: compare ratios from one
run. Install its packages with `pip install -r requirements-dev.txt`, which bin/test does.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# The launcher starts the servers; it is found where bin/run finds it.
sys.path[:0] = [str(ROOT / "bin")]

from launcher import say  # noqa: E402

from bench import large_shop, programs, report, scenes, silence, strangers  # noqa: E402
from bench.inside import Inside  # noqa: E402
from bench.machine import Machine  # noqa: E402
from bench.report import Results  # noqa: E402
from bench.scenes import Stage  # noqa: E402

_MILLION = 1_000_000
_PLENTY = 200_000


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure what Kassa costs.")
    parser.add_argument(
        "--quick", action="store_true", help="do very little of everything, to see that it runs"
    )
    parser.add_argument(
        "--million",
        action="store_true",
        help="also a sweep beside 1,000,000 payments at rest, and the pages of a shop of 1,000,000 orders",
    )
    parser.add_argument(
        "--shop",
        type=Path,
        metavar="FOLDER",
        help="only the shop of 1,000,000 orders, filled into this folder the first time, and kept there",
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "bench" / "results" / "latest.json", help="where to write the JSON"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, say.interrupt)
    say.beside_output()
    folder = options.shop or Path(tempfile.mkdtemp(prefix="kassa-bench-"))
    folder.mkdir(exist_ok=True)
    # PostgreSQL does not run as root, and must be able to pass through as another user.
    folder.chmod(0o711)
    machine = Machine(folder.resolve())
    try:
        sizes = scenes.QUICK if options.quick else scenes.FULL
        scene = _large_shop if options.shop else partial(_scenes, million=options.million)
        results, details = _run(machine, sizes, scene)
    except KeyboardInterrupt:
        say.problem("Interrupted.")
        return 130
    finally:
        machine.stop()
        if not options.shop:
            shutil.rmtree(folder, ignore_errors=True)
    print(report.table(results))
    report.write(options.out, results, details, quick=options.quick)
    say.line(f"Written to {options.out}")
    return 0


def _run(
    machine: Machine, sizes: scenes.Sizes, scene: Callable[[Stage], Results]
) -> tuple[Results, dict[str, Any]]:
    machine.start_services()
    insides = [Inside(machine.env, machine.home.log / f"inside{number}.log") for number in (1, 2)]
    machine.insiders = {f"inside{number}": inside.pid for number, inside in enumerate(insides, start=1)}
    stage = Stage(machine, insides, sizes)
    try:
        return scene(stage), stage.details
    finally:
        for inside in insides:
            inside.stop()


def _scenes(stage: Stage, *, million: bool) -> Results:
    """Every scene in its order: what needs no web process first, what leaves many rows behind last."""
    inside, results = stage.inside, Results()
    inside.do("event", slug="inside", capacity=_PLENTY)
    inside.do("event", slug="page", capacity=_PLENTY, kinds=3)
    buying = inside.do("event", slug="buy", capacity=_PLENTY)["types"][0]
    rushing = inside.do("event", slug="rush", capacity=stage.sizes.buyers // 2)["types"][0]
    for title, scene in (
        ("Queries", scenes.count_queries),
        ("Yardstick", scenes.yardstick),
        ("Orders settled", scenes.settle),
        ("PDFs", scenes.pdfs),
        ("Start of web", scenes.start_web),
        ("Event page", scenes.event_page),
        ("Check-ins", scenes.check_ins),
    ):
        say.line(f"  {title} ...")
        results |= scene(stage)
    say.line("  Purchases ...")
    stage.machine.start_worker()
    results |= scenes.purchases(stage, buying)
    say.line("  Programs ...")
    doing = programs.FULL if stage.sizes is scenes.FULL else programs.QUICK
    results |= programs.programs(stage, doing) | programs.rings(stage, doing)
    say.line("  Strangers ...")
    crowd = strangers.FULL if stage.sizes is scenes.FULL else strangers.QUICK
    results |= strangers.strangers(stage, crowd, buying)
    say.line("  A silent provider ...")
    audience = silence.FULL if stage.sizes is scenes.FULL else silence.QUICK
    results |= silence.silence(stage, audience, buying)
    say.line("  A rush ...")
    results |= scenes.rush(stage, rushing) | scenes.memory(stage)
    say.line("  Sweep ...")
    results |= scenes.sweep(stage)
    say.line("  Sweep of many accounts ...")
    results |= scenes.sumup_sweep(stage)
    if million:
        say.line("  A million payments at rest ...")
        results |= scenes.at_rest(stage, _MILLION)
        say.line("  A shop of a million orders ...")
        results |= large_shop.measure(stage, _MILLION)
    return results


def _large_shop(stage: Stage) -> Results:
    say.line("  A shop of a million orders ...")
    return large_shop.measure(stage, _MILLION)


if __name__ == "__main__":
    sys.exit(main())
