"""How SumUp's errors travel: problem+json from the newer parts, three legacy forms from the older ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sandbox.sumup.shapes import Flaw

JSON, PROBLEM_JSON = "application/json", "application/problem+json"
_TITLES = {
    400: ("bad-request", "Bad Request"),
    401: ("unauthorized", "Unauthorized"),
    403: ("forbidden", "Forbidden"),
    404: ("not-found", "Requested resource couldn't be found."),
    409: ("conflict", "Conflict"),
    422: ("unprocessable-entity", "Unprocessable Entity"),
    429: ("too-many-requests", "Too Many Requests"),
    500: ("internal-server-error", "Internal Server Error"),
}


class ApiError(Exception):
    """An error as SumUp answers it."""

    def __init__(self, status: int, body: Any, content_type: str = JSON) -> None:
        super().__init__(str(body))
        self.status = status
        self.body = body
        self.content_type = content_type


def problem(status: int, detail: str, content_type: str = PROBLEM_JSON) -> ApiError:
    """RFC 9457's problem details."""
    name, title = _TITLES[status]
    body = {
        "type": f"https://developer.sumup.com/problem/{name}",
        "title": title,
        "status": status,
        "detail": detail,
    }
    return ApiError(status, body, content_type)


def legacy(status: int, code: str, message: str) -> ApiError:
    """The old form with a code and a message."""
    return ApiError(status, {"error_code": code, "message": message})


def invalid(found: Sequence[Flaw]) -> ApiError:
    """What is wrong with a request: one object, or a list of them."""
    errors = [{"error_code": f.code, "message": f.message, "param": f.param} for f in found]
    return ApiError(400, errors[0] if len(errors) == 1 else errors)


def forbidden(message: str) -> ApiError:
    """The oldest form, whose status is a text."""
    return ApiError(403, {"error_message": message, "error_code": "FORBIDDEN", "status_code": "403"})
