"""From the back office to an event's door, whose own page keeps the links for its staff."""

from __future__ import annotations

from flask import redirect, url_for
from werkzeug.wrappers import Response

from blueprints.office.blueprint import bp


@bp.get("/events/<slug>/door")
def door(slug: str) -> Response:
    return redirect(url_for("door.passes", slug=slug))
