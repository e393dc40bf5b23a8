"""What is asked of who has shown a password, before they are let in: a mailed code, the second factor."""

from __future__ import annotations

from flask import Blueprint, flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from blueprints import access, proofs, visitor
from domain import clock
from domain.errors import DomainError
from domain.people import accounts
from domain.security import mailed_codes

bp = Blueprint("login_steps", __name__, url_prefix="/account/login")
bp.after_request(visitor.not_kept)


@bp.get("/code")
def code_form() -> str | Response:
    return _code_page() if access.waiting() is not None else _begin_again()


@bp.post("/code")
def code() -> tuple[str, int] | Response:
    who = access.waiting()
    if who is None:
        return _begin_again()
    try:
        user = accounts.by_mailed_code(
            who.user_id,
            who.epoch,
            request.form.get("code", ""),
            client_address=request.remote_addr or "",
            asked_in=who.asked_in,
        )
    except DomainError as error:
        if error.code == "login_over":
            return _begin_again()
        return _code_page(error.message), 429 if error.code.startswith("too_many") else 400
    return access.log_in(user, remember=who.remember, onward=who.onward, words=who.words, weak=who.weak)


@bp.route("/second-factor", methods=["GET", "POST"])
def second_factor() -> str | tuple[str, int] | Response:
    who = access.waiting()
    user = accounts.on_the_way_in(who.user_id, who.epoch) if who is not None else None
    if who is None or user is None:
        return _begin_again()
    if request.method == "GET":
        return proofs.page_on_the_way_in(user)
    try:
        proofs.take(user)
    except DomainError as error:
        status = 429 if error.code.startswith("too_many") else 400
        return proofs.page_on_the_way_in(user, error.message), status
    access.begin_session(user, remember=who.remember, proved_at=clock.now(), weak=who.weak)
    if who.words:
        flash(who.words, "success")
    return redirect(who.onward, 303)


def _code_page(problem: str = "") -> str:
    return render_template("people/login_code.html", problem=problem, digits=mailed_codes.DIGITS)


def _begin_again() -> Response:
    """Nobody has shown a password here, or too long ago."""
    return redirect(url_for("account.login"), 303)
