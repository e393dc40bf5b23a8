"""Starts the sandbox as a process of its own, and talks to its /control."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60


@dataclass
class Sandbox:
    """A running sandbox. `base_url` is http://127.0.0.1:<port>, without a slash at its end."""

    base_url: str
    smtp_port: int
    process: subprocess.Popen[str]
    home: Path

    def __post_init__(self) -> None:
        self._http = requests.Session()
        self._http.trust_env = False

    def get(self, path: str, **query: Any) -> Any:
        """What /control answers to a GET, `path` being below /control/."""
        return self._answer(self._http.get(f"{self.base_url}/control/{path}", params=query, timeout=30))

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """What /control answers to a POST."""
        return self._answer(self._http.post(f"{self.base_url}/control/{path}", json=body or {}, timeout=30))

    def do(self, payment_id: str, action: str, **more: Any) -> dict[str, Any]:
        """Pay, decline, refund, ... a payment by its provider id; the payment as it is then."""
        payment: dict[str, Any] = self.post(f"payments/{payment_id}", {"do": action, **more})
        return payment

    def faults(self, *kinds: str, **rule: Any) -> None:
        """Put faults in force; none without kinds."""
        self.post("faults", {"kinds": list(kinds), **rule} if kinds else {})

    def advance(self, seconds: float) -> None:
        """Move the clock of the sandbox and of Kassa."""
        self.post("clock", {"advance_seconds": seconds})

    def mail(self, to: str = "") -> list[dict[str, Any]]:
        """The mails that were caught, newest first; only those to `to`, if given."""
        mails: list[dict[str, Any]] = self.get("mail", to=to, limit=10_000)
        return mails

    def calls(self, since: float = 0) -> list[dict[str, Any]]:
        """The calls to the providers' APIs after a moment, oldest first."""
        calls: list[dict[str, Any]] = self.get("calls", since=since)
        return calls

    def reset(self) -> None:
        """Empty it: no payments, mails, faults or clock offset."""
        self.post("reset")

    def stop(self) -> int:
        """End the process; its exit status."""
        self._http.close()
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(timeout=START_SECONDS)

    @staticmethod
    def _answer(response: requests.Response) -> Any:
        if not response.ok:
            raise AssertionError(f"/control answered {response.status_code}: {response.text}")
        return response.json()


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def start_sandbox(
    home: Path,
    webhook_url: str | None = None,
    *,
    port: int = 0,
    smtp_port: int = 0,
    module: str = "sandbox",
) -> Sandbox:
    """Start a sandbox with its state in `home`, on free ports unless given, and wait until it is ready."""
    home.mkdir(parents=True, exist_ok=True)
    port, smtp_port = port or free_port(), smtp_port or free_port()
    environ = {
        **os.environ,
        "KASSA_ENV": "development",
        "KASSA_HOME": str(home),
        "SANDBOX_PORT": str(port),
        "SANDBOX_SMTP_PORT": str(smtp_port),
        "SANDBOX_WEBHOOK_URL": webhook_url or "",
    }
    environ.pop("SANDBOX_PUBLIC_URL", None)
    log = home / "sandbox.log"
    with log.open("a") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module], cwd=ROOT, env=environ, stdout=output, stderr=output, text=True
        )
    sandbox = Sandbox(f"http://127.0.0.1:{port}", smtp_port, process, home)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            sandbox.get("settings")
            return sandbox
        except requests.ConnectionError:
            time.sleep(0.05)
    sandbox.stop()
    raise RuntimeError(f"The sandbox did not start: {log.read_text()}")
