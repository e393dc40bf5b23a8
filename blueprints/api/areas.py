"""Every area of the API, put together: their endpoints, their document and its page."""

from __future__ import annotations

from flask import Blueprint, Flask, Response

from blueprints.api import (
    admin_payments,
    athletes,
    auth,
    check_in,
    cors,
    docs_page,
    document,
    endpoint,
    errors,
    keys,
    limits,
    participants,
    payments,
    statistics,
    tournaments,
    wallet,
)
from blueprints.api.endpoint import Area
from blueprints.visitor import API, is_for_api
from extensions import csrf

bp = Blueprint("api", __name__, url_prefix=API)
# In the order of the docs page.
AREAS: tuple[Area, ...] = (
    auth.area,
    tournaments.area,
    athletes.area,
    participants.area,
    payments.area,
    wallet.area,
    check_in.area,
    admin_payments.area,
    statistics.area,
    keys.area,
)

for _area in AREAS:
    for _endpoint in _area.endpoints:
        endpoint.add(bp, _endpoint, document.describe(_endpoint))
docs_page.add(bp, AREAS)


def register(app: Flask) -> None:
    """Add the API to the application."""
    # It reads no cookie, so no browser can be made to send anything in somebody's name.
    csrf.exempt(bp)
    app.before_request(_preflight)
    app.register_blueprint(bp)
    app.register_error_handler(errors.ApiProblem, errors.of_problem)
    app.after_request(_finish)


def _preflight() -> Response | None:
    return cors.preflight() if is_for_api() else None


def _finish(response: Response) -> Response:
    if is_for_api():
        response.headers.setdefault("Cache-Control", "no-store")
        limits.tell(response)
        cors.allow(response)
    return response
