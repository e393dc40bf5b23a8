"""What the API answers where something is wrong: `detail` for a person, a status, `code` for a program.

Everything below /api/v1 is answered so, by its path alone: also what no endpoint was found for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flask import Response, g
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from blueprints.api import wire
from domain import epochs
from domain.errors import DomainError, NotFound

# What programs read where HTTP itself was used wrongly, or we are at fault.
_CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "too_slow",
    411: "length_required",
    413: "too_large",
    414: "too_large",
    415: "not_json",
    421: "wrong_host",
    429: "too_many_requests",
    500: "server_error",
    503: "busy",
}
_WORDS = {
    400: "That request could not be read.",
    404: "There is nothing at this address of the API.",
    405: "This address of the API is not used with that method.",
    413: "That is more than the API takes: at most 256 KB, and JSON at most 32 deep.",
    429: "That was too often. Wait as long as Retry-After says, then go on.",
    500: "Something went wrong here. It is written down; nothing was charged twice.",
}


# What the domain and the gate say to people at a form, as a program is told it.
_TOLD = {
    "unreadable": "Some of what was sent is not text that can be kept: send UTF-8, without NUL.",
}


@dataclass(frozen=True)
class Problem:
    """An answer that an endpoint may give where something is wrong, as its document says it.

    It also tells the status for a DomainError of that code. One that is not `lasting` may be gone in a
    moment: an Idempotency-Key does not keep it.
    """

    status: int
    code: str
    detail: str
    lasting: bool = True


class ApiProblem(Exception):
    """Something is wrong, with a status and perhaps more for a program to read beside the code."""

    def __init__(
        self, status: int, code: str, detail: str, *, headers: dict[str, str] | None = None, **more: Any
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        retry_after = more.pop("retry_after", None)
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["Retry-After"] = str(retry_after)
        self.more = more


def answer(status: int, detail: str, code: str = "", **more: Any) -> Response:
    """The one shape of everything that is wrong. It says so in JSON whatever was asked for."""
    body = {"detail": detail, "status_code": status, "code": code or _CODES.get(status, "error"), **more}
    response = Response(wire.write(body), status, content_type=wire.JSON)
    if status == 401:
        response.headers.setdefault("WWW-Authenticate", 'Bearer realm="api"')
    return response


def of_problem(error: ApiProblem) -> Response:
    """What an endpoint refused with in so many words."""
    response = answer(error.status, error.detail, error.code, **error.more)
    response.headers.extend(error.headers)
    return response


def of_rule(error: DomainError) -> Response:
    """What a rule of the domain refused: the endpoint says which status its code has."""
    return answer(status_of(error), _TOLD.get(error.code, error.message), error.code)


def status_of(error: DomainError) -> int:
    declared = {problem.code: problem.status for problem in g.get("api_problems", ())}
    if error.code in declared:
        return int(declared[error.code])
    if isinstance(error, NotFound):
        return 404
    if isinstance(error, epochs.Closed):
        return 503
    return 429 if error.code.startswith("too_many") else 400


def of_http(error: HTTPException) -> Response:
    """What Flask and its extensions refused, and faults of our own."""
    status = error.code or 500
    words = _WORDS.get(status) or error.description or "Something went wrong here."
    response = answer(status, words)
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
    return response
