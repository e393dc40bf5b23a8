"""The door: scanning tickets on a phone. Staff come by a link and a PIN, some members by logging in.

Each page of a door has two addresses, `/door/<token>/...` for a pass and `/door/events/<slug>/...` for a
member. Which one a request has is taken out of it before the view, and who may be there is checked there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from uuid import uuid4

from flask import (
    Blueprint,
    Response,
    abort,
    current_app,
    flash,
    g,
    jsonify,
    redirect,
    render_template,
    request,
    stream_template,
    url_for,
)
from itsdangerous import BadSignature, URLSafeSerializer
from werkzeug.wrappers import Response as BaseResponse

import config
from blueprints.access import ask_to_log_in, role_required
from blueprints.visitor import signed_in, wants_json
from domain import clock, codes
from domain.door import check_in, qr_reader, staff
from domain.door.check_in import Scan
from domain.door.staff import Doorkeeper
from domain.errors import DomainError
from domain.rendering import when
from domain.tickets import documents
from extensions import limiter
from models import DoorPass, Role, User, Verdict

bp = Blueprint("door", __name__, url_prefix="/door")

_COOKIE = "kassa_door"
_SCANS = "600 per minute"
# A phone without a reader of its own sends about three frames a second; a pass may be on several phones.
_FRAMES = "1200 per minute"
TITLES = {
    Verdict.VALID: "Valid",
    Verdict.USED: "Already used",
    Verdict.WRONG_EVENT: "Wrong event",
    Verdict.VOID: "Not valid",
    Verdict.FORGED: "Forged",
    Verdict.UNKNOWN: "Unknown",
}
View = TypeVar("View", bound=Callable[..., Any])


def _at_a_door(rule: str, *methods: str) -> Callable[[View], View]:
    """Route a view at both addresses of a door."""

    def add(view: View) -> View:
        for where in ("/<token>", "/events/<slug>"):
            bp.add_url_rule(where + rule, view.__name__, view, methods=list(methods))
        return view

    return add


# --- Who is there ---------------------------------------------------------------------------------------


@bp.url_value_preprocessor
def _take_address(endpoint: str | None, values: dict[str, Any] | None) -> None:
    values = values or {}
    g.door_address = {name: values.pop(name) for name in ("token", "slug") if name in values}


@bp.url_defaults
def _give_address(endpoint: str, values: dict[str, Any]) -> None:
    for name, value in g.get("door_address", {}).items():
        if current_app.url_map.is_endpoint_expecting(endpoint, name):
            values.setdefault(name, value)


@bp.before_request
def _guard() -> BaseResponse | None:
    """Let nobody past who is not at this door; a link without its PIN leads to the form that asks for it."""
    if "token" in g.door_address:
        g.door_pass = staff.open_pass(g.door_address["token"])
        g.keeper = _entered(g.door_pass)
        if g.keeper is None and request.endpoint not in ("door.page", "door.enter"):
            return _not_entered()
    elif "slug" in g.door_address:
        user = signed_in()
        if user is None:
            return ask_to_log_in()
        try:
            g.keeper = staff.by_user(user, g.door_address["slug"])
        except DomainError as error:
            if error.code == "not_your_door":
                abort(403)
            raise
    return None


@bp.after_request
def _not_kept(response: Response) -> Response:
    """Names and codes stay in no cache and behind no Back button."""
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def _signer() -> URLSafeSerializer:
    # It signs by the last, and takes what any of them has signed.
    return URLSafeSerializer([*reversed(config.get().derived_keys("door-cookie"))], salt="door")


def _entered(door_pass: DoorPass) -> Doorkeeper | None:
    """Who typed this pass's PIN on this phone."""
    try:
        # Phones that entered before have it under the bare name.
        kept = request.cookies.get(_cookie()) or request.cookies.get(_COOKIE, "")
        said = _signer().loads(kept)
        return staff.by_pass(door_pass, str(said["name"])) if said["pass"] == door_pass.id else None
    except (BadSignature, KeyError, TypeError):
        return None


