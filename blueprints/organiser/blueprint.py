"""What the organisers' pages share: who is there, and whose event it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import (
    Blueprint,
    abort,
    current_app,
    flash,
    g,
    redirect,
    render_template,
    request,
    url_for,
)
from werkzeug.wrappers import Response

from blueprints.access import ask_to_log_in
from blueprints.visitor import signed_in
from domain.errors import DomainError
from domain.people import organisers
from models import Role, User

bp = Blueprint("organiser", __name__, url_prefix="/organiser")
# Whoever is logged in may ask to become an organiser.
_FOR_MEMBERS = ("organiser.application", "organiser.apply")
Page = str | Response | tuple[str, int]


@bp.url_value_preprocessor
def _take_slug(endpoint: str | None, values: dict[str, Any] | None) -> None:
    g.event_slug = (values or {}).pop("slug", None)


@bp.url_defaults
def _give_slug(endpoint: str, values: dict[str, Any]) -> None:
    slug = g.event.slug if "event" in g else None
    if slug is not None and current_app.url_map.is_endpoint_expecting(endpoint, "slug"):
        values.setdefault("slug", slug)


@bp.before_request
def _guard() -> Page | None:
    """Strangers may log in, members read how to become an organiser, others' events are not there."""
    user = signed_in()
    if user is None:
        return ask_to_log_in()
    if request.endpoint in _FOR_MEMBERS:
        return None
    if user.role not in (Role.ORGANISER, Role.ADMIN):
        return render_template("organiser/not_yet.html", profile=organisers.of(user)), 403
    if g.event_slug is not None:
        g.event = organisers.event_for(user, g.event_slug)
    return None


@bp.after_request
def _not_kept(response: Any) -> Any:
    """Names and takings stay in no cache and behind no Back button."""
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def me() -> User:
    """The member whose pages these are."""
    member = signed_in()
    if member is None:
        abort(403)
    return member


def act(do: Callable[[], str], back: str) -> Response:
    """Do something, say how it went, and go to the page `back`."""
    try:
        flash(do(), "success")
    except DomainError as error:
        flash(error.message, "danger")
    return redirect(back, 303)


def event_page() -> str:
    """The address of the event's first page."""
    return url_for("organiser.event", slug=g.event.slug)
