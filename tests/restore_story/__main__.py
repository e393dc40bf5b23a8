"""The story at length: `.venv/bin/python -m tests.restore_story --before 60 --during 40 --after 60`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from pyrage import x25519

from tests.restore_story.shops import running
from tests.restore_story.story import Story, told


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.restore_story", description=__doc__)
    parser.add_argument("--before", type=int, default=60, help="purchases before the backup begins")
    parser.add_argument("--during", type=int, default=40, help="while it is taken, at the least")
    parser.add_argument("--after", type=int, default=60, help="that no backup has")
    parser.add_argument("--hands", type=int, default=6, help="buyers at a time")
    options = parser.parse_args()
    identity = x25519.Identity.generate()
    with tempfile.TemporaryDirectory(prefix="kassa-restore-story-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        settings = {
            "BACKUP_KEY": str(identity.to_public()),
            "LISTING_FEE": "15",
            "WALLET_CURRENCY": "EUR",
            "HOUSE_ACCOUNT_FOR_ORGANISERS": "true",
            # One sweep after the restore, as the clock starts; what it leaves undone is seen.
            "SWEEP_INTERVAL_SECONDS": "120",
        }
        with running(folder, **settings) as shop:
            numbers = (options.before, options.during, options.after)
            outcome = Story(shop, folder, identity, purchases=numbers, hands=options.hands).run()
    told(outcome, print)
    return 1 if outcome.problems else 0


if __name__ == "__main__":
    sys.exit(main())
