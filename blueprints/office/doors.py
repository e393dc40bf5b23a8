"""Who may stand at an event's door."""

from __future__ import annotations

from flask import flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from blueprints.office.blueprint import act, bp
from blueprints.visitor import signed_in
from domain.door import staff as doors
from domain.errors import DomainError
from domain.office import overview


@bp.get("/events/<slug>/door")
def door(slug: str) -> str:
    event = overview.event(slug)
    return render_template("office/door.html", event=event, passes=doors.passes(event), made=None, pin="")


@bp.post("/events/<slug>/door")
def make_pass(slug: str) -> str | Response:
    """Make a link and PIN for the staff of one door. The PIN is shown on this answer and never again."""
    event = overview.event(slug)
    try:
        made, pin = doors.make_pass(event, request.form.get("label", ""), signed_in())
    except DomainError as error:
        flash(error.message, "danger")
        return redirect(url_for("admin.door", slug=slug), 303)
    found = doors.passes(event)
    return render_template(
        "office/door.html", event=event, passes=found, made=made, pin=pin, link=doors.url(made)
    )


@bp.post("/events/<slug>/door/<int:pass_id>/revoke")
def revoke_pass(slug: str, pass_id: int) -> Response:
    def do() -> tuple[str, str]:
        doors.revoke(overview.event(slug), pass_id)
        return "success", "The link no longer opens the door."

    return act(do, url_for("admin.door", slug=slug))
