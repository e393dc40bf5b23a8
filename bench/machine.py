"""The servers under measurement, started as bin/run starts them, and what they cost.

They run in a home of their own, on free ports, with settings of their own: nothing of the person's
environment or `.env` reaches them, because a run fills the database with a million rows.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from launcher import place
from launcher.instance import Instance, answers, procfile
from launcher.place import Home
from launcher.processes import Program

from bench.goals import SUMUP_RATE

# What a process needs of the person's environment; the rest would only make two runs differ.
_INHERITED = ("PATH", "HOME", "LANG", "TMPDIR", "DYLD_FALLBACK_LIBRARY_PATH")
_SETTINGS = {
    "KASSA_LIMITS": "off",
    # Stripe's own limit for a live account; the default leaves room for others who use the same key.
    "STRIPE_RATE_PER_SECOND": "100",
    # What an account of SumUp's is asked by default; for the sandbox the default is no limit.
    "SUMUP_RATE_PER_SECOND": str(SUMUP_RATE),
}
_SERVERS = ("postgres", "redis", "web", "worker")


@dataclass
class Cost:
    """What a measured block took: seconds on the wall, and CPU seconds of each server."""

    wall: float = 0.0
    by_server: dict[str, float] = field(default_factory=dict)

    @property
    def cpu(self) -> float:
        return sum(self.by_server.values())


class Machine:
    """One Kassa with all its services. Its clock process is left out: no sweep falls into a measurement."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder / "home")
        port, sandbox_port = place.free_port(), place.free_port()
        given = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        # An empty variable hides what stands in the clone's .env.
        hidden = dict.fromkeys(place.dotenv(place.ROOT / ".env"), "")
        ports = {"PORT": str(port), "SANDBOX_PORT": str(sandbox_port)}
        self.instance = Instance(self.home, {**hidden, **given, **_SETTINGS, **ports})
        # Pids of further processes whose work counts as the servers'.
        self.insiders: dict[str, int] = {}

    @property
    def env(self) -> Mapping[str, str]:
        return self.instance.env

    @property
    def port(self) -> int:
        return self.instance.port

    def start_services(self) -> None:
        """PostgreSQL with the tables made, Redis, and the sandbox."""
        self.instance.start_services()
        self.instance.flask(["db", "upgrade"], "The database could not be made")
        url = f"{self.instance.sandbox}/control/settings"
        self._start("sandbox", "python -m sandbox", url)

    def start_web(self, path: str) -> float:
        """Start the web processes; seconds until `path` is answered."""
        began = time.perf_counter()
        self._start("web", procfile()["web"], f"http://127.0.0.1:{self.port}{path}", within=30)
        return time.perf_counter() - began

    def start_worker(self) -> None:
        self._start("worker", procfile()["worker"])

    def stop(self) -> None:
        self.instance.keeper.stop()

    def _start(self, name: str, command: str, url: str = "", within: float = 30) -> None:
        """Start a program and wait for its first answer, looking more often than the launcher does."""
        words = ["/bin/sh", "-c", f"exec {command}"]
        self.instance.keeper.start(Program(name, words, self.env))
        deadline = time.monotonic() + within
        while url and not answers(url):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{name} does not answer.\n{self.instance.keeper.log_end(name)}")
            time.sleep(0.01)

    # What it costs

    @contextmanager
    def measured(self) -> Iterator[Cost]:
        """Measure what the servers and insiders spend during the block."""
        cost = Cost()
        before, began = self._cpu(), time.perf_counter()
        yield cost
        cost.wall = time.perf_counter() - began
        cost.by_server = {name: spent - before.get(name, 0.0) for name, spent in self._cpu().items()}

    def _cpu(self) -> dict[str, float]:
        pids = {name: self._pid(name) for name in _SERVERS} | self.insiders
        return {name: _cpu_of_family(pid) for name, pid in pids.items() if pid}

    def _pid(self, name: str) -> int:
        return place.read_pid(self.home.run / f"{name}.pid")

    def memory_of_web(self) -> tuple[float, float]:
        """Megabytes of all web processes: with shared pages counted once, and for each process."""
        shared_once = for_each = 0
        for process in _family(self._pid("web")):
            memory = process.memory_full_info()
            for_each += memory.rss
            # Only Linux tells the proportional size.
            shared_once += getattr(memory, "pss", memory.uss)
        return shared_once / 1e6, for_each / 1e6


def _family(pid: int) -> list[psutil.Process]:
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def _cpu_of_family(pid: int) -> float:
    """CPU seconds of a process and its children, of those too that have ended and were waited for."""
    spent = 0.0
    with suppress(psutil.NoSuchProcess):
        for process in _family(pid):
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                spent += times.user + times.system
                spent += getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return spent
