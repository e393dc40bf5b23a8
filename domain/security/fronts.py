"""Where requests come from, as far as one address is most of them: an unknown proxy of ours, or a school.

Limits for each network assume that visitors have networks of their own. Where all of them seem to come from
one, such a limit would shut everybody out for what one did, so there it only slows down.

Each process counts by itself and adds what it has seen to Redis now and then, an hour's counts in one place.
Only addresses that are a good part of what came are kept, so that it stays small.
"""

from __future__ import annotations

import secrets
from collections import Counter
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from threading import Lock
from time import monotonic
from typing import Any, ClassVar

import structlog
from redis.exceptions import RedisError

import config
from domain import clock
from extensions import queue

# From so many requests on it is said what most of them are.
LEAST = 300
MOST = 0.5
_BATCH = 200
_EVERY_SECONDS = 30.0
_KEPT_SHARE = 0.05
# A shared address has limits as for so many.
_PARTS = 20
_KEY = "kassa:visits:"
_ALL = "all"
_HOUR = 3600


@dataclass(frozen=True)
class Front:
    """An address that most requests come from, how large its part is, and whether only proxies have such."""

    network: str
    share: float
    is_proxy: bool


class _Seen:
    """What this process has seen and not added yet, and what it last read."""

    lock = Lock()
    counts: ClassVar[Counter[str]] = Counter()
    since = monotonic()
    front: Front | None = None
    read_at = 0.0


def note(network: str) -> None:
    """Count one visit."""
    with _Seen.lock:
        _Seen.counts[network] += 1
        total = _Seen.counts.total()
        due = total >= _BATCH or monotonic() - _Seen.since > _EVERY_SECONDS
        if not due:
            return
        counts, _Seen.counts, _Seen.since = _Seen.counts, Counter(), monotonic()
    _add(counts, total)


def is_shared(network: str) -> bool:
    """Whether this network seems to be most of the shop, or can only be a proxy's. Asks Redis at times."""
    if is_proxys(network):
        return True
    if monotonic() - _Seen.read_at > _EVERY_SECONDS:
        _Seen.front, _Seen.read_at = most(), monotonic()
    return _Seen.front is not None and _Seen.front.network == network


def counted(network: str) -> str:
    """What limits for each network count it by: where it is shared, by one of many parts of it, at random.

    So such a limit is that many times as wide there, and who is refused finds room a moment later.
    """
    return f"{network}#{secrets.randbelow(_PARTS)}" if is_shared(network) else network


def most() -> Front | None:
    """The address that most requests of this hour and the last came from, or None; also without Redis."""
    hours = (_hour(), _hour() - 1)
    try:
        read: list[dict[bytes, bytes]] = [_hash(hour) for hour in hours]
    except RedisError as error:
        structlog.get_logger(__name__).warning("visits_unread", error=type(error).__name__)
        return None
    counts: Counter[str] = Counter()
    for found in read:
        counts.update({name.decode(): int(number) for name, number in found.items()})
    total = counts.pop(_ALL, 0)
    if total < LEAST or not counts:
        return None
    network, number = counts.most_common(1)[0]
    share = number / total
    return Front(network, share, is_proxys(network)) if share >= MOST else None


def is_proxys(network: str) -> bool:
    """Whether an address is of no network of the internet, so that a proxy of ours must have sent it.

    On one's own machine, or in one's own house, visitors have such addresses themselves.
    """
    if config.get().development:
        return False
    try:
        found = ip_network(network)
    except ValueError:
        return network == "unknown"
    return not ip_address(found.network_address).is_global


def _add(counts: Counter[str], total: int) -> None:
    key = f"{_KEY}{_hour()}"
    try:
        with queue.redis.pipeline(transaction=False) as pipeline:
            pipeline.hincrby(key, _ALL, total)
            for network, number in counts.most_common(int(1 / _KEPT_SHARE)):
                if number >= total * _KEPT_SHARE:
                    pipeline.hincrby(key, network, number)
            pipeline.expire(key, 3 * _HOUR)
            pipeline.execute()
    except RedisError as error:
        structlog.get_logger(__name__).warning("visits_uncounted", error=type(error).__name__)


def _hash(hour: int) -> Any:
    return queue.redis.hgetall(f"{_KEY}{hour}")


def _hour() -> int:
    return int(clock.now().timestamp()) // _HOUR
