"""The sandbox's time: the real time plus the offset in `$KASSA_HOME/clock`, which Kassa reads too."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path


class Clock:
    """Reads the offset on every call, so that a clock moved by anybody is moved for everybody."""

    def __init__(self, home: Path) -> None:
        self._path = home / "clock"
        self._lock = threading.Lock()

    def offset(self) -> float:
        """Seconds that are added to the real time; 0 without a file."""
        try:
            return float(self._path.read_text() or 0)
        except FileNotFoundError:
            return 0.0

    def now(self) -> float:
        """Seconds since the epoch, by this clock."""
        return time.time() + self.offset()

    def advance(self, seconds: float) -> float:
        """Move the clock by `seconds`; the new offset. The file is replaced whole, never half-written."""
        with self._lock:
            offset = self.offset() + seconds
            new = self._path.with_name(f"clock.{os.getpid()}.new")
            new.write_text(f"{offset!r}\n")
            new.replace(self._path)
            return offset

    def reset(self) -> None:
        """Back to the real time."""
        with self._lock:
            self._path.unlink(missing_ok=True)