def _cookie() -> str:
    """Of one door's address alone, so `__Host-` is not for it; but no page in clear can set it."""
    return f"__Secure-{_COOKIE}" if config.get().https else _COOKIE


def _not_entered() -> BaseResponse:
    if wants_json():
        response = jsonify(error="enter_first", message="Type the PIN again: reload this page.")
        response.status_code = 401
        return response
    return redirect(url_for("door.page"), 303)


def _door_key() -> str:
    address: dict[str, str] = g.door_address
    return "door:" + (address.get("token") or f"{address.get('slug')}:{getattr(signed_in(), 'id', 0)}")


@bp.post("/<token>/enter")
def enter() -> BaseResponse | tuple[str, int]:
    name = request.form.get("name", "")
    try:
        staff.enter(
            g.door_pass.token,
            request.form.get("pin", ""),
            name,
            client_address=request.remote_addr or "",
        )
    except DomainError as error:
        return _entry_page(name, error.message), 429 if error.code == "too_many_pins" else 400
    response = redirect(url_for("door.page"), 303)
    response.set_cookie(
        _cookie(),
        _signer().dumps({"pass": g.door_pass.id, "name": name[:200]}),
        max_age=int((g.door_pass.expires_at - clock.now()).total_seconds()),
        path=f"/door/{g.door_pass.token}/",
        httponly=True,
        secure=config.get().https,
        samesite="Lax",
    )
    return response


@bp.post("/<token>/leave")
def leave() -> BaseResponse:
    response = redirect(url_for("door.page"), 303)
    for name in (_cookie(), _COOKIE):
        response.delete_cookie(name, path=f"/door/{g.door_pass.token}/", secure=config.get().https)
    return response


def _entry_page(name: str = "", problem: str = "") -> str:
    return render_template("door/enter.html", door_pass=g.door_pass, name=name, problem=problem)


# --- The door -------------------------------------------------------------------------------------------


@_at_a_door("/", "GET")
def page() -> str:
    return _door_page() if g.keeper is not None else _entry_page()


@_at_a_door("/check", "POST")
@limiter.limit(_SCANS, key_func=_door_key)
def check() -> str | tuple[str, int]:
    """A code that was typed, or a name that was chosen, by a browser without JavaScript."""
    try:
        result = check_in.scan(g.keeper, request.form.get("scan_id", ""), request.form.get("code", ""))
    except DomainError as error:
        return _door_page(problem=error.message), 400
    return _door_page(result)


@_at_a_door("/scan", "POST")
@limiter.limit(_SCANS, key_func=_door_key)
def scan() -> Response:
    asked = _json("scan_id", "text")
    return _told(check_in.scan(g.keeper, asked["scan_id"], asked["text"]))


@_at_a_door("/frame", "POST")
@limiter.limit(_FRAMES, key_func=_door_key)
def frame() -> Response:
    """The text in a camera's picture, null where there is none; what it is worth, `scan` tells."""
    return jsonify(text=qr_reader.read(request.get_data()))


@_at_a_door("/admit-rest", "POST")
@limiter.limit(_SCANS, key_func=_door_key)
def admit_rest() -> BaseResponse:
    asked = _json("of", "scan_id") if request.is_json else request.form
    number = check_in.admit_rest(g.keeper, asked.get("of", ""), asked.get("scan_id", ""))
    return _done(f"{number} more of this order let in.", number)


@_at_a_door("/undo", "POST")
@limiter.limit(_SCANS, key_func=_door_key)
def undo() -> BaseResponse:
    asked = _json("scan_id") if request.is_json else request.form
    number = check_in.undo(g.keeper, asked.get("scan_id", ""))
    return _done(f"Undone: {number} {'ticket' if number == 1 else 'tickets'} can be used again.", number)


@_at_a_door("/count.json", "GET")
def count() -> Response:
    return jsonify(_count(check_in.count(g.keeper.event)))


