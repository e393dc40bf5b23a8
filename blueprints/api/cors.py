"""Scripts of other sites: those that the operator has listed may call the API from a browser.

They bring a token of their own, never a cookie of ours, so nothing is allowed with credentials. A browser
asks first, without a token, and that question is counted by no limit.
"""

from __future__ import annotations

from flask import Response, request

import config
from blueprints.visitor import is_for_api

_METHODS = "GET, POST, PUT, PATCH, DELETE"
_SENT = "Authorization, Content-Type, Idempotency-Key, X-Request-ID"
_READ = "RateLimit, RateLimit-Policy, Retry-After, WWW-Authenticate, X-Request-ID, Idempotency-Replayed"
_ASKED_AGAIN_SECONDS = 600


def preflight() -> Response | None:
    """The answer to a browser's question before a request; None where this is no such question."""
    if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers:
        return None
    response = Response(status=204)
    if _is_listed():
        response.headers["Access-Control-Allow-Methods"] = _METHODS
        response.headers["Access-Control-Allow-Headers"] = _SENT
        response.headers["Access-Control-Max-Age"] = str(_ASKED_AGAIN_SECONDS)
    return response


def allow(response: Response) -> Response:
    """Let a listed site's script read the answer; caches keep one for each site."""
    if not is_for_api():
        return response
    response.vary.add("Origin")
    if _is_listed():
        response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
        response.headers["Access-Control-Expose-Headers"] = _READ
    return response


def _is_listed() -> bool:
    # Letter by letter: browsers write an origin in one way, and the setting is read into the same.
    return request.headers.get("Origin") in config.get().api_return_origins
