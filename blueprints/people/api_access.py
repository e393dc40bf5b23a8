"""Keys for servers, and the programs that a member is logged in with: seen, made and ended in the account."""

from __future__ import annotations

from flask import Blueprint, flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from blueprints import proofs, visitor
from blueprints.access import members_only
from domain import clock
from domain.errors import DomainError
from domain.people import api_access
from domain.security import api_keys, api_tokens, scopes
from extensions import limiter
from models import ApiKey

bp = Blueprint("api_access", __name__, url_prefix="/account/api")
_DAYS = (30, 90, 180, 365)


@bp.before_request
@members_only
def _members_only() -> None:
    """A key acts for whoever makes it."""


bp.after_request(visitor.not_kept)


@bp.get("/")
def index() -> str:
    return _page()


@bp.post("/keys")
@limiter.limit("30 per hour", key_func=visitor.member_key)
@proofs.deed
def make_key() -> str | tuple[str, int]:
    try:
        days = request.form.get("days", "")
        key, text = api_access.make_key(
            visitor.member(),
            request.form.get("name", ""),
            request.form.getlist("scope"),
            int(days) if days.isascii() and days.isdigit() and len(days) < 5 else 0,
        )
    except DomainError as error:
        return _page(problem=error.message), 400
    return _page(key, text)


@bp.post("/keys/<key_id>/revoke")
@proofs.deed
def revoke_key(key_id: str) -> BaseResponse:
    key = api_keys.revoke(visitor.member(), key_id)
    flash(f"The key “{key.name}” is revoked: it opens nothing any more.", "success")
    return redirect(url_for(".index"), 303)


@bp.post("/programs/end")
@proofs.own
def end_programs() -> BaseResponse:
    api_tokens.end_all(visitor.member())
    flash("Every program is logged out.", "success")
    return redirect(url_for(".index"), 303)


def _page(made: ApiKey | None = None, text: str = "", problem: str = "") -> str:
    member = visitor.member()
    may = scopes.of_keys_of(member.role)
    return render_template(
        "people/api_access.html",
        keys=api_keys.of(member),
        programs=api_tokens.of(member),
        scopes={scope: scopes.WORDS[scope] for scope in scopes.Scope if scope in may},
        chosen=request.form.getlist("scope") if problem else [],
        typed=request.form.get("name", "") if problem else "",
        days=_DAYS,
        longest=api_keys.LONGEST_NAME,
        made=made,
        text=text,
        problem=problem,
        now=clock.now(),
    )
