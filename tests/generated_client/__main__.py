"""An entry's whole way by a generated client: `.venv/bin/python -m tests.generated_client`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.chaos.instance import Instance
from tests.generated_client.story import EXPECTED, generated, live


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.generated_client", description=__doc__)
    parser.add_argument(
        "--web", help="a Kassa with the demo that runs already, such as http://localhost:8080"
    )
    parser.add_argument("--sandbox", default="", help="its sandbox's address")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kassa-client-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        instance = None if options.web else Instance(folder / "home")
        web, sandbox = (instance.web, instance.sandbox) if instance else (options.web, options.sandbox)
        people = {"member": "buyer@example.org", "admin": "admin@example.org", "password": "kassa-demo"}
        try:
            with generated(web, folder):
                seen = live(web, sandbox, "harbour-open", **people)
        finally:
            if instance:
                instance.stop()
    print("\n".join(seen))
    return 0 if seen == EXPECTED else 1


if __name__ == "__main__":
    sys.exit(main())
