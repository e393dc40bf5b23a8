"""Answers that take long to work out, kept in this process for a while and given to whoever asks next."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from threading import Lock
from time import monotonic
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

# An answer is kept for a minute, or for so many times as long as it took, but for an hour at most.
_SECONDS = 60.0
_TIMES = 100
_LONGEST = 3600.0
_MOST = 200


class KeptAnswers(Generic[K, V]):
    """By what was asked, an answer and until when it is good; one thread at a time works one of them out."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._answers: dict[K, tuple[float, V]] = {}
        self._working: dict[K, Lock] = {}

    def get(self, asked: K, work: Callable[[], V]) -> V:
        """The kept answer, else what `work` gives."""
        with self._lock:
            mine = self._working.setdefault(asked, Lock())
        with mine:
            known = self._answers.get(asked)
            if known is not None and known[0] > monotonic():
                return known[1]
            began = monotonic()
            found = work()
            ends = monotonic()
            keep = min(max(_SECONDS, _TIMES * (ends - began)), _LONGEST)
            with self._lock:
                self._answers[asked] = (ends + keep, found)
                self._forget(asked)
            return found

    def _forget(self, latest: K) -> None:
        """Those that ended first, where there are too many."""
        old = sorted(self._answers, key=lambda asked: self._answers[asked][0])
        for asked in old[: max(0, len(old) - _MOST)]:
            if asked != latest:
                del self._answers[asked]
                self._working.pop(asked, None)

    def clear(self) -> None:
        """Forget all of them."""
        with self._lock:
            self._answers.clear()
            self._working.clear()
