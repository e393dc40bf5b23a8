"""Whether each provider answers, as our own calls to it told within the last minute. Nothing here calls one.

Every call leaves its word as it ends: in Redis, where all processes read it, and in this process. Redis is
given 50 milliseconds; where it has no answer it is left alone for some seconds, and a process goes by the
calls that it made itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic

import structlog
from redis import Redis
from redis.exceptions import RedisError

from domain import clock
from domain.providers.contract import ProviderError
from domain.providers.shared_rate import quick_redis

# What is older says nothing about now.
SECONDS = 60
_AWAY_SECONDS = 5.0
# Nobody was asked; or somebody was, and told of the right to speak for one account only.
_SAYS_NOTHING = frozenset(
    ("no_room", "throttled", "not_configured", "not_connected", "unauthorised", "too_many")
)


@dataclass(frozen=True)
class Word:
    """What the last call told: when it ended, and whether its answer could be used."""

    at: datetime
    answered: bool

    @property
    def is_fresh(self) -> bool:
        return abs(clock.now() - self.at) <= timedelta(seconds=SECONDS)


class _Shared:
    """The words that all processes leave, in one Redis."""

    def __init__(self, url: str) -> None:
        self._redis: Redis = quick_redis(url)
        self._away_until = 0.0

    def leave(self, name: str, word: Word) -> None:
        if monotonic() < self._away_until:
            return
        try:
            self._redis.set(_key(name), f"{word.at.timestamp():.3f} {int(word.answered)}", ex=SECONDS)
        except RedisError as error:
            self._is_away(error)

    def read(self, names: list[str]) -> dict[str, Word] | None:
        """The words of the last minute; None where Redis has no answer."""
        if monotonic() < self._away_until:
            return None
        try:
            found = self._redis.mget([_key(name) for name in names])
        except RedisError as error:
            self._is_away(error)
            return None
        return {name: _word(kept) for name, kept in zip(names, found, strict=True) if kept}

    def _is_away(self, error: RedisError) -> None:
        self._away_until = monotonic() + _AWAY_SECONDS
        structlog.get_logger(__name__).warning("knowledge_not_shared", error=type(error).__name__)


def _key(name: str) -> str:
    return f"kassa:answers:{name}"


def _word(kept: bytes | str) -> Word:
    at, answered = (kept.decode() if isinstance(kept, bytes) else kept).split(" ")
    return Word(datetime.fromtimestamp(float(at), UTC), answered == "1")


_shared: _Shared | None = None
_own: dict[str, Word] = {}


def bind(redis_url: str) -> None:
    """Share what is known through this Redis from now on; a connection is made when first needed."""
    global _shared
    _shared = _Shared(redis_url)


@contextmanager
def kept(name: str) -> Iterator[None]:
    """Around a call to provider `name`: what it told is kept. An answer that says no is one."""
    try:
        yield
    except ProviderError as error:
        if error.code not in _SAYS_NOTHING:
            # A right that is missing for one kind of question is an answer, too.
            _leave(name, answered=error.permanent or error.code == "forbidden")
        raise
    _leave(name, answered=True)


def _leave(name: str, *, answered: bool) -> None:
    word = _own[name] = Word(clock.now(), answered)
    if _shared is not None:
        _shared.leave(name, word)


def last(names: Iterable[str]) -> dict[str, Word]:
    """What is known of these providers; nothing of one that was not asked within the last minute."""
    wanted = list(names)
    found = _shared.read(wanted) if _shared is not None and wanted else None
    if found is None:
        found = {name: _own[name] for name in wanted if name in _own}
    return {name: word for name, word in found.items() if word.is_fresh}


def may_answer(name: str) -> bool:
    """Whether it is worth asking a provider only to look: nobody has had no answer within the last minute."""
    word = last([name]).get(name)
    return word is None or word.answered
