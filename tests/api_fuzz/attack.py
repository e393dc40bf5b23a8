"""Lets Schemathesis loose on a running Kassa, and tells what it found and how far it came."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domain.ledger import agents
from domain.security.scopes import Scope
from tests.support.sandbox import ROOT

PHASES = ("examples", "coverage", "fuzzing", "stateful")
# (operation, status) that a long run comes to.
DEEP = (
    ("logIn", 200), ("refresh", 200), ("refresh", 401), ("enter", 201), ("initiate", 201),
    ("paymentStatus", 200), ("paymentHistory", 200), ("cancelPayment", 200), ("refundPayment", 201),
    ("listPayments", 200), ("makeKey", 201), ("checkIn", 200), ("ring", 400),
)  # fmt: skip
_WALKS = 4
# Long enough for a slow machine; the run itself has its own end.
_SPARE_SECONDS = 300


@dataclass(frozen=True)
class Outcome:
    """What became of a run. `told` is Schemathesis's report, `seen` and `codes` are counts by operation."""

    failed: bool
    told: str
    seen: dict[str, dict[str, int]]
    codes: dict[str, dict[str, int]]

    def missed(self) -> list[tuple[str, int]]:
        """What of DEEP the run did not come to."""
        return [(name, status) for name, status in DEEP if str(status) not in self.seen.get(name, {})]

    def served(self) -> set[str]:
        """The operations that did what was asked, at least once."""
        return {name for name, counted in self.seen.items() if counted.keys() & {"200", "201"}}


def attack(
    web: str,
    sandbox: str,
    folder: Path,
    *,
    member: str = "buyer@example.org",
    admin: str = "admin@example.org",
    password: str = "kassa-demo",
    seconds: int | None = None,
    examples: int = 30,
    seed: int = 1,
    phases: Collection[str] = PHASES,
) -> Outcome:
    """Attack the API at `web`, whose payments are made at `sandbox`; reports and state go into `folder`."""
    seen = folder / "seen.json"
    # An example of what has a state is a walk along links of several requests, so there are more of them.
    (folder / "schemathesis.toml").write_text(
        f"[generation]\nmax-examples = {examples}\n"
        f"[phases.stateful.generation]\nmax-examples = {_WALKS * examples}\n"
    )
    settings: dict[str, Any] = {
        "web": web,
        "sandbox": sandbox,
        "member": member,
        "admin": admin,
        "password": password,
        "seed": seed,
        "seen": str(seen),
        "agents": [slug for slug, *_ in agents.DEFAULTS],
        "scopes": [scope.value for scope in Scope if not scope.startswith(("admin:", "tickets:"))],
    }
    environ = os.environ | {
        "KASSA_API_FUZZ": json.dumps(settings),
        "SCHEMATHESIS_HOOKS": "tests.api_fuzz.hooks",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{web}/api/v1/openapi.json"]
    command += ["--url", web, "--phases", ",".join(phases)]
    command += ["--seed", str(seed), "--suppress-health-check", "all", "--generation-database", "none"]
    command += ["--request-timeout", "60", "--no-color", "--no-shrink", "--continue-on-failure"]
    command += ["--max-time", str(seconds)] if seconds else []
    done = subprocess.run(
        command,
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=(seconds or 3600) + _SPARE_SECONDS,
    )
    read = json.loads(seen.read_text()) if seen.exists() else {"seen": {}, "codes": {}}
    return Outcome(done.returncode != 0, done.stdout + done.stderr, read["seen"], read["codes"])
