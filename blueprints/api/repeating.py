"""Idempotency-Key: a request that is sent again under its name is answered again, and not done again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flask import Response, request
from werkzeug.wrappers import Response as BaseResponse

from blueprints.api import errors, wire
from blueprints.api.errors import ApiProblem, Problem
from domain import repeated_requests
from domain.errors import DomainError
from domain.repeated_requests import Claim, InProgress, Reused

HEADER = "Idempotency-Key"
# So that a program sees that nothing was done this time.
REPLAYED = "Idempotency-Replayed"
Secrets = Mapping[str, Callable[[dict[str, Any]], Any]]


def once(
    name: str, secrets: Secrets, problems: tuple[Problem, ...], work: Callable[[], BaseResponse]
) -> BaseResponse:
    """The answer of `work`, done once for this caller, address and key; else what it answered then.

    What `secrets` names is taken out of what is kept, and found again. ApiProblem 409 where the first request
    is still at work, and where the key was another request's.
    """
    try:
        claimed = repeated_requests.claim(
            name, request.method, request.path, request.headers[HEADER], request.get_data()
        )
    except InProgress as error:
        raise ApiProblem(409, error.code, error.message, retry_after=1) from error
    except Reused as error:
        raise ApiProblem(409, error.code, error.message) from error
    if not isinstance(claimed, Claim):
        return _again(claimed.status, wire.read(claimed.text.encode()), secrets)
    try:
        response = _done(work)
        kept = _lasting(response, problems)
    except BaseException:
        repeated_requests.give_back(claimed)
        raise
    if kept is None:
        repeated_requests.give_back(claimed)
    else:
        shown = {field: value for field, value in kept.items() if field not in secrets}
        repeated_requests.finish(claimed, response.status_code, wire.write(shown))
    return response


def _done(work: Callable[[], BaseResponse]) -> BaseResponse:
    """The answer, also where it is a refusal: that is an answer to keep."""
    try:
        return work()
    except ApiProblem as error:
        return errors.of_problem(error)
    except DomainError as error:
        return errors.of_rule(error)


def _lasting(response: BaseResponse, problems: tuple[Problem, ...]) -> dict[str, Any] | None:
    """What of an answer is kept; None where it may be another in a moment."""
    if not repeated_requests.is_kept(response.status_code):
        return None
    text = response.get_data()
    body: dict[str, Any] = wire.read(text) if text else {}
    passing = {problem.code for problem in problems if not problem.lasting}
    if response.status_code >= 400 and body.get("code") in passing:
        return None
    return body


def _again(status: int, body: dict[str, Any], secrets: Secrets) -> Response:
    if status < 400:
        body |= {field: find(dict(body)) for field, find in secrets.items()}
    response = Response(wire.write(body) if body else b"", status, content_type=wire.JSON)
    response.headers[REPLAYED] = "true"
    return response
