"""The calls that this process makes to providers: how many there were, and when the next one may leave."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Lock
from time import monotonic, sleep

from domain.providers.contract import ProviderError


class Calls:
    """Counts provider calls in this process, for the sweep's record and for tests."""

    def __init__(self) -> None:
        self.total = 0
        self._lock = Lock()

    def add(self) -> None:
        with self._lock:
            self.total += 1


calls = Calls()
# Takes places in lines that all processes share: the lines' names with their spacing in seconds, and the
# longest wait. The wait until the place in seconds, None where it is too long. Raises NotShared.
Shared = Callable[[Mapping[str, float], float], float | None]


class NotShared(Exception):
    """The places that others take are not known just now."""


def _alone(lines: Mapping[str, float], longest: float) -> float | None:
    raise NotShared


_shared: Shared = _alone
# Without knowing of the others, a process takes so much of an account's rate: as many processes call it.
PROCESSES = 4


def share_by(shared: Shared) -> None:
    """Register who knows what all processes call."""
    global _shared
    _shared = shared


class Throttle:
    """At most `rate` calls a second for one account, whoever makes them; waits, but not for ever.

    Where `name` names the account, its places are shared by all processes. Where they are not known, or
    without a name, each process keeps to its own: a quarter of a shared rate. Some providers limit each
    kind of call, too: `kinds` such calls a second of a kind.
    """

    def __init__(self, rate: int, name: str = "", kinds: int = 0) -> None:
        self.spacing = 1 / rate
        self._name = name
        self._kind_spacing = 1 / kinds if kinds else 0.0
        self._next = 0.0
        self._lock = Lock()

    def wait(self, longest: float, kind: str = "") -> None:
        """Take the next place in the line. Raises a passing ProviderError when it is too far off."""
        delay = self._own(longest, self.spacing) if not self._name else self._place(longest, kind)
        if delay is None:
            raise ProviderError(
                "Too many calls are waiting for this account.", permanent=False, code="throttled"
            )
        sleep(delay)

    def _place(self, longest: float, kind: str) -> float | None:
        lines = {self._name: self.spacing}
        if kind and self._kind_spacing:
            lines[f"{self._name}:{kind}"] = self._kind_spacing
        try:
            return _shared(lines, longest)
        except NotShared:
            return self._own(longest, PROCESSES * max(lines.values()))

    def _own(self, longest: float, spacing: float) -> float | None:
        with self._lock:
            now = monotonic()
            place = max(now, self._next)
            if place - now > longest:
                return None
            self._next = place + spacing
        return place - now
