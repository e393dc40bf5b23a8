"""The whole sale: `python -m tests.hoarding`.

200 tickets with the waiting line on; 100 buyers who each pay within three minutes, and a hoarder of 200
addresses who never pays, all behind one address, at once, in browsers without script: one who keeps a ticket
with each address, one who takes as many as an order may have, and one who goes on to pay with those. Then the
same without the hoarder. The clock is moved from one request to the next, so it takes as long as those take.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from tests.hoarding.sale import HOARDERS

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Run it by bin/test; pytest's exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.hoarding", description=__doc__)
    rarely = "look so many times as rarely as the pages say, to be done sooner (default 1)"
    parser.add_argument("--rarely", type=int, default=1, help=rarely)
    parser.add_argument("--hoarder", choices=[*HOARDERS], help="only this kind (default: all)")
    options = parser.parse_args()
    command = [str(ROOT / "bin" / "test"), "tests/hoarding", "--whole", "-q", "-s"]
    command += ["--rarely", str(options.rarely)]
    command += ["--hoarder", options.hoarder] if options.hoarder else []
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    print("It holds." if status == 0 else "IT DOES NOT HOLD: see above.")
    return status


if __name__ == "__main__":
    sys.exit(main())
