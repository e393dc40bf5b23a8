"""Becoming a member, logging in and out, passwords, and a member's own orders."""

from __future__ import annotations

from collections.abc import Mapping

from flask import Blueprint, flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from blueprints import access
from blueprints.visitor import signed_in
from domain import addresses
from domain.errors import DomainError, NotFound
from domain.office import erasures
from domain.people import accounts, desks
from domain.people.accounts import CodeNeeded
from domain.security import one_time_links
from extensions import limiter
from models import LinkPurpose, OneTimeLink, User

bp = Blueprint("account", __name__, url_prefix="/account")

# By network address generously: a whole school may have forgotten its passwords behind one.
_RESETS_BY_ADDRESS = "300 per hour"
# Which field a refusal of the domain is shown beside; everything else is shown above the form.
_FIELDS = {
    "name_missing": "name",
    "name_too_long": "name",
    "name_strange": "name",
    "email_invalid": "email",
    "password_short": "password",
    "password_long": "password",
    "password_common": "password",
    "password_is_address": "password",
    "wrong_password": "old_password",
}


@bp.after_request
def _not_kept(response: Response) -> Response:
    """Nothing here may stay in a cache or behind the Back button: it belongs to one person."""
    response.headers.setdefault("Cache-Control", "no-store")
    return response


@bp.get("/")
@access.members_only
def index() -> str:
    before = request.args.get("before", type=int)
    user = _me()
    return render_template(
        "people/index.html",
        user=user,
        page=accounts.orders_of(user, before),
        desk=desks.of(user),
        leaving=erasures.waiting(user.email),
    )


# --- Becoming a member ----------------------------------------------------------------------------------


@bp.get("/register")
def register_form() -> str | Response:
    return redirect(url_for(".index")) if signed_in() else _page("register", {})


@bp.post("/register")
def register_account() -> tuple[str, int] | Response:
    email = request.form.get("email", "").strip()
    try:
        accounts.register(email, _typed("password"), _typed("name"), client_address=request.remote_addr or "")
    except DomainError as error:
        return _refused("register", error)
    flash(f"We have sent a mail to {addresses.shown(email)}. Open its link to finish.", "success")
    return redirect(url_for(".mailed"), 303)


@bp.get("/mailed")
def mailed() -> str:
    """What to do next, the same whether or not the address was known."""
    return render_template("people/mailed.html")


@bp.get("/confirm/<token>")
def confirm_form(token: str) -> str | tuple[str, int]:
    try:
        link = one_time_links.look(token, one_time_links.TO_CONFIRM)
    except DomainError as error:
        return _link_gone(error, url_for(".login"))
    return _page("confirm", {"email": link.user.email})


@bp.post("/confirm/<token>")
def confirm(token: str) -> tuple[str, int] | Response:
    try:
        email = one_time_links.look(token, one_time_links.TO_CONFIRM).user.email
    except DomainError as error:
        return _link_gone(error, url_for(".login"))
    try:
        user = accounts.confirm(token, _typed("password"), client_address=_from())
    except DomainError as error:
        if error.code in ("wrong_password", "too_many_attempts"):
            return _refused("confirm", error, {"email": email})
        return _link_gone(error, url_for(".login"))
    return access.log_in(user, words="Your e-mail address is confirmed, and you are logged in.")


# --- Logging in and out ---------------------------------------------------------------------------------


@bp.get("/login")
def login() -> str | Response:
    onward = access.safe_next(request.args.get("next"), "")
    if signed_in():
        return redirect(onward or url_for(".index"))
    return _page("login", {"next": onward})


@bp.post("/login")
def log_in() -> tuple[str, int] | Response:
    remember = bool(request.form.get("remember"))
    onward = request.form.get("next") or request.args.get("next") or ""
    email, password, asked_in = _typed("email"), _typed("password"), access.asked_in()
    try:
        user = accounts.authenticate(email, password, asked_in=asked_in, **access.where())
    except CodeNeeded as needed:
        weak = accounts.is_too_weak(needed.user, password)
        access.wait_for(needed.user, remember=remember, onward=onward, asked_in=asked_in, weak=weak)
        if not needed.mailed:
            flash(needed.message, "warning")
        return redirect(url_for("login_steps.code_form"), 303)
    except DomainError as error:
        return _refused("login", error)
    return access.log_in(user, remember=remember, onward=onward, weak=accounts.is_too_weak(user, password))


