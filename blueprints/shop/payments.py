"""Where the providers send people and rings: success, cancel, and the webhook."""

from __future__ import annotations

from flask import Blueprint, Response, abort, flash, redirect, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from blueprints.visitor import order_key
from domain.orders import managing
from domain.payments import calls, for_programs, reconciling, webhooks
from extensions import csrf, limiter

bp = Blueprint("payments", __name__)


@bp.get("/pay/success/<code>/<secret>")
@limiter.limit("300 per minute", key_func=order_key)
def success(code: str, secret: str) -> BaseResponse:
    """The provider sends the buyer here: ask it at once whether the money arrived, then show the order.

    Whom a program sent to pay goes back to that program.
    """
    order, named = managing.find(code, secret), request.args.get("session_id", "")
    back = for_programs.onward(order, named)
    reconciling.returned(order, named)
    return redirect(back or url_for("order.show", code=code, secret=secret), 303)


@bp.get("/pay/cancel/<code>/<secret>")
def cancel(code: str, secret: str) -> BaseResponse:
    """The buyer came back without paying: nothing is lost, the same session can be resumed."""
    order = managing.find(code, secret)
    back = for_programs.onward(order)
    reconciling.came_back_unpaid(order)
    reconciling.refresh(order, door="cancel")
    if back:
        return redirect(back, 303)
    kept = " Your tickets are kept for you while the clock below runs." if order.sells_tickets else ""
    flash(f"You have not paid yet.{kept}", "info")
    return redirect(url_for("order.show", code=code, secret=secret), 303)


@bp.post("/<provider>/webhook/")
@csrf.exempt  # type: ignore[untyped-decorator]
@limiter.exempt
def webhook(provider: str) -> tuple[str, int]:
    """A provider's doorbell; the API has another. The body is never believed: the provider is asked."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    return "", webhooks.ring(provider, request.get_data(), headers, address=request.remote_addr or "")


@bp.get("/<provider>/biller/<secret>")
@limiter.exempt
def called(provider: str, secret: str) -> Response:
    """A provider asks whether an order may be paid, or tells that it was. Others find nothing here."""
    told = calls.answer(provider, secret, request.args, address=request.remote_addr or "")
    if told is None:
        abort(404)
    return Response(
        told, content_type="application/json; charset=utf-8", headers={"Cache-Control": "private, no-store"}
    )
