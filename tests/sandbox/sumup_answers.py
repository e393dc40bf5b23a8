"""Answers of the sandbox's SumUp against the table of fields: which shape each of them must have."""

from __future__ import annotations

import json
import re

import httpx

from sandbox.sumup import shapes
from sandbox.sumup.shapes import Shape

JSON, PROBLEM_JSON = "application/json", "application/problem+json"
_ONE = "[^/]+"
_CHECKOUTS, _CHECKOUT = "/v0.1/checkouts", f"/v0.1/checkouts/{_ONE}"
_REFUNDS = f"/v1.0/merchants/{_ONE}/payments/{_ONE}/refunds"
_TRANSACTION = f"/v2.1/merchants/{_ONE}/transactions"
_HISTORY, _MERCHANT, _MEMBERSHIPS = f"{_TRANSACTION}/history", f"/v1/merchants/{_ONE}", "/v0.1/memberships"
_TOKENS: Shape = {
    "access_token": shapes.Field(required=True),
    "token_type": shapes.Field(required=True, words=("Bearer",)),
    "expires_in": shapes.Field("integer", required=True),
    "scope": shapes.Field(required=True),
    "refresh_token": shapes.Field(),
}
_OAUTH_ERROR: Shape = {
    "error": shapes.Field(
        required=True,
        words=("invalid_request", "invalid_client", "invalid_grant", "unsupported_grant_type"),
    ),
    "error_description": shapes.Field(required=True),
}
# Method, path, status -> the shapes of which the body has one, and its type. An empty body for none.
_ANSWERS: dict[tuple[str, str, int], tuple[tuple[Shape, ...], str]] = {
    ("POST", _CHECKOUTS, 201): ((shapes.CHECKOUT,), JSON),
    ("POST", _CHECKOUTS, 400): ((shapes.ERROR_EXTENDED,), JSON),
    ("POST", _CHECKOUTS, 403): ((shapes.ERROR_FORBIDDEN,), JSON),
    ("POST", _CHECKOUTS, 409): ((shapes.ERROR,), JSON),
    ("GET", _CHECKOUTS, 200): ((shapes.CHECKOUT_SUCCESS,), JSON),
    ("GET", _CHECKOUTS, 400): ((shapes.ERROR_EXTENDED,), JSON),
    ("GET", _CHECKOUT, 200): ((shapes.CHECKOUT_SUCCESS,), JSON),
    ("GET", _CHECKOUT, 404): ((shapes.ERROR,), JSON),
    ("PATCH", _CHECKOUT, 200): ((shapes.CHECKOUT,), JSON),
    ("PATCH", _CHECKOUT, 400): ((shapes.ERROR_EXTENDED,), JSON),
    ("PATCH", _CHECKOUT, 404): ((shapes.ERROR,), JSON),
    ("PATCH", _CHECKOUT, 409): ((shapes.ERROR,), JSON),
    ("DELETE", _CHECKOUT, 200): ((shapes.CHECKOUT,), JSON),
    ("DELETE", _CHECKOUT, 404): ((shapes.ERROR,), JSON),
    ("DELETE", _CHECKOUT, 409): ((shapes.ERROR,), JSON),
    ("POST", _REFUNDS, 201): (({},), JSON),
    ("POST", _REFUNDS, 204): ((), JSON),
    ("POST", _REFUNDS, 400): ((shapes.PROBLEM,), PROBLEM_JSON),
    ("POST", _REFUNDS, 403): ((shapes.PROBLEM,), PROBLEM_JSON),
    ("GET", _TRANSACTION, 200): ((shapes.TRANSACTION_FULL,), JSON),
    ("GET", _TRANSACTION, 400): ((shapes.ERROR, shapes.ERROR_EXTENDED), JSON),
    ("GET", _TRANSACTION, 404): ((shapes.ERROR,), JSON),
    ("GET", _HISTORY, 200): ((shapes.TRANSACTION_HISTORY,), JSON),
    ("GET", _HISTORY, 400): ((shapes.ERROR,), JSON),
    ("GET", _MERCHANT, 200): ((shapes.MERCHANT,), JSON),
    ("GET", _MEMBERSHIPS, 200): ((shapes.MEMBERSHIPS,), JSON),
    ("POST", "/token", 200): ((_TOKENS,), JSON),
    ("POST", "/token", 400): ((_OAUTH_ERROR,), JSON),
    ("POST", "/token", 401): ((_OAUTH_ERROR,), JSON),
}


def faults_of(answer: httpx.Response) -> list[str]:
    """Everything in an answer that the table does not say; empty where it fits."""
    answer.read()
    path = answer.request.url.path.removeprefix("/sumup")
    if path == "/v0.1/me" and answer.status_code == 200:
        # It is in no published table any more.
        return []
    content_type = answer.headers["Content-Type"].partition(";")[0]
    accepted, expected_type = _expected(answer.request.method, path, answer.status_code, content_type)
    if content_type != expected_type:
        return [f"{content_type} instead of {expected_type}"]
    if not accepted:
        return [f"a body: {answer.text}"] if answer.content else []
    body = json.loads(answer.text)
    bodies = body if isinstance(body, list) else [body]
    tried = [[flaw.message for one in bodies for flaw in shapes.flaws(one, shape)] for shape in accepted]
    return min(tried, key=len)


def _expected(method: str, path: str, status: int, content_type: str) -> tuple[tuple[Shape, ...], str]:
    for (its_method, its_path, its_status), expected in _ANSWERS.items():
        if (its_method, its_status) == (method, status) and re.fullmatch(its_path, path):
            return expected
    # A wrong bearer or scope, what is in no table, limits, crashes; and the refund's two forms of refusal.
    if method == "POST" and re.fullmatch(_REFUNDS, path) and content_type == JSON:
        return (shapes.ERROR,), JSON
    return (shapes.PROBLEM,), content_type
