"""Faults on order: seeded, so that a run that went wrong goes wrong again.

One rule is in force at a time (POST /control/faults). Each request to a provider's API, each webhook and
each mail draws from its generator; where the draw falls under the rate, a kind is chosen among those of the
rule that can happen there.
"""

from __future__ import annotations

import random
import re
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

HTTP = ("timeout_before", "timeout_after", "http_500", "http_429", "http_403", "slow", "garbage", "mixed_up")
WEBHOOK = ("webhook_lost", "webhook_twice", "webhook_late")
SMTP = ("smtp_refuse", "smtp_drop_after_data")
KINDS = HTTP + WEBHOOK + SMTP
HANG_SECONDS = 12.0
LATE_SECONDS = 30.0


class BadRule(Exception):
    """A rule that cannot be followed; its text says what is wrong with it."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong. `seconds` is how long it hangs, is slow, or is late.

    `after` makes a 500 or garbage come after the work was done, and `stored` makes the idempotency key keep
    a 500 although no work was done. By default an error comes from in front of the API: nothing was done,
    nothing is kept.
    """

    kind: str
    seconds: float
    after: bool = False
    stored: bool = False


@dataclass
class Rule:
    """What goes wrong, how often, where. `times` is what is left; None for no end."""

    kinds: tuple[str, ...]
    seed: int = 0
    rate: float = 1.0
    method: str = ""
    path: re.Pattern[str] = field(default_factory=lambda: re.compile(""))
    times: int | None = None
    seconds: float | None = None
    after: bool = False
    stored: bool = False


class Faults:
    """The rule in force and its generator."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._rule: Rule | None = None
        self._spec: dict[str, Any] = {}
        self._random = random.Random(0)
        self._injected: Counter[str] = Counter()

    def set(self, spec: dict[str, Any]) -> None:
        """Put a rule in force; `{}` for none. Raises BadRule."""
        rule = _rule(spec) if spec else None
        with self._lock:
            self._rule, self._spec = rule, spec
            self._random = random.Random(rule.seed if rule else 0)
            self._injected.clear()

    def show(self) -> dict[str, Any]:
        """The rule as it was given, what is left of its times, and how often each kind has happened."""
        with self._lock:
            left = {"times_left": self._rule.times} if self._rule else {}
            return {**self._spec, **left, "injected": dict(self._injected)}

    def draw(self, among: tuple[str, ...], method: str = "", path: str = "") -> Fault | None:
        """What goes wrong now, if anything."""
        with self._lock:
            rule = self._rule
            if rule is None or rule.times == 0:
                return None
            kinds = [kind for kind in rule.kinds if kind in among]
            if not kinds or rule.method not in ("", method) or not rule.path.search(path):
                return None
            if self._random.random() >= rule.rate:
                return None
            kind = self._random.choice(kinds)
            slow = self._random.uniform(1, 2)
            if rule.times is not None:
                rule.times -= 1
            self._injected[kind] += 1
        usual = {"slow": slow, "webhook_late": LATE_SECONDS}.get(kind, HANG_SECONDS)
        return Fault(kind, usual if rule.seconds is None else rule.seconds, rule.after, rule.stored)

    def wait(self, seconds: float) -> None:
        """Let time pass, unless the sandbox is stopping."""
        self._stop.wait(seconds)

    def stop(self) -> None:
        """Wake whoever waits, for good."""
        self._stop.set()


def _rule(spec: dict[str, Any]) -> Rule:
    unknown = spec.keys() - {"seed", "rate", "kinds", "match", "times", "seconds", "after", "stored"}
    if unknown:
        raise BadRule(f"Unknown: {', '.join(sorted(unknown))}.")
    kinds = spec.get("kinds")
    if not isinstance(kinds, list) or not kinds or not all(kind in KINDS for kind in kinds):
        raise BadRule(f"kinds must be a list of some of {', '.join(KINDS)}.")
    match = spec.get("match") or {}
    if not isinstance(match, dict) or match.keys() - {"method", "path"}:
        raise BadRule("match may have method and path.")
    try:
        path = re.compile(str(match.get("path", "")))
    except re.error as error:
        raise BadRule(f"match.path must be a regular expression: {error}.") from error
    rate = _number(spec, "rate", 1.0)
    if not 0 <= rate <= 1:
        raise BadRule("rate must be between 0 and 1.")
    times = spec.get("times")
    return Rule(
        kinds=tuple(kinds),
        seed=int(_number(spec, "seed", 0)),
        rate=rate,
        method=str(match.get("method", "")).upper(),
        path=path,
        times=None if times is None else int(_number(spec, "times", 0)),
        seconds=None if spec.get("seconds") is None else _number(spec, "seconds", 0),
        after=bool(spec.get("after")),
        stored=bool(spec.get("stored")),
    )


def _number(spec: dict[str, Any], name: str, default: float) -> float:
    value = spec.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise BadRule(f"{name} must be a number, zero or more.")
    return value
