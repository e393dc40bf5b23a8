"""Asking for the second factor: on the way in, before a page for staff, and before a deed that opens doors.

A form that was being sent when it is asked goes along as hidden fields, and is sent on by the browser itself
(307) once the factor was shown: nothing has to be typed again, also without script.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

from flask import Flask, flash, jsonify, make_response, redirect, render_template, request, session, url_for
from werkzeug.wrappers import Response

import config
from blueprints import access
from blueprints.visitor import signed_in, wants_json
from domain import clock, money
from domain.errors import DomainError
from domain.people import accounts, factors
from domain.security import passkeys, second_factors
from models import User

P = ParamSpec("P")
R = TypeVar("R")
# In the session: what the browser was asked to sign with a passkey.
QUESTION = "passkey_question"
# What the page of the question adds to the form that goes along.
_CODE, _PASSKEY, _ONWARD = "second_factor_code", "second_factor_passkey", "second_factor_onward"
_METHOD, _PASSWORD, _WHO = "second_factor_method", "second_factor_password", "second_factor_who"
_OURS = frozenset({_CODE, _PASSKEY, _PASSWORD, _WHO, _ONWARD, _METHOD, "csrf_token"})
# In the session: when the password was shown again.
_SHOWN = "password_shown"


# Below these addresses somebody changes what others see, or gives money back.
_FOR_STAFF = ("/admin", "/organiser", "/desk")


def register(app: Flask) -> None:
    """Ask before the pages for staff."""
    app.before_request(_guard)


def _guard() -> Response | None:
    if not request.path.startswith(_FOR_STAFF) or (request.endpoint or "static").endswith("static"):
        return None
    return for_page()


# --- When it is asked -----------------------------------------------------------------------------------


def for_page() -> Response | None:
    """For pages of staff: asked once in twelve hours, and to be set up when the grace is over.

    None where they may go on. At the doors of events this is never asked.
    """
    user = signed_in()
    if user is None:
        return None
    return _asked_of(user, second_factors.GOOD_FOR)


def for_deed() -> Response | None:
    """For what changes roles, keys or factors, or whose account takes money: asked unless it was shown just
    now. None: they may go on."""
    user = signed_in()
    return _asked_of(user, second_factors.JUST_NOW) if user is not None else None


def _asked_of(user: User, age: timedelta) -> Response | None:
    """None where this member has shown it lately, or has time to set one up."""
    if access.has_weak_password():
        return _refuse(
            "password_weak",
            "Choose a longer password first: yours is too weak for an admin.",
            "account.password_form",
        )
    if second_factors.counts_for(user):
        return None if second_factors.is_good(access.proved_at(), age) else _ask()
    if not factors.overdue(user):
        return None
    words = "Set up a second factor first: your 14 days are over. It takes two minutes."
    return _refuse("second_factor_unset", words, "factors.index", next=_here())


def _refuse(code: str, words: str, endpoint: str, next: str | None = None) -> Response:
    """To the page where it can be mended; a program is told."""
    if wants_json():
        return make_response(jsonify(error=code, message=words), 403)
    flash(words, "warning")
    return redirect(url_for(endpoint, next=next), 303)


def for_money(amount_minor: int, currency: str) -> Response | None:
    """For money that leaves, as `for_deed` where it is more than the setting."""
    return for_deed() if is_much(amount_minor, currency) else None


def for_typed_money(typed: str, currency: str, *, before_minor: int = 0) -> Response | None:
    """As `for_money`, together with what went the same way before; what is no amount is refused by whoever
    reads it."""
    try:
        return for_money(before_minor + abs(money.parse(typed, currency)), currency)
    except DomainError:
        return None


def is_much(amount_minor: int, currency: str) -> bool:
    """Whether it is more than SECOND_FACTOR_ABOVE, in units of whichever currency it is in."""
    return money.to_major(amount_minor, currency) > config.get().second_factor_above


def deed(view: Callable[P, R]) -> Callable[P, R | Response]:
    """A view whose every POST is such a deed."""

    @wraps(view)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R | Response:
        return for_deed() or view(*args, **kwargs)

    return guarded


def for_own() -> Response | None:
    """For what a browser that was left open must not do by itself: the second factor, else the password.

    Whoever has just logged in has shown it.
    """
    user, login = signed_in(), access.this_login()
    if user is None or second_factors.counts_for(user):
        return for_deed()
    shown = float(session.get(_SHOWN, 0))
    begun = login.created_at.timestamp() if login is not None else 0.0
    just_now = clock.now().timestamp() - max(shown, begun) <= second_factors.JUST_NOW.total_seconds()
    return None if just_now else _ask()


def own(view: Callable[P, R]) -> Callable[P, R | Response]:
    """A view whose every POST is such a deed."""

    @wraps(view)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R | Response:
        return for_own() or view(*args, **kwargs)

    return guarded


def _ask() -> Response:
    if wants_json():
        words = "Show your second factor first: open the page again."
        return make_response(jsonify(error="second_factor_needed", message=words), 401)
    if request.method in ("GET", "HEAD"):
        return redirect(url_for("factors.prove", next=_here()), 303)
    if request.files and any(sent.filename for sent in request.files.values()):
        flash("Show your second factor, then choose the file again.", "warning")
        return redirect(url_for("factors.prove", next=request.path), 303)
    return make_response(page(cast(User, signed_in())))


def _here() -> str | None:
    return request.full_path.rstrip("?") if request.method in ("GET", "HEAD") else None


# --- The page that asks ---------------------------------------------------------------------------------


def page(user: User, problem: str = "") -> str:
    """The question, with the form that was being sent."""
    sent = request.form.get(_METHOD) == "POST" or (
        request.method == "POST" and request.endpoint != "factors.prove"
    )
    carried = [*_carried(), (_ONWARD, _onward())] + ([(_METHOD, "POST")] if sent else [])
    return _page(user, problem, action=url_for("factors.prove"), carried=carried)


def page_on_the_way_in(user: User, problem: str = "") -> str:
    """The question at a login."""
    return _page(user, problem, action=url_for("login_steps.second_factor"), carried=[])


def _page(user: User, problem: str, **more: Any) -> str:
    question = passkeys.ask(user)
    session[QUESTION] = question.kept if question is not None else None
    options = question.options if question is not None else ""
    has_factor = second_factors.counts_for(user)
    return render_template(
        "people/prove.html", options=options, problem=problem, user=user, has_factor=has_factor, **more
    )


def _carried() -> list[tuple[str, str]]:
    return [(name, value) for name, value in request.form.items(multi=True) if name not in _OURS]


def _onward() -> str:
    """Where the form goes, or the page is, that waits for this."""
    if request.endpoint != "factors.prove":
        return request.full_path.rstrip("?")
    return onward()


def onward() -> str:
    """Where to go on."""
    asked = request.form.get(_ONWARD) or request.args.get("next")
    return access.safe_next(asked, url_for("account.index"))


def is_answer() -> bool:
    """Whether the form answers the question, and is not one that was only carried there."""
    return any(name in request.form for name in (_CODE, _PASSKEY, _PASSWORD))


def take(user: User) -> None:
    """Judge the code or the passkey that was sent, or the password of who has none. Commits. DomainError."""
    if not second_factors.counts_for(user):
        accounts.prove(user, request.form.get(_PASSWORD, ""), **access.where())
        session[_SHOWN] = int(clock.now().timestamp())
        return
    answer = request.form.get(_PASSKEY, "")
    if answer:
        passkeys.prove(user, session.pop(QUESTION, None), answer)
        return
    code = request.form.get(_CODE, "")
    factors.prove(user, code, client_address=request.remote_addr or "", device=access.browser().device)


def go_on() -> Response:
    """To the page that waited; a form is sent on by the browser, as it was."""
    return redirect(onward(), 307 if request.form.get(_METHOD) == "POST" else 303)
