"""What the person at the terminal reads: progress, problems, questions."""

from __future__ import annotations

import sys
import time
from types import FrameType
from typing import NoReturn, TextIO

# A pipe or a log gets a progress line this often; a terminal gets its line rewritten each time.
QUIET_SECONDS = 5.0


class Stop(Exception):
    """Something the launcher cannot do; the text says what, and what to do about it."""


def interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    """A signal handler: SIGTERM, SIGINT and SIGHUP end a command as Ctrl-C does."""
    raise KeyboardInterrupt


_progress: TextIO = sys.stdout


def beside_output() -> None:
    """From here on, progress goes to standard error: standard output belongs to a command that is run."""
    global _progress
    _progress = sys.stderr


def line(text: str = "") -> None:
    """One line of progress."""
    print(text, file=_progress, flush=True)


def problem(text: str) -> None:
    """What went wrong, on standard error."""
    sys.stdout.flush()
    print(f"\n{text}" if sys.stderr.isatty() else text, file=sys.stderr, flush=True)


def ask(question: str, *, yes: bool) -> bool:
    """Whether the person agrees: `--yes` agrees beforehand, and nobody at the keyboard means no."""
    if yes:
        return True
    if not sys.stdin.isatty():
        return False
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


class Step:
    """One step with its duration: `Step("Packages")`, `.note("12 of 80")`, `.done()`."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.started = time.monotonic()
        self._said = self.started
        self._live = _progress.isatty()
        if self._live:
            self._show("...")
        else:
            line(f"  {title} ...")

    def note(self, text: str) -> None:
        """Show how far the step is."""
        if self._live:
            self._show(text)
        elif time.monotonic() - self._said >= QUIET_SECONDS:
            self._said = time.monotonic()
            line(f"  {self.title}: {text}")

    def done(self, text: str = "done") -> None:
        seconds = time.monotonic() - self.started
        took = f" ({seconds:.1f} s)" if seconds >= 0.5 else ""
        if self._live:
            self._show(f"{text}{took}")
            _progress.write("\n")
        else:
            line(f"  {self.title}: {text}{took}")

    def _show(self, text: str) -> None:
        _progress.write(f"\r\033[K  {self.title:<22} {text}"[:160])
        _progress.flush()
