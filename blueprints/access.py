"""Who may see a page: the cookie's user, the roles a page is for, and the way back after logging in."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial, wraps
from typing import ParamSpec, TypeVar
from urllib.parse import urlsplit

from flask import (
    Flask,
    abort,
    after_this_request,
    current_app,
    flash,
    g,
    jsonify,
    make_response,
    redirect,
    request,
    session,
    url_for,
)
from flask import Response as BaseResponse
from flask_login import decode_cookie, login_user, logout_user
from werkzeug.wrappers import Response

import config
import extensions
from blueprints.visitor import is_for_api, signed_in, wants_json
from domain import clock
from domain.people import factors
from domain.security import devices, logins, second_factors
from models import Login, Role, User

P = ParamSpec("P")
R = TypeVar("R")
# Where Flask-Login keeps whose session it is; and when it was last noted that its browser was here.
_NAMED = "_user_id"
_SEEN = "seen"
_SEEN_SECONDS = 3600
# Who has shown a password here, and is not let in by it alone.
_WAITING = "on_the_way_in"
_WAITING_SECONDS = 900
# Who is logged in here has shown a password that is too weak for what they may do.
_WEAK = "weak_password"


def register(app: Flask) -> None:
    """Tell Flask-Login how to find users, and what a page answers to who is not logged in."""
    extensions.login.user_loader(_load)
    extensions.login.unauthorized_handler(ask_to_log_in)
    app.before_request(_note_seen)


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


# --- Logging in -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Waiting:
    """Somebody whose password was right, and who still has to show something else."""

    user_id: int
    epoch: int
    remember: bool
    onward: str
    # What they read once they are in.
    words: str = ""
    # What only this browser knows: a mailed code is good in the browser that it was asked in.
    asked_in: str = ""
    # The password was right, and is too weak for what they may do.
    weak: bool = False


def log_in(
    user: User, *, remember: bool = False, onward: str = "", words: str = "", weak: bool = False
) -> Response:
    """Let in whoever has shown a password or a mailed link, and lead them to `onward`.

    Whoever has a second factor shows it first. Who should have one is asked to set it up, but not on the way
    to a door. `weak`: their password is too weak for what they may do.
    """
    onward = safe_next(onward, url_for("account.index"))
    if second_factors.counts_for(user):
        wait_for(user, remember=remember, onward=onward, words=words, weak=weak)
        return redirect(url_for("login_steps.second_factor"), 303)
    begin_session(user, remember=remember, weak=weak)
    if words:
        flash(words, "success")
    factors.begin_grace(user)
    if factors.wanted_of(user) and not onward.startswith("/door/"):
        return redirect(url_for("factors.index", next=onward), 303)
    return redirect(onward, 303)


def wait_for(
    user: User,
    *,
    remember: bool = False,
    onward: str = "",
    words: str = "",
    asked_in: str = "",
    weak: bool = False,
) -> None:
    """Remember in this browser's session, which knows nobody yet, who is on their way in."""
    session.clear()
    session[_WAITING] = {
        "user_id": user.id,
        "epoch": user.login_epoch,
        "remember": remember,
        "onward": onward,
        "words": words,
        "asked_in": asked_in,
        "weak": weak,
        "at": int(clock.now().timestamp()),
    }


def asked_in() -> str:
    """What only this browser knows, while somebody is on their way in: the same for each code that it asks
    for."""
    who = waiting()
    return (who.asked_in if who is not None else "") or secrets.token_urlsafe(16)


def waiting() -> Waiting | None:
    """Who is on their way in with this browser, for a quarter of an hour."""
    said = dict(session.get(_WAITING) or {})
    if not said or clock.now().timestamp() - said.pop("at") > _WAITING_SECONDS:
        return None
    return Waiting(**said)


def proved_at() -> datetime | None:
    """When the second factor was last shown in this login."""
    login = this_login() if signed_in() is not None else None
    return login.proved_at if login is not None else None


def browser() -> logins.Browser:
    """The browser that asks: what its owner calls it, where it is, and its cookie of a device."""
    return logins.Browser(
        label=devices.name(request.user_agent.string),
        network=extensions.network(request.remote_addr or ""),
        device=request.cookies.get(device_cookie(), ""),
    )


def where() -> dict[str, str]:
    """Where a guess comes from, as whoever judges one is told it."""
    return {"client_address": request.remote_addr or "", "device": browser().device}


def device_cookie() -> str:
    """The cookie by which a browser is known that somebody has logged in with before."""
    return "__Host-device" if config.get().https else "device"


def begin_session(
    user: User, *, remember: bool = False, proved_at: datetime | None = None, weak: bool = False
) -> None:
    """Log the user in with a session that holds nothing from before, whoever may have prepared it.

    Whose password is too `weak` is not remembered: it is in the session that the pages for staff read it.
    """
    here = browser()
    if not devices.is_key(here.device):
        here = replace(here, device=devices.dated(devices.LIVES))
    end_session()
    login_user(user, remember=remember and not weak, duration=logins.LIVES)
    # Flask-Login takes it from here for the cookie by which a browser is remembered, too.
    session[_NAMED] = logins.begin(user, here, proved_at=proved_at)
    session[_SEEN] = int(clock.now().timestamp())
    if weak:
        session[_WEAK] = True
    after_this_request(partial(_set_device, key=here.device))


def renew_session(*, proved_at: datetime | None) -> None:
    """Whoever is here has proven themselves again: their cookies get another name, and copies end.

    `proved_at` is when the second factor was shown last.
    """
    user, login = signed_in(), this_login()
    if user is None or login is None:
        return
    lives = login.expires_at - clock.now()
    session[_NAMED] = logins.renew(login, user, proved_at=proved_at)
    if current_app.config["REMEMBER_COOKIE_NAME"] in request.cookies:
        # Flask-Login writes that cookie anew, with what the session says now.
        session["_remember"], session["_remember_seconds"] = "set", lives.total_seconds()


def _set_device(response: BaseResponse, key: str) -> BaseResponse:
    response.set_cookie(
        device_cookie(),
        key,
        max_age=int(devices.LIVES.total_seconds()),
        httponly=True,
        secure=config.get().https,
        samesite="Lax",
    )
    return response


def end_session() -> None:
    """Log out, here and wherever a copy of this browser's cookies is, and forget what its session held."""
    remembered = request.cookies.get(current_app.config["REMEMBER_COOKIE_NAME"])
    named = {session.get(_NAMED), decode_cookie(extensions.as_remembered(remembered)) if remembered else None}
    for said in named - {None}:
        logins.end(str(said))
    session.clear()
    logout_user()


def has_weak_password() -> bool:
    """Whether whoever is logged in here has shown a password that is too weak for what they may do."""
    return bool(session.get(_WEAK))


def this_login() -> Login | None:
    """The login that this request came with, once it was asked who is there."""
    found: Login | None = g.get("login")
    return found


def _load(said: str) -> User | None:
    """The user whose login the cookie names; which login it is stays at hand for this request."""
    found = logins.look(said)
    if found is None:
        return None
    g.login = found[0]
    return found[1]


def _note_seen() -> None:
    """Once an hour, at the very beginning of a request: that this browser was here."""
    if not request.cookies or is_for_api() or (request.endpoint or "static").endswith("static"):
        return
    remembered = current_app.config["REMEMBER_COOKIE_NAME"] in request.cookies
    now = int(clock.now().timestamp())
    if not (remembered or _NAMED in session) or now - session.get(_SEEN, 0) < _SEEN_SECONDS:
        return
    if signed_in() is not None and (login := this_login()) is not None:
        logins.note_seen(login, browser())
        session[_SEEN] = now
