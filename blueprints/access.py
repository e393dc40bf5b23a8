"""Who may see a page: the cookie's user, the roles a page is for, and the way back after logging in."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar
from urllib.parse import urlsplit

from flask import Flask, abort, current_app, jsonify, make_response, redirect, request, session, url_for
from flask_login import decode_cookie, login_user, logout_user
from werkzeug.wrappers import Response

import extensions
from blueprints.visitor import signed_in, wants_json
from domain.security import logins
from models import Role, User

P = ParamSpec("P")
R = TypeVar("R")
# Where Flask-Login keeps whose session it is.
_NAMED = "_user_id"


def register(app: Flask) -> None:
    """Tell Flask-Login how to find users, and what a page answers to who is not logged in."""
    extensions.login.user_loader(logins.whose)
    extensions.login.unauthorized_handler(ask_to_log_in)


def members_only(view: Callable[P, R]) -> Callable[P, R | Response]:
    """Let only people in who are logged in; the others are asked to, and come back afterwards."""

    @wraps(view)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R | Response:
        return view(*args, **kwargs) if signed_in() is not None else ask_to_log_in()

    return guarded


def role_required(*roles: Role) -> Callable[[Callable[P, R]], Callable[P, R | Response]]:
    """Let only people with one of `roles` in, and admins always. Others get a 403, strangers may log in."""
    allowed = {Role.ADMIN, *roles}

    def guard(view: Callable[P, R]) -> Callable[P, R | Response]:
        @wraps(view)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R | Response:
            user = signed_in()
            if user is None:
                return ask_to_log_in()
            if user.role not in allowed:
                abort(403)
            return view(*args, **kwargs)

        return guarded

    return guard


def ask_to_log_in() -> Response:
    """The login page, which leads back here; 401 where a program asks."""
    if wants_json():
        return make_response(jsonify(error="login_required", message="Log in first."), 401)
    # What was being sent is gone after the login, so a form leads back to its page at most.
    here = request.full_path.rstrip("?") if request.method in ("GET", "HEAD") else None
    return redirect(url_for("account.login", next=here), 303)


def safe_next(target: str | None, otherwise: str) -> str:
    """`target` if it is a path of this site, else `otherwise`.

    Browsers read a backslash as a slash and drop tabs and newlines, so `/\\host` and `/<tab>/host` would
    lead away.
    """
    if not target or not target.startswith("/") or target.startswith("//"):
        return otherwise
    if "\\" in target or any(ord(letter) < 0x21 or ord(letter) == 0x7F for letter in target):
        return otherwise
    parts = urlsplit(target)
    return target if not parts.scheme and not parts.netloc else otherwise


def begin_session(user: User, *, remember: bool = False) -> None:
    """Log the user in with a session that holds nothing from before, whoever may have prepared it."""
    end_session()
    login_user(user, remember=remember, duration=logins.LIVES)
    # Flask-Login takes it from here for the cookie by which a browser is remembered, too.
    session[_NAMED] = logins.begin(user)


def end_session() -> None:
    """Log out, here and wherever a copy of this browser's cookies is, and forget what its session held."""
    remembered = request.cookies.get(current_app.config["REMEMBER_COOKIE_NAME"])
    named = {session.get(_NAMED), decode_cookie(extensions.as_remembered(remembered)) if remembered else None}
    for said in named - {None}:
        logins.end(str(said))
    session.clear()
    logout_user()
