"""The lines of calls to the providers' accounts, kept in Redis: all processes share an account's rate.

Redis is asked for a place, and given 50 milliseconds. Where it has no answer, it is left alone for some
seconds, and each process keeps to a quarter of the rate by itself (see `throttle.Throttle`).
"""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic

import structlog
from redis import Redis
from redis.backoff import NoBackoff
from redis.commands.core import Script
from redis.exceptions import RedisError
from redis.retry import Retry

import config
from domain.providers import throttle

_SECONDS = 0.05
# A connection under TLS takes several round trips, once.
_TLS_SECONDS = 0.25
_AWAY_SECONDS = 5.0
# By Redis' own clock, as those of the machines differ. Times are microseconds: whole numbers that a Lua
# number holds exactly, and that must be written without an exponent. A line ends with its last place.
_TAKE = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local place = now
for _, key in ipairs(KEYS) do
  place = math.max(place, tonumber(redis.call('GET', key) or '0'))
end
if place - now > tonumber(ARGV[1]) then return -1 end
for number, key in ipairs(KEYS) do
  local next = place + tonumber(ARGV[number + 1])
  redis.call('SET', key, string.format('%.0f', next), 'PX', math.ceil((next - now) / 1000) + 1)
end
return place - now
"""


def quick_redis(url: str) -> Redis:
    """A Redis with 50 milliseconds for an answer, asked once: whoever asks knows what to do without."""
    tls = config.get().redis_tls(url)
    return Redis.from_url(
        url,
        socket_timeout=_SECONDS,
        socket_connect_timeout=_TLS_SECONDS if tls else _SECONDS,
        retry=Retry(NoBackoff(), 0),
        **tls,
    )


class _Lines:
    """Places in lines that live in one Redis."""

    def __init__(self, url: str) -> None:
        connection = quick_redis(url)
        self._take: Script = connection.register_script(_TAKE)
        self._away_until = 0.0

    def place(self, lines: Mapping[str, float], longest: float) -> float | None:
        """See `throttle.Shared`."""
        if monotonic() < self._away_until:
            raise throttle.NotShared
        keys = [f"kassa:line:{name}" for name in lines]
        spacings = [round(spacing * 1_000_000) for spacing in lines.values()]
        try:
            waiting = int(self._take(keys=keys, args=[round(longest * 1_000_000), *spacings]))
        except RedisError as error:
            self._away_until = monotonic() + _AWAY_SECONDS
            structlog.get_logger(__name__).warning("rate_not_shared", error=type(error).__name__)
            raise throttle.NotShared from error
        return None if waiting < 0 else waiting / 1_000_000


def bind(redis_url: str) -> None:
    """Share the providers' rates through this Redis from now on; a connection is made when first needed."""
    throttle.share_by(_Lines(redis_url).place)