@_at_a_door("/search", "GET")
@limiter.limit("120 per minute", key_func=_door_key)
def search() -> str:
    words = request.args.get("q", "").strip()[:100]
    found = check_in.search(g.keeper.event, words)
    return render_template("door/search.html", keeper=g.keeper, words=words, found=found, **_helpers())


@_at_a_door("/list", "GET")
@limiter.limit("30 per minute", key_func=_door_key)
def door_list() -> Iterator[str]:
    count, guests = check_in.count(g.keeper.event), check_in.door_list(g.keeper.event)
    more = {"keeper": g.keeper, "count": count, "guests": guests, "now": clock.now(), **_helpers()}
    # A large event's list would be read whole before its first line is seen.
    return stream_template("door/list.html", **more)


def _door_page(result: Scan | None = None, problem: str = "") -> str:
    user = signed_in()
    return render_template(
        "door/page.html",
        keeper=g.keeper,
        result=result,
        problem=problem,
        count=result.count if result is not None else check_in.count(g.keeper.event),
        recent=check_in.recent(g.keeper),
        by_pass="token" in g.door_address,
        manages=user is not None and staff.may_manage(user, g.keeper.event),
        **_helpers(),
    )


def _helpers() -> dict[str, Any]:
    return {"titles": TITLES, "new_id": lambda: str(uuid4()), "show_code": codes.show}


def _json(*names: str) -> dict[str, str]:
    """The texts of these names in a JSON body. 400 for anything else."""
    body = request.get_json(silent=True)
    if not isinstance(body, dict) or not all(isinstance(body.get(name), str) for name in names):
        raise DomainError("unreadable", "That request could not be read. Reload the page.")
    return {name: body[name] for name in names}


def _told(result: Scan) -> Response:
    at = result.at
    return jsonify(
        scan_id=result.scan_id,
        verdict=result.verdict,
        title=TITLES[result.verdict],
        words=result.words,
        holder=result.holder,
        type=result.type,
        when=at.isoformat() if at is not None else None,
        time=when(at, g.keeper.timezone, "HH:mm") if at is not None else "",
        by=result.by,
        rest=result.rest,
        count=_count(result.count),
    )


def _count(numbers: check_in.Count) -> dict[str, int]:
    return {"admitted": numbers.admitted, "total": numbers.total}


def _done(words: str, number: int) -> BaseResponse:
    if request.is_json:
        return jsonify(number=number, words=words, count=_count(check_in.count(g.keeper.event)))
    flash(words, "success")
    return redirect(url_for("door.page"), 303)


# --- Whose door it is -----------------------------------------------------------------------------------


@bp.get("/")
@role_required(Role.DOOR, Role.ORGANISER)
def index() -> str:
    return render_template("door/index.html", events=staff.events_for(_member()), may_manage=staff.may_manage)


@bp.get("/events/<slug>/passes")
def passes() -> str:
    _managing()
    return _passes_page()


@bp.post("/events/<slug>/passes")
@limiter.limit("60 per hour", key_func=_door_key)
def make_pass() -> str | tuple[str, int]:
    _managing()
    try:
        made, pin = staff.make_pass(g.keeper.event, request.form.get("label", ""), _member())
    except DomainError as error:
        return _passes_page(problem=error.message), 400
    return _passes_page(made, pin)


@bp.post("/events/<slug>/passes/<int:pass_id>/revoke")
def revoke_pass(pass_id: int) -> BaseResponse:
    _managing()
    staff.revoke(g.keeper.event, pass_id)
    flash("That link to the door no longer works.", "success")
    return redirect(url_for("door.passes"), 303)


def _passes_page(made: DoorPass | None = None, pin: str = "", problem: str = "") -> str:
    return render_template(
        "door/passes.html",
        event=g.keeper.event,
        passes=staff.passes(g.keeper.event),
        made=made,
        pin=pin,
        problem=problem,
        link=staff.url,
        qr=documents.qr_data_uri,
        now=clock.now(),
    )


def _member() -> User:
    member = signed_in()
    if member is None:
        abort(403)
    return member


def _managing() -> None:
    if not staff.may_manage(_member(), g.keeper.event):
        abort(403)
