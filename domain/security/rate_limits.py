"""Counts of wrong attempts, in Redis; in this process's memory while Redis is away.

Only failures are counted, so that 400 people logging in behind one address are no attack, and a person who
knows the password is never kept waiting by their own typing for long. An attempt is counted before it is
judged, or many at one moment would all find room, and given back where it was right.
"""

from __future__ import annotations

import structlog
from limits import RateLimitItem, RateLimitItemPerDay, RateLimitItemPerMinute
from limits.errors import StorageError
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import FixedWindowRateLimiter, RateLimiter
from redis.exceptions import RedisError

import config
from extensions import queue

# Wrong passwords: at one account from one place, from one network, and at one account from everywhere. What
# each of them does is decided in guesses.py.
LOGIN_ACCOUNT = RateLimitItemPerMinute(10, 15, namespace="kassa_login_account")
LOGIN_NETWORK = RateLimitItemPerMinute(500, 15, namespace="kassa_login_network")
LOGIN_EVERYWHERE = RateLimitItemPerMinute(100, 60, namespace="kassa_login_everywhere")
# Wrong codes of a second factor, or from a mail: at one account from one place, and from everywhere.
CODE_ACCOUNT = RateLimitItemPerMinute(10, 15, namespace="kassa_code_account")
CODE_EVERYWHERE = RateLimitItemPerDay(50, 1, namespace="kassa_code_everywhere")
# Codes that are mailed: for one account, asked for from one network.
CODES_MAILED = RateLimitItemPerMinute(5, 60, namespace="kassa_codes_mailed")
# New accounts from one network: a room of people registering fits in, a script does not.
REGISTER_NETWORK = RateLimitItemPerMinute(500, 60, namespace="kassa_register_network")

_memory = FixedWindowRateLimiter(MemoryStorage())


def spent(limit: RateLimitItem, who: str) -> bool:
    """Whether `who` has used up `limit`. Never, where limits are off."""
    return config.get().limits and not _ask("test", limit, who)


def count(limit: RateLimitItem, who: str) -> bool:
    """Count one attempt; False when it is one too many."""
    return not config.get().limits or _ask("hit", limit, who)


def give_back(limit: RateLimitItem, who: str) -> None:
    """Take one attempt off the count again: it was no failure."""
    if config.get().limits:
        _ask("give_back", limit, who)


def forget(limit: RateLimitItem, who: str) -> None:
    """Begin again for `who`: they have shown that they are the right person."""
    if config.get().limits:
        _ask("clear", limit, who)


def _ask(what: str, limit: RateLimitItem, who: str) -> bool:
    try:
        shared = RedisStorage("redis://", connection_pool=queue.redis.connection_pool)
        return _do(FixedWindowRateLimiter(shared), what, limit, who)
    except (RedisError, StorageError) as error:
        structlog.get_logger(__name__).warning("attempts_in_memory", error=type(error).__name__)
        return _do(_memory, what, limit, who)


def _do(limiter: RateLimiter, what: str, limit: RateLimitItem, who: str) -> bool:
    if what == "clear":
        limiter.clear(limit, who)
        return True
    if what == "test":
        return limiter.test(limit, who)
    return limiter.hit(limit, who, cost=1 if what == "hit" else -1)
