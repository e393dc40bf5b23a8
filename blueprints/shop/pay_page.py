"""Our own pay page, with a wallet's button of the provider's; and where the wallet leads back to."""

from __future__ import annotations

from flask import Blueprint, Response, g, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

import config
from blueprints.visitor import not_kept, secret_mark
from domain import clock
from domain.errors import NotFound
from domain.payments import for_programs, pay_page, reconciling
from extensions import limiter
from models import Order

bp = Blueprint("pay_page", __name__)
bp.after_request(not_kept)
# The page asks the provider for the payment's secret each time that it is loaded.
_LOADS = "60 per minute"


def _reference() -> str:
    """What a limit counts by: the page's payment, for whoever has its key; others are counted apart."""
    named = request.view_args or {}
    return f"pay:{named.get('reference', '')}:{secret_mark(named.get('secret', ''))}"


@bp.get("/pay/wallet/<reference>/<secret>")
@limiter.limit(_LOADS, key_func=_reference)
def show(reference: str, secret: str) -> str | BaseResponse:
    payment = pay_page.find(reference, secret)
    page = pay_page.show(payment)
    if page is None:
        return _to_order(payment.order)
    if page.button is not None:
        # What the button needs this page may do, and no other: see app.py.
        g.allowed_sources = page.button.element.sources
    return render_template(
        "shop/pay_page.html",
        page=page,
        order=page.order,
        payment=page.payment,
        now=clock.now(),
        back=url_for(".returned", reference=reference, secret=secret, _external=False),
    )


@bp.get("/pay/wallet/<reference>/<secret>/done")
@limiter.limit("300 per minute", key_func=_reference)
def returned(reference: str, secret: str) -> BaseResponse:
    """The wallet leads the buyer here: ask at once whether the money arrived, then show the order.

    The address carries the payment's secret, which the redirect leaves behind.
    """
    order = pay_page.find(reference, secret).order
    code, key = order.code, order.secret
    back = for_programs.onward(order, reference)
    reconciling.returned(order, request.args.get("payment_intent") or reference)
    return redirect(back or url_for("order.show", code=code, secret=key), 303)


@bp.get("/.well-known/apple-developer-merchantid-domain-association")
def apple_pay_domain() -> Response:
    """By this file Apple sees that the host is ours, where a provider asks for it."""
    text = config.get().apple_pay_domain_association
    if not text:
        raise NotFound("no_page", "There is nothing at this address.")
    return Response(text, content_type="text/plain; charset=utf-8")


def _to_order(order: Order) -> BaseResponse:
    return redirect(url_for("order.show", code=order.code, secret=order.secret), 303)
