"""A Kassa of its own, started by ./bin/run in a folder of its own, whose parts can be killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import requests

from tests.support.sandbox import ROOT, free_port

START_SECONDS = 300
# However soon all is bought.
LEAST_KILLS = 3


class Instance:
    """A running instance; `web` and `sandbox` are its addresses without a slash at their end."""

    def __init__(self, home: Path, **settings: str) -> None:
        self.home = home
        port, sandbox_port = free_port(), free_port()
        self.web, self.sandbox = f"http://localhost:{port}", f"http://127.0.0.1:{sandbox_port}"
        hidden = ("DATABASE_URL", "REDIS_URL", "KASSA_TEST_DATABASE_URL", "KASSA_TEST_REDIS_URL")
        self.environ = {name: value for name, value in os.environ.items() if name not in hidden} | {
            "KASSA_HOME": str(home),
            "PORT": str(port),
            "SANDBOX_PORT": str(sandbox_port),
            "KASSA_LIMITS": "off",
            **settings,
        }
        self.doors, self.more = [self.web], list[Further]()
        self._log = (home.parent / "run.log").open("w")
        self.process = subprocess.Popen(
            ["./bin/run", "--yes"], cwd=ROOT, env=self.environ, stdout=self._log, stderr=self._log
        )
        self._wait_until(
            lambda: "Kassa is open." in Path(self._log.name).read_text(), START_SECONDS, "it opens"
        )

    def _wait_until(self, holds: Callable[[], bool], seconds: float, what: str) -> None:
        ends = time.monotonic() + seconds
        while not holds():
            if self.process.poll() is not None or time.monotonic() > ends:
                raise RuntimeError(
                    f"Waited for this in vain: {what}. {Path(self._log.name).read_text()[-2000:]}"
                )
            time.sleep(0.2)

    def grow(self, webs: int, workers: int) -> None:
        """Further machines' processes over the same PostgreSQL and Redis, started again when they die."""
        ports = [free_port() for _ in range(webs)]
        self.doors += [f"http://localhost:{port}" for port in ports]
        self.more = [Further(self, "web", port) for port in ports]
        self.more += [Further(self, "worker", 0) for _ in range(workers)]
        for door in self.doors[1:]:
            self._wait_until(partial(_answers, door), START_SECONDS, f"{door} answers")

    def door(self, number: int) -> str:
        """The address of one of the web machines: a balancer sends each buyer to the next one."""
        return self.doors[number % len(self.doors)]

    def flask(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run an operator's command on this instance."""
        return subprocess.run(
            ["./bin/flask", *arguments],
            cwd=ROOT,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def control(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Ask the sandbox's /control (a POST where there is a body)."""
        url = f"{self.sandbox}/control/{path}"
        answer = (
            requests.post(url, json=body, timeout=30) if body is not None else requests.get(url, timeout=30)
        )
        answer.raise_for_status()
        return answer.json()

    def answers(self) -> bool:
        """Whether the web processes of every machine live."""
        return all(_answers(door) for door in self.doors)

    def kill(self, name: str) -> None:
        """kill -9 the process called `name` and all that it started."""
        with suppress(FileNotFoundError, ProcessLookupError, ValueError):
            os.killpg(int((self.home / "run" / f"{name}.pid").read_text()), signal.SIGKILL)

    def hold(self, name: str, down: bool) -> None:
        """Keep a process from being started again, or let it."""
        marker = self.home / "run" / f"{name}.hold"
        if down:
            marker.touch()
        else:
            marker.unlink(missing_ok=True)

    def env(self) -> dict[str, str]:
        """The settings that the launcher resolved."""
        return dict(json.loads((self.home / "env").read_text()))

    def stop(self) -> None:
        for further in self.more:
            further.stop()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        self._log.close()


def _answers(door: str) -> bool:
    with suppress(requests.RequestException):
        return requests.get(f"{door}/livez", timeout=2).ok
    return False


class Further:
    """A web or worker process of another machine, as the Procfile starts it; it is started again."""

    def __init__(self, instance: Instance, name: str, port: int) -> None:
        self.name = name
        started = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines() if line)
        self._command = ["/bin/sh", "-c", f"exec {started[name]}"]
        path = f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}"
        self._env = {**instance.environ, **instance.env(), "PATH": path, "PORT": str(port)}
        self._log = (instance.home.parent / f"{name}-{port or id(self)}.log").open("w")
        self._stopped = threading.Event()
        self._process = self._start()
        self._keeper = threading.Thread(target=self._keep)
        self._keeper.start()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._command, cwd=ROOT, env=self._env, stdout=self._log, stderr=self._log, start_new_session=True
        )

    def _keep(self) -> None:
        while not self._stopped.wait(0.5):
            if self._process.poll() is not None:
                self._process = self._start()

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def stop(self) -> None:
        self._stopped.set()
        self._keeper.join()
        self.kill()
        self._process.wait(30)
        self._log.close()


class Killer:
    """Kills web, worker or clock at random, here or elsewhere, three at least, until told to stop.

    A web process that was killed comes back first: else a slow machine would never have the shop open.
    """

    def __init__(self, instance: Instance, seed: int, pause: tuple[float, float]) -> None:
        self.instance = instance
        self.dice = random.Random(seed)
        self.pause = pause
        self.killed: list[str] = []
        self.stopped = False

    def run(self) -> None:
        while not self.stopped or len(self.killed) < LEAST_KILLS:
            time.sleep(self.dice.uniform(*self.pause))
            here: list[str | Further] = ["web", "worker", "clock"]
            victim = self.dice.choice([*here, *self.instance.more])
            if isinstance(victim, Further):
                victim.kill()
                self.killed.append(f"further {victim.name}")
            else:
                self.instance.kill(victim)
                self.killed.append(victim)
            while "web" in self.killed[-1] and not self.stopped and not self.instance.answers():
                time.sleep(0.2)


def as_json(result: subprocess.CompletedProcess[str]) -> Any:
    """What a command printed with --json."""
    return json.loads(result.stdout)
