"""A member's second factor: set up, shown again, changed, and asked for on the way in."""

from __future__ import annotations

import segno
from flask import Blueprint, flash, redirect, render_template, request, session, url_for
from werkzeug.wrappers import Response

from blueprints import access, proofs, visitor
from blueprints.access import members_only
from domain import clock
from domain.errors import DomainError, NotFound
from domain.people import accounts, factors
from domain.security import keyring, passkeys, second_factors
from models import User

bp = Blueprint("factors", __name__, url_prefix="/account/second-factor")
Page = str | Response | tuple[str, int]
# In the session: that the password was typed here a while ago, the new sheet (sealed) and when it was
# printed, and where to go on.
_BEGUN, _SHEET, _PRINTED = "factor_begun", "factor_sheet", "factor_printed"
_ONWARD = "factor_onward"
_BEGUN_SECONDS = 1800


@bp.before_request
@members_only
def _members_only() -> None:
    """Each changes their own."""
    if request.endpoint != "factors.prove" and not factors.may_have(visitor.member()):
        raise NotFound("no_factor", "A second factor is for who runs events here.")


bp.after_request(visitor.not_kept)


@bp.get("/")
def index() -> Page:
    onward = access.safe_next(request.args.get("next"), "")
    if onward:
        session[_ONWARD] = onward
    return _index()


@bp.post("/begin")
def begin() -> Page:
    """The first app needs the password again, another one the factor that there is."""
    user = visitor.member()
    if second_factors.counts_for(user):
        asked = proofs.for_deed()
        if asked is not None:
            return asked
    else:
        try:
            here = access.browser().device
            typed = request.form.get("password", "")
            accounts.prove(user, typed, client_address=request.remote_addr or "", device=here)
        except DomainError as error:
            return _index(error.message), 429 if error.code.startswith("too_many") else 400
    second_factors.begin_app(user)
    session[_BEGUN] = int(clock.now().timestamp())
    return redirect(url_for(".app"), 303)


@bp.get("/app")
def app() -> Page:
    return _app_page()


@bp.post("/app")
def try_app() -> Page:
    if not _begun():
        return redirect(url_for(".index"), 303)
    try:
        second_factors.try_new_app(visitor.member(), request.form.get("code", ""))
    except DomainError as error:
        return _refused(_app_page(error.message))
    return _print(visitor.member())


@bp.post("/codes/new")
def new_codes() -> Page:
    if not second_factors.counts_for(visitor.member()):
        return redirect(url_for(".index"), 303)
    return proofs.for_deed() or _print(visitor.member())


@bp.get("/codes")
def codes() -> Page:
    return _codes_page()


@bp.post("/codes")
def finish() -> Page:
    user = visitor.member()
    if not _sheet():
        flash("That took too long, and the sheet is void: print a new one.", "warning")
        return redirect(url_for(".index"), 303)
    try:
        factors.finish(user, request.form.get("code", ""))
    except DomainError as error:
        return _refused(_codes_page(error.message))
    access.renew_session(proved_at=clock.now())
    for name in (_BEGUN, _SHEET, _PRINTED):
        session.pop(name, None)
    flash("Done. Keep the sheet where you keep your papers, not beside the phone.", "success")
    return redirect(access.safe_next(session.pop(_ONWARD, ""), url_for(".index")), 303)


# --- Passkeys -------------------------------------------------------------------------------------------


@bp.get("/passkeys/new")
def new_passkey() -> Page:
    asked = proofs.for_deed()
    return asked if asked is not None else _passkey_page()


@bp.post("/passkeys/new")
def add_passkey() -> Page:
    asked = proofs.for_deed()
    if asked is not None:
        return asked
    try:
        kept, answer = session.pop(proofs.QUESTION, None), request.form.get("passkey", "")
        made = factors.add_passkey(visitor.member(), kept, answer, request.form.get("name", ""))
    except DomainError as error:
        return _passkey_page(error.message), 400
    flash(f"“{made.name}” is added.", "success")
    return redirect(url_for(".index"), 303)


@bp.post("/passkeys/<int:passkey_id>/remove")
def remove_passkey(passkey_id: int) -> Page:
    asked = proofs.for_deed()
    if asked is not None:
        return asked
    factors.remove_passkey(visitor.member(), passkey_id)
    flash("The passkey is removed.", "success")
    return redirect(url_for(".index"), 303)


# --- Shown again ----------------------------------------------------------------------------------------


@bp.route("/prove", methods=["GET", "POST"])
def prove() -> Page:
    """Asked of who is logged in, before they go on to where they were."""
    user = visitor.member()
    counts = second_factors.counts_for(user)
    if request.method == "GET" and not counts:
        return redirect(proofs.onward(), 303)
    if request.method == "GET" or not proofs.is_answer():
        return proofs.page(user)
    try:
        proofs.take(user)
    except DomainError as error:
        return proofs.page(user, error.message), 429 if error.code.startswith("too_many") else 400
    access.renew_session(proved_at=clock.now() if counts else access.proved_at())
    return proofs.go_on()


# --- Pages ----------------------------------------------------------------------------------------------


def _refused(shown: str | Response) -> Page:
    """The form again, with why; or back, where there is no form any more."""
    return (shown, 400) if isinstance(shown, str) else shown


def _begun() -> bool:
    """Whether the password was typed in this session a while ago: its cookie alone shows no secret."""
    return clock.now().timestamp() - float(session.get(_BEGUN, 0)) < _BEGUN_SECONDS


def _print(user: User) -> Response:
    session[_SHEET] = keyring.seal(" ".join(second_factors.print_codes(user)))
    session[_PRINTED] = int(clock.now().timestamp())
    return redirect(url_for(".codes"), 303)


def _sheet() -> list[str]:
    """The codes that were printed here a while ago: a browser that is left shows them to nobody later."""
    if clock.now().timestamp() - float(session.get(_PRINTED, 0)) >= _BEGUN_SECONDS:
        return []
    try:
        return keyring.unseal(session.get(_SHEET, "")).split()
    except keyring.Unreadable:
        return []


def _index(problem: str = "") -> str:
    user = visitor.member()
    return render_template(
        "people/second_factor.html",
        user=user,
        counts=second_factors.counts_for(user),
        overdue=factors.overdue(user),
        onward=session.get(_ONWARD, ""),
        left=second_factors.codes_left(user),
        passkeys=passkeys.of(user),
        host=passkeys.host(),
        problem=problem,
    )


def _app_page(problem: str = "") -> str | Response:
    new = second_factors.new_app(visitor.member()) if _begun() else None
    if new is None:
        return redirect(url_for(".index"), 303)
    picture = segno.make(new.uri, error="m", micro=False).png_data_uri(scale=5, border=4)
    secret = " ".join(new.secret[place : place + 4] for place in range(0, len(new.secret), 4))
    return render_template(
        "people/second_factor_app.html", picture=picture, secret=secret, uri=new.uri, problem=problem
    )


def _codes_page(problem: str = "") -> str | Response:
    sheet = _sheet()
    if not sheet:
        return redirect(url_for(".index"), 303)
    return render_template(
        "people/second_factor_codes.html",
        sheet=sheet,
        user=visitor.member(),
        now=clock.now(),
        problem=problem,
    )


def _passkey_page(problem: str = "") -> str:
    question = passkeys.offer(visitor.member())
    session[proofs.QUESTION] = question.kept
    return render_template("people/passkey_new.html", options=question.options, problem=problem)