@bp.post("/logout")
def logout() -> Response:
    access.end_session()
    flash("You are logged out.", "success")
    return redirect("/", 303)


# --- Passwords ------------------------------------------------------------------------------------------


@bp.get("/password")
@access.members_only
def password_form() -> str:
    return _page("password", {"email": _me().email, "least": accounts.least_of(_me())})


@bp.post("/password")
@access.members_only
def change_password() -> tuple[str, int] | Response:
    user = _me()
    try:
        accounts.change_password(user, _typed("old_password"), _typed("password"), **access.where())
    except DomainError as error:
        return _refused("password", error, {"least": accounts.least_of(_me())})
    access.begin_session(user, proved_at=access.proved_at())
    flash("Your password is changed. Everywhere else you are logged out.", "success")
    return redirect(url_for(".index"), 303)


@bp.get("/forgot")
def forgot() -> str:
    return _page("forgot", {})


@bp.post("/forgot")
@limiter.limit(_RESETS_BY_ADDRESS)
def mail_reset() -> tuple[str, int] | Response:
    email = request.form.get("email", "").strip()
    try:
        accounts.request_reset(email)
    except DomainError as error:
        return _refused("forgot", error)
    shown = addresses.shown(email)
    flash(f"If {shown} has an account here, a link to choose a new password is on its way.", "success")
    return redirect(url_for(".mailed"), 303)


@bp.get("/reset/<token>")
def reset_form(token: str) -> str | tuple[str, int]:
    try:
        link = one_time_links.look(token, one_time_links.TO_CHOOSE_A_PASSWORD)
    except DomainError as error:
        return _link_gone(error, url_for(".forgot"))
    return _page("reset", _known_of(link))


@bp.post("/reset/<token>")
def reset(token: str) -> tuple[str, int] | Response:
    known: dict[str, object] = {}
    try:
        link = one_time_links.look(token, one_time_links.TO_CHOOSE_A_PASSWORD)
        onward = "/admin/setup" if _is_first_admin(link.purpose) else url_for(".index")
        known = _known_of(link)
        user = accounts.reset(token, _typed("password"), **access.where())
    except DomainError as error:
        if error.code not in _FIELDS:
            return _link_gone(error, url_for(".forgot"))
        return _refused("reset", error, known)
    return access.log_in(user, onward=onward, words="Your new password is set, and you are logged in.")


# --- Shared ---------------------------------------------------------------------------------------------


def _me() -> User:
    user = signed_in()
    if user is None:
        raise NotFound("no_user", "Log in first.")
    return user


def _typed(field: str) -> str:
    return request.form.get(field, "")


def _from() -> str:
    """Where the request comes from, as guesses are counted."""
    return request.remote_addr or ""


def _known_of(link: OneTimeLink) -> dict[str, object]:
    """What the form for a new password says of whose it is, also when it is shown again."""
    known: dict[str, object] = {"email": link.user.email, "least": accounts.least_of(link.user)}
    return known | {"first_admin": _is_first_admin(link.purpose)}


def _is_first_admin(purpose: LinkPurpose) -> bool:
    return purpose is LinkPurpose.FIRST_ADMIN


def _page(name: str, typed: Mapping[str, object], problems: Mapping[str, str] | None = None) -> str:
    return render_template(f"people/{name}.html", typed=typed, problems=problems or {})


def _refused(name: str, error: DomainError, known: Mapping[str, object] | None = None) -> tuple[str, int]:
    """The form again, with what was typed but for passwords, what is known, and the reason at its place."""
    typed = {field: value for field, value in request.form.items() if "password" not in field}
    status = 429 if error.code.startswith("too_many") else 400
    return _page(name, {**typed, **(known or {})}, {_FIELDS.get(error.code, "form"): error.message}), status


def _link_gone(error: DomainError, another: str) -> tuple[str, int]:
    """Why a link does not work, and where to get another."""
    status = 404 if isinstance(error, NotFound) else 410
    return render_template("people/link_gone.html", words=error.message, another=another), status
