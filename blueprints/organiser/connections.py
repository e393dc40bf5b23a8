"""An organiser's own account at a provider: going there, coming back, ending it."""

from __future__ import annotations

from flask import Blueprint, flash, redirect, render_template, request, session, url_for
from werkzeug.wrappers import Response as BaseResponse

from blueprints import proofs, visitor
from blueprints.access import members_only
from domain.connections import linked_accounts
from domain.errors import DomainError
from extensions import limiter

bp = Blueprint("connections", __name__)

# Where the browser keeps what the provider is to bring back: nobody else's answer is taken.
_STATE = "connecting"
_PAGE = "/organiser/connect/<provider>"


bp.after_request(visitor.not_kept)


@bp.get(_PAGE)
@members_only
def begin(provider: str) -> str:
    """The account's state, with the button that begins; the provider itself is asked after the POST."""
    return render_template("organiser/connection.html", seen=linked_accounts.look(visitor.member(), provider))


@bp.post(_PAGE)
@members_only
@limiter.limit("30 per hour", key_func=visitor.member_key)
@proofs.deed
def leave(provider: str) -> BaseResponse:
    try:
        url, session[_STATE] = linked_accounts.authorize_url(visitor.member(), provider)
    except DomainError as error:
        return _back(provider, error.message, "warning")
    return redirect(url, 303)


@bp.get(f"{_PAGE}/done")
@members_only
@limiter.limit("60 per hour", key_func=visitor.member_key)
def done(provider: str) -> BaseResponse:
    """The provider sends the organiser here, with a code, or with a no."""
    try:
        made = linked_accounts.finish(
            visitor.member(),
            provider,
            expected=session.pop(_STATE, ""),
            state=request.args.get("state", ""),
            code=request.args.get("code", ""),
            refusal=request.args.get("error", ""),
        )
    except DomainError as error:
        return _back(provider, error.message, "warning")
    return _back(provider, f"Account {made.account} is connected. You can sell through it now.", "success")


@bp.post(f"{_PAGE}/end")
@members_only
@proofs.deed
def end(provider: str) -> BaseResponse:
    try:
        linked_accounts.disconnect(visitor.member().id, provider)
    except DomainError as error:
        return _back(provider, error.message, "warning")
    return _back(provider, "The account is disconnected. Nothing new is sold through it.", "success")


def _back(provider: str, words: str, category: str) -> BaseResponse:
    flash(words, category)
    return redirect(url_for("connections.begin", provider=provider), 303)
