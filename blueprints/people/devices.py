"""Where a member is logged in: browsers and programs, each of which can be ended."""

from __future__ import annotations

from flask import Blueprint, flash, redirect, render_template, url_for
from werkzeug.wrappers import Response

from blueprints import access, proofs, visitor
from blueprints.access import members_only
from domain.security import api_tokens, devices, logins

bp = Blueprint("devices", __name__, url_prefix="/account/devices")


@bp.before_request
@members_only
def _members_only() -> None:
    """Each sees their own."""


bp.after_request(visitor.not_kept)


@bp.get("/")
def index() -> str:
    user = visitor.member()
    found = logins.of(user)
    here = {login.device_id for login in found}
    return render_template(
        "people/devices.html",
        logins=found,
        this=access.this_login(),
        others=[device for device in devices.of(user) if device.id not in here],
        programs=api_tokens.of(user),
    )


@bp.post("/<int:login_id>/end")
@proofs.own
def end(login_id: int) -> Response:
    ended = logins.end_one(visitor.member(), login_id, but=access.this_login())
    flash(f"{ended.label or 'That device'} is logged out.", "success")
    return redirect(url_for(".index"), 303)


@bp.post("/others/end")
@proofs.own
def end_others() -> Response:
    user = visitor.member()
    logins.end_others(user, access.this_login())
    api_tokens.end_all(user)
    flash("Every other device, and every program, is logged out.", "success")
    return redirect(url_for(".index"), 303)


@bp.post("/known/<int:device_id>/forget")
@proofs.own
def forget(device_id: int) -> Response:
    logins.forget_device(visitor.member(), device_id)
    flash("That device is unknown from now on.", "success")
    return redirect(url_for(".index"), 303)


@bp.post("/programs/<program_id>/end")
@proofs.own
def end_program(program_id: str) -> Response:
    ended = api_tokens.end_one(visitor.member(), program_id)
    flash(f"{ended.label or 'The program'} is logged out.", "success")
    return redirect(url_for(".index"), 303)
