"""How often: limits for each network, each token and each key, and the headers that tell of them.

They are Flask-Limiter's, so that all processes share them through Redis, and each has its own while Redis
is away. The headers are those of the IETF's draft on RateLimit fields
(draft-ietf-httpapi-ratelimit-headers): the policies that were asked, and what is left of the last of them,
which is the caller's own.
"""

from __future__ import annotations

from collections.abc import Callable
from time import time

from flask import Response, g
from flask_limiter import RequestLimit
from limits.errors import StorageError
from redis.exceptions import RedisError

from extensions import limiter, network_key


def policy(name: str, rate: str | Callable[[], str], key: Callable[[], str]) -> Callable[[], None]:
    """A limit that is counted where this is called; the counts of one name are one, whatever the endpoint."""

    def counted() -> None:
        """Flask-Limiter counts before it calls this."""

    # It knows what it counts by the function's name.
    counted.__qualname__ = f"policy_{name}"
    hit = limiter.shared_limit(rate, scope=f"api-{name}", key_func=key)(counted)

    def count() -> None:
        try:
            hit()
        finally:
            # It tells of the last check alone, and there are several.
            if limiter.current_limits:
                _seen()[name] = limiter.current_limits[0]

    return count


def by_network() -> str:
    """Where the request comes from."""
    return network_key()


def by_caller() -> str:
    """The token's login or the key, before the database was asked; where nobody has to say, the network."""
    return str(g.get("api_counted") or by_network())


# A club's members come from one network; a server asks for many of them with one key.
count_network = policy("network", "2400 per minute", by_network)
count_caller = policy("caller", "900 per minute", by_caller)
# Where nobody has to say who they are.
count_open = policy("open", "900 per minute", by_network)
# A password costs a twentieth of a second to compare; a school of 400 has one address.
LOGINS = "600 per minute"
count_login = policy("login", lambda: LOGINS, by_network)


def tell(response: Response) -> Response:
    """Put the headers on an answer."""
    seen = _seen()
    if not seen:
        return response
    policies = (
        f'"{name}";q={found.limit.amount};w={found.limit.get_expiry()}' for name, found in seen.items()
    )
    response.headers["RateLimit-Policy"] = ", ".join(policies)
    name, found = next(reversed(seen.items()))
    try:
        window = found.window
    except (RedisError, StorageError):
        # Redis went away since the count: the answer goes out all the same.
        return response
    seconds = max(1, round(window.reset_time - time()))
    response.headers["RateLimit"] = f'"{name}";r={window.remaining};t={seconds}'
    if found.breached:
        response.headers["Retry-After"] = str(seconds)
    return response


def _seen() -> dict[str, RequestLimit]:
    if "api_limits" not in g:
        g.api_limits = {}
    found: dict[str, RequestLimit] = g.api_limits
    return found
