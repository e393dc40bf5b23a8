"""Events whose listing fee went back: off sale until an admin decides."""

from __future__ import annotations

from flask import Blueprint, flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from blueprints import visitor
from blueprints.access import role_required
from domain.errors import DomainError
from domain.orders import publishing
from models import Role

bp = Blueprint("admin_listing", __name__, url_prefix="/admin/listings")


@bp.get("")
@role_required(Role.ADMIN)
def waiting() -> str:
    return render_template(
        "office/listings.html", waiting=publishing.waiting(), decisions=publishing.DECISIONS
    )


@bp.post("/<int:event_id>")
@role_required(Role.ADMIN)
def decide(event_id: int) -> BaseResponse:
    how, reason = request.form.get("how", ""), request.form.get("reason", "")
    try:
        event = publishing.decide_review(event_id, how, reason=reason, actor_id=visitor.member().id)
    except DomainError as error:
        flash(error.message, "warning")
    else:
        flash(f"“{event.title}” is {event.state} now.", "success")
    return redirect(url_for("admin_listing.waiting"), 303)
