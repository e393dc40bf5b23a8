"""Keeping processes alive and ending them: one session each, a pid file each, restarts with back-off."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from launcher import say
from launcher.place import ROOT, Home, write_private
from launcher.say import Stop

LONGEST_PAUSE = 30.0
# A process that lived this long had a good start: its next death is a new story.
GOOD_LIFE = 30.0
POLL = 0.1


@dataclass
class Program:
    """How one process is started, seen to be ready, and asked to stop."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str]
    # Answers whether it serves; asked until it does. None: it is ready once it runs.
    ready: Callable[[], bool] | None = None
    ready_seconds: float = 60.0
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 8.0
    # Another system user to run as, for PostgreSQL under root.
    user: int | None = None
    cwd: Path = ROOT


@dataclass
class _Running:
    program: Program
    process: subprocess.Popen[bytes]
    since: float
    pause: float = 0.5
    restart_at: float = field(default=0.0)


class Keeper:
    """Starts programs, restarts what dies, stops everything. One per home."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._running: dict[str, _Running] = {}

    def start(self, program: Program) -> None:
        """Start `program` and wait until it is ready; raises Stop with the end of its log."""
        self._launch(program)
        deadline = time.monotonic() + program.ready_seconds
        log_end = partial(self.log_end, program.name)
        while program.ready is not None and not program.ready():
            process = self._running[program.name].process
            if process.poll() is not None:
                raise Stop(f"{program.name} stopped at once ({_cause(process.returncode)}).\n{log_end()}")
            if time.monotonic() > deadline:
                raise Stop(f"{program.name} is not ready after {program.ready_seconds:.0f} s.\n{log_end()}")
            time.sleep(POLL)

    def watch(self) -> None:
        """Restart what dies, until a signal ends this process's patience (KeyboardInterrupt)."""
        while True:
            for running in list(self._running.values()):
                self._look_after(running)
            time.sleep(POLL)

    def stop(self) -> None:
        """Stop everything, the last started first, each with what it started in turn."""
        for name in reversed(list(self._running)):
            running = self._running.pop(name)
            end_process(running.process, running.program)
            self._forget(name)

    def log_end(self, name: str, lines: int = 12) -> str:
        """The last lines of a program's log, for a person to read."""
        path = self.home.log / f"{name}.log"
        text = path.read_text(errors="replace").splitlines()[-lines:] if path.exists() else []
        return "\n".join(f"  {line}" for line in [*text, f"(the whole log: {path})"])

    def _launch(self, program: Program) -> None:
        with (self.home.log / f"{program.name}.log").open("ab") as log:
            process = subprocess.Popen(
                list(program.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(program.env),
                cwd=program.cwd,
                # A session of its own: Ctrl-C reaches the launcher alone, and its whole family can be found.
                start_new_session=True,
                user=program.user,
                group=program.user,
                extra_groups=[] if program.user is not None else None,
            )
        before = self._running.get(program.name)
        self._running[program.name] = _Running(
            program, process, time.monotonic(), pause=before.pause if before else 0.5
        )
        (self.home.run / f"{program.name}.pid").write_text(f"{process.pid}\n")
        remember(self.home, program.name, process.pid)

    def _look_after(self, running: _Running) -> None:
        program, process = running.program, running.process
        if process.poll() is None:
            return
        now = time.monotonic()
        if not running.restart_at:
            if now - running.since > GOOD_LIFE:
                running.pause = 0.5
            running.restart_at = now + running.pause
            cause = _cause(process.returncode)
            say.line(
                f"  {program.name} stopped ({cause}); starting it again in {running.pause:.1f} s "
                f"(its log: {self.home.log / program.name}.log)"
            )
            running.pause = min(running.pause * 2, LONGEST_PAUSE)
            # gunicorn's workers hold the port for a while after their master was killed.
            end_session(process.pid, 1.0)
        elif now >= running.restart_at and not (self.home.run / f"{program.name}.hold").exists():
            # `touch $KASSA_HOME/run/redis.hold` keeps Redis down, for those who try what happens then.
            self._launch(program)

    def _forget(self, name: str) -> None:
        (self.home.run / f"{name}.pid").unlink(missing_ok=True)
        remember(self.home, name, None)


def _cause(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    return f"signal {-code}, {signal.Signals(-code).name}"


# --- ending, and cleaning up after a launcher that was killed


def end_process(process: subprocess.Popen[bytes], program: Program) -> None:
    """Ask it to stop, then make it, then make what it left behind."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            process.send_signal(program.stop_signal)
        try:
            process.wait(program.stop_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    end_session(process.pid, 2.0)


def end_session(session: int, patience: float) -> None:
    """End every process of a session: SIGTERM, `patience` seconds, SIGKILL."""
    members = session_members(session)
    _signal_all(members, signal.SIGTERM)
    deadline = time.monotonic() + patience
    while members and time.monotonic() < deadline:
        time.sleep(POLL / 2)
        members = session_members(session)
    _signal_all(members, signal.SIGKILL)


def session_members(session: int) -> list[int]:
    """The processes of a session, those of other users too; zombies left out."""
    found = []
    for pid in all_pids():
        with suppress(OSError):
            if pid != os.getpid() and os.getsid(pid) == session and started_at(pid):
                found.append(pid)
    return found


def all_pids() -> list[int]:
    if sys.platform == "linux":
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    listed = subprocess.run(["ps", "-axo", "pid="], capture_output=True, text=True, check=True)
    return [int(text) for text in listed.stdout.split()]


def started_at(pid: int) -> str:
    """When a process began, in its system's words, or "" when it is gone.

    A pid with it names one process for ever; a pid alone may be somebody else's by now.
    """
    if sys.platform == "linux":
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return ""
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return "" if fields[0] == "Z" else f"{boot} {fields[19]}"
    asked = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True)
    state, _, began = asked.stdout.strip().partition(" ")
    return "" if state.startswith("Z") else began.strip()


def remember(home: Home, name: str, pid: int | None) -> None:
    """Note that `name` runs as `pid` since when, or (None) that it no longer runs."""
    path = home.run / "processes.json"
    noted = read_noted(home)
    if pid is None:
        noted.pop(name, None)
    else:
        noted[name] = {"pid": str(pid), "started": started_at(pid)}
    write_private(path, json.dumps(noted, indent=2) + "\n")


def read_noted(home: Home) -> dict[str, dict[str, str]]:
    try:
        noted = json.loads((home.run / "processes.json").read_text())
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def clean_leftovers(home: Home) -> list[str]:
    """End what a launcher that was killed left running in this home. Returns the names."""
    ended = []
    for name, note in reversed(list(read_noted(home).items())):
        pid = int(note["pid"])
        leader = started_at(pid)
        if leader and leader != note["started"]:
            # The number belongs to another process by now, and so does its session.
            remember(home, name, None)
            continue
        if leader:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT if name == "postgres" else signal.SIGTERM)
            _wait_gone(pid, 5.0)
        if leader or _same_boot(note["started"]):
            end_session(pid, 2.0)
        if leader:
            ended.append(name)
        remember(home, name, None)
        (home.run / f"{name}.pid").unlink(missing_ok=True)
    return ended


def _same_boot(started: str) -> bool:
    if sys.platform != "linux":
        return False
    return started.startswith(Path("/proc/sys/kernel/random/boot_id").read_text().strip())


def _wait_gone(pid: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while started_at(pid) and time.monotonic() < deadline:
        time.sleep(POLL / 2)


def _signal_all(pids: Sequence[int], signum: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signum)
