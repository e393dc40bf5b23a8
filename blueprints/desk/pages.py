"""The desk's pages. Its guard is the one way in: whoever has no desk is refused all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint, abort, flash, g, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from blueprints import refunding
from blueprints.access import ask_to_log_in
from blueprints.visitor import member, not_kept, signed_in
from domain import addresses, money, timeline
from domain.errors import DomainError
from domain.office import desk
from domain.orders import managing
from domain.payments import desk_refunds, refundable
from domain.people import desks
from domain.providers import failure_reasons
from models import Order, OrderState

bp = Blueprint("desk", __name__, url_prefix="/desk")
bp.after_request(not_kept)


@bp.before_request
def _guard() -> Response | None:
    user = signed_in()
    if user is None:
        return ask_to_log_in()
    found = desks.of(user)
    if found is None:
        abort(403)
    g.desk = found
    return None


@bp.get("/")
def index() -> str:
    words = request.args.get("q", "")[:200]
    try:
        state = OrderState(request.args.get("state", ""))
    except ValueError:
        state = None
    found = desk.orders(g.desk, words, state, request.args.get("before", type=int))
    return render_template("desk/index.html", found=found, words=words, state=state, states=OrderState)


@bp.get("/orders/<code>")
def order(code: str) -> str:
    found = desk.order_file(g.desk, code)
    left = {payment.id: refundable.refundable_minor(payment) for payment in found.order.payments}
    return render_template(
        "desk/order.html",
        file=found,
        order=found.order,
        left=left,
        plain=money.plain,
        may_refund=desk_refunds.allowed(),
        longest=managing.MOST_NOTED,
        **_for_their_eyes(),
    )


def _for_their_eyes() -> dict[str, Any]:
    """An organiser's desk reads what the organiser does: what staff wrote is between staff."""
    if g.desk.is_house:
        return {"outward": lambda code, reason: reason, "viewer_id": None, "is_hidden": None}
    return {
        "outward": failure_reasons.outward,
        "viewer_id": member().id,
        "is_hidden": timeline.is_staffs_word,
    }


def _order(code: str) -> Order:
    return desk.order_file(g.desk, code).order


def _page(code: str) -> str:
    return url_for("desk.order", code=code)


def _act(code: str, do: Callable[[Order], str]) -> Response:
    """Do something with the order, say how it went, and go back to its page. Others' orders are not there."""
    found = _order(code)
    try:
        flash(do(found), "success")
    except DomainError as error:
        flash(error.message, "danger")
    return redirect(_page(code), 303)


@bp.post("/orders/<code>/note")
def note(code: str) -> Response:
    def do(found: Order) -> str:
        managing.remark(found, request.form.get("text", ""), door=g.desk.door, actor_id=member().id)
        return "Noted."

    return _act(code, do)


@bp.post("/orders/<code>/resend")
def resend(code: str) -> Response:
    def do(found: Order) -> str:
        managing.resend(found, door=g.desk.door, actor_id=member().id)
        return f"The tickets are on their way to {addresses.shown(found.email)}."

    return _act(code, do)


@bp.post("/orders/<code>/refund")
def refund(code: str) -> str | Response:
    """Send money back, up to the operator's sums: shown first, then done."""
    return refunding.refund(
        _order(code),
        actor_id=member().id,
        door=g.desk.door,
        page=_page(code),
        frame="desk/frame.html",
        at_desk=True,
    )
