"""Processes that die: at each provider call, each commit and each letter, just before it and just after.

A death is an exception that nothing in the domain may catch: what was not committed is rolled back, and the
world goes on with what is in the database. Sometimes it is the database that ends the connections, and the
process lives: its next statement fails, and what it does then must be as right as a death.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from random import Random
from types import FrameType
from typing import Any

import pytest

from domain.post import transport
from domain.providers.stripe import StripeProvider
from domain.providers.sumup import SumUpProvider
from domain.providers.sumup_oauth import SumUpConnector
from extensions import db

PROVIDER_CALLS = ("create", "find", "fetch", "close", "refund", "find_refund")
SUMUP_CALLS = ("create", "find", "fetch", "close", "refund", "refunded_minor")
TOKEN_CALLS = ("exchange", "refresh")
_FARTHEST = 6
# Who commits for others: the point is named after those.
_IN_BETWEEN = ("domain.locks", "tests.simulation.plants")


class Death(BaseException):
    """The process is gone. Its text is the point at which it died."""


class Deaths:
    """Every point where a process can die, how often one came by, and how often one died there."""

    def __init__(self, rng: Random, one_in: int) -> None:
        self._rng = rng
        # One in so many steps has a process that dies somewhere, if it comes that far.
        self._one_in = one_in
        self.seen: Counter[str] = Counter()
        self.died: Counter[str] = Counter()
        # Where the database ended the connections, how often of all deaths it does, and how it is made to.
        self.dropped: Counter[str] = Counter()
        self.drops = 0.15
        self.drop: Callable[[], None] = lambda: None
        # Letters of which the sender does not know whether they arrived.
        self.unclear_letters: set[str] = set()
        self._in_flight = ""
        # Whether the database has ended the connections in this step.
        self._cut = False
        # Called at each point between a provider call and what follows it, with the provider's id if known.
        self.between: Callable[[str, str], None] = lambda point, provider_id: None
        self._countdown = 0
        self._rare = False
        self._over = False

    def arm(self, *, soon: bool = False) -> None:
        """Decide whether a death comes: after some points of the coming step, or at the next rare point."""
        self._countdown = 0
        if self._over or self._rng.randrange(min(2, self._one_in) if soon else self._one_in):
            return
        if self._rng.random() < 0.3:
            self._countdown = self._rng.randint(1, _FARTHEST)
        else:
            self._rare = True

    def end(self) -> None:
        """Nobody dies any more."""
        self._over = True
        self.disarm()

    def disarm(self) -> None:
        """Nobody dies until the next `arm`."""
        self._countdown, self._rare = 0, False

    def hold(self) -> tuple[int, bool]:
        """Disarm, and give back what `resume` needs to arm again: other processes' steps come in between."""
        held = self._countdown, self._rare
        self.disarm()
        return held

    def resume(self, held: tuple[int, bool]) -> None:
        """See `hold`."""
        self._countdown, self._rare = held

    def point(self, name: str) -> None:
        """A process comes by; it may be its end."""
        self.seen[name] += 1
        if self._countdown:
            self._countdown -= 1
            dies = self._countdown == 0
        else:
            dies = self._rare and self.died[name] == min(self.died[point] for point in self.seen)
        if not dies:
            return
        self.disarm()
        self._unclear()
        if self._rng.random() < self.drops:
            self.dropped[name] += 1
            self._cut = True
            self.drop()
            return
        self.died[name] += 1
        raise Death(name)

    def step_over(self) -> None:
        """A step has ended. What left on ended connections, in it, may not have been written down."""
        self._left_on_cut()
        self._cut = False

    def _left_on_cut(self) -> None:
        """The connections may have ended before the letter left, and who sent it notices after it only."""
        if self._cut:
            self._unclear()

    def _unclear(self) -> None:
        """Whoever has just handed a letter over does not get to write it down, so that it is sent again."""
        if self._in_flight:
            self.unclear_letters.add(self._in_flight)
            self._in_flight = ""

    # --- Wrapping the real things ---

    def wrap(self, patch: pytest.MonkeyPatch) -> None:
        """Put the points around the adapter's calls, the session's commit and the sending of letters."""
        for adapter, calls, prefix in (
            (StripeProvider, PROVIDER_CALLS, ""),
            (SumUpProvider, SUMUP_CALLS, "sumup "),
            (SumUpConnector, TOKEN_CALLS, "sumup "),
        ):
            for call in calls:
                around = self._around(f"{prefix}{call}", getattr(adapter, call))
                patch.setattr(adapter, call, around)
        patch.setattr(StripeProvider, "pages", self._around_pages(StripeProvider.pages))
        patch.setattr(db.session, "commit", self._around_commit(db.session.commit), raising=False)
        patch.setattr(transport.Smtp, "send", self._around_send(transport.Smtp.send))

    def _around(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(adapter: Any, first: Any, *args: Any, **kwargs: Any) -> Any:
            provider_id = first if isinstance(first, str) else ""
            self.point(f"{name}:before")
            # Whoever asks for a token holds a lock of this process, which only another process can pass by.
            asks = isinstance(adapter, SumUpConnector)
            if not asks:
                self.between(f"{name}:before", provider_id)
            answer = original(adapter, first, *args, **kwargs)
            if not asks:
                self.between(f"{name}:after", provider_id or getattr(answer, "provider_id", ""))
            self.point(f"{name}:after")
            return answer

        return call

    def _around_pages(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def pages(adapter: Any, *args: Any) -> Iterator[Any]:
            self.point("pages:before")
            for page in original(adapter, *args):
                self.point("pages:after")
                yield page
                self.point("pages:before")

        return pages

    def _around_commit(self, original: Callable[[], None]) -> Callable[[], None]:
        def commit() -> None:
            who = committer(sys._getframe(1))
            if who is None:
                original()
                return
            self.point(f"{who}:before commit")
            original()
            if who == "post.outbox._sent":
                self._in_flight = ""
            self.point(f"{who}:after commit")

        return commit

    def _around_send(self, original: Callable[..., None]) -> Callable[..., None]:
        def send(way: transport.Smtp, letter: transport.Letter) -> None:
            self.point("letter:before")
            self._left_on_cut()
            self._in_flight = letter.message_id
            try:
                original(way, letter)
            except transport.MailError:
                self._unclear()
                raise
            self.point("letter:after")

        return send


def committer(frame: FrameType | None) -> str | None:
    """The domain's function whose transaction is committed, as `module.function`; None outside the domain."""
    while frame is not None and frame.f_globals.get("__name__") in _IN_BETWEEN:
        frame = frame.f_back
    name = "" if frame is None else str(frame.f_globals.get("__name__"))
    if frame is None or not name.startswith("domain."):
        return None
    return f"{name.removeprefix('domain.')}.{frame.f_code.co_name}"
