"""Members' wallets, for admins: what is in one, and putting money in or taking it out with a reason."""

from __future__ import annotations

import secrets

from flask import Blueprint, flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

import config
from blueprints import proofs
from blueprints.access import role_required
from blueprints.visitor import member, not_kept
from domain.errors import DomainError
from domain.ledger import adjustments, wallet
from models import Role

bp = Blueprint("wallets", __name__, url_prefix="/admin/wallets")
bp.after_request(not_kept)


@bp.before_request
@role_required(Role.ADMIN)
def _only_admins() -> None:
    """Every page here is for admins."""


@bp.get("")
def index() -> str | Response:
    """Whose wallet? Asked by address of mail."""
    email = request.args.get("email", "").strip()
    if email:
        try:
            found = adjustments.member(email)
        except DomainError as error:
            flash(error.message, "warning")
        else:
            return redirect(url_for(".of", user_id=found.id), 303)
    return render_template("office/wallets.html", email=email)


@bp.get("/<int:user_id>")
def of(user_id: int) -> str:
    """One member's wallet, and the form that changes it."""
    return _page(user_id)


@bp.post("/<int:user_id>")
def adjust(user_id: int) -> str | Response | tuple[str, int]:
    user = adjustments.by_id(user_id)
    form = request.form
    currency, before = config.get().wallet_currency, adjustments.lately_minor(user)
    asked = proofs.for_typed_money(form.get("amount", ""), currency, before_minor=before)
    if asked is not None:
        return asked
    try:
        done = adjustments.adjust(
            user,
            form.get("amount", ""),
            form.get("reason", ""),
            takes=form.get("do") == "deduct",
            key=form.get("form_token", ""),
            actor_id=member().id,
        )
    except DomainError as error:
        return _page(user_id, error.message), 400
    flash(done.words, "info" if done.repeated else "success")
    return redirect(url_for(".of", user_id=user_id), 303)


def _page(user_id: int, problem: str = "") -> str:
    user = adjustments.by_id(user_id)
    return render_template(
        "office/wallet.html",
        user=user,
        purses=wallet.purses(user),
        made=adjustments.made_to(user),
        currency=config.get().wallet_currency,
        problem=problem,
        typed=request.form,
        form_token=request.form.get("form_token") or secrets.token_urlsafe(16),
    )
