"""The whole sale: `python -m tests.hoarding`.

200 tickets with the waiting line on; 100 buyers who each pay within three minutes, and a hoarder of 200
addresses who never pays, all behind one address, at once, in browsers without script. Then the same without
the hoarder.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Run it by bin/test; pytest's exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.hoarding", description=__doc__)
    rarely = "look so many times as rarely as the pages say, to be done sooner (default 1)"
    parser.add_argument("--rarely", type=int, default=1, help=rarely)
    options = parser.parse_args()
    command = [str(ROOT / "bin" / "test"), "tests/hoarding", "--whole", "-q", "-s"]
    command += ["--rarely", str(options.rarely)]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
