"""Where the providers send people and rings: success, cancel, and the webhook."""

from __future__ import annotations

from flask import Blueprint, flash, redirect, request, url_for
from werkzeug.wrappers import Response

from blueprints.visitor import order_key
from domain.orders import managing
from domain.payments import reconciling, webhooks
from extensions import csrf, limiter

bp = Blueprint("payments", __name__)


@bp.get("/pay/success/<code>/<secret>")
@limiter.limit("300 per minute", key_func=order_key)
def success(code: str, secret: str) -> Response:
    """The provider sends the buyer here: ask it at once whether the money arrived, then show the order."""
    order = managing.find(code, secret)
    reconciling.returned(order, request.args.get("session_id", ""))
    return redirect(url_for("order.show", code=code, secret=secret), 303)


@bp.get("/pay/cancel/<code>/<secret>")
def cancel(code: str, secret: str) -> Response:
    """The buyer came back without paying: nothing is lost, the same session can be resumed."""
    order = managing.find(code, secret)
    reconciling.came_back_unpaid(order)
    reconciling.refresh(order, door="cancel")
    kept = " Your tickets are kept for you while the clock below runs." if order.sells_tickets else ""
    flash(f"You have not paid yet.{kept}", "info")
    return redirect(url_for("order.show", code=code, secret=secret), 303)


@bp.post("/<provider>/webhook/")
@bp.post("/api/v1/payments/webhooks/<provider>")
@csrf.exempt  # type: ignore[untyped-decorator]
@limiter.exempt
def webhook(provider: str) -> tuple[str, int]:
    """A provider's doorbell, at either address. The body is never believed: the API is asked."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    return "", webhooks.ring(provider, request.get_data(), headers, address=request.remote_addr or "")
