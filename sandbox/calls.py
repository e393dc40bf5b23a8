"""A log of the calls that providers' APIs received, in memory, for /control/calls."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

KEPT = 100_000


@dataclass
class Call:
    """One request. `time` is real, in seconds since the epoch; `status` is None while it is not answered."""

    id: int
    time: float
    provider: str
    method: str
    path: str
    query: str
    idempotency_key: str | None
    status: int | None = None
    fault: str | None = None


class Calls:
    """The last calls, oldest first."""

    def __init__(self) -> None:
        self._calls: deque[Call] = deque(maxlen=KEPT)
        self._lock = threading.Lock()
        self._last = 0

    def begin(self, provider: str, method: str, path: str, query: str, key: str | None) -> Call:
        """Note a call that has just arrived. Its status is set when it is answered."""
        with self._lock:
            self._last += 1
            call = Call(self._last, time.time(), provider, method, path, query, key)
            self._calls.append(call)
            return call

    def since(self, moment: float) -> list[dict[str, Any]]:
        """The calls that arrived after `moment`."""
        with self._lock:
            return [asdict(call) for call in self._calls if call.time > moment]

    def empty(self) -> None:
        with self._lock:
            self._calls.clear()
