"""What a person sees who scans a code (Kaspi's app, as plain forms), or who is sent by a biller's form.

The code's page posts a button `do`: scan, confirm, refuse, pay, pay_and_close. A biller's page posts `pay` or
`leave`; its payment is made by a form that the shop's page sends, from the browser.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from flask import Blueprint, abort, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from sandbox import settings
from sandbox.dashboards import Conflict, NotFound
from sandbox.kaspi.books import CREATED, OPENED, Impossible, Payment
from sandbox.kaspi.dashboard import KaspiDashboard
from sandbox.kaspi.wire import show
from sandbox.kaspi.world import World

_FIELDS = ("TranId", "OrderId", "Amount", "Service")


def blueprint(world: World, dashboard: KaspiDashboard) -> Blueprint:
    """The pages under /kaspi/pay and /kaspi/online."""
    pages = Blueprint("kaspi_hosted", __name__, url_prefix="/kaspi")

    @pages.get("/pay/<payment_id>")
    def pay(payment_id: str) -> str:
        return _page(world, payment_id)

    @pages.post("/pay/<payment_id>")
    def act(payment_id: str) -> str | Response:
        do = request.form.get("do", "")
        try:
            with world.ready():
                _do(world, _find(world, payment_id), do)
        except Impossible as error:
            return _page(world, payment_id, str(error))
        if do == "pay_and_close":
            with world.ready():
                return render_template("tab_closed.html", **_shown(_find(world, payment_id)))
        return redirect(url_for("kaspi_hosted.pay", payment_id=payment_id), 303)

    @pages.post("/online")
    def online() -> Response:
        given = {name: request.form.get(name, "").strip() for name in (*_FIELDS, "returnUrl")}
        amount = given["Amount"]
        if not all(given[name] for name in _FIELDS) or not (amount.isascii() and amount.isdigit()):
            abort(400, f"The form needs {', '.join(_FIELDS)}, the amount in tiyn.")
        if not 0 < int(amount) < 10**11:
            abort(400, "The amount must be one in tiyn.")
        with world.ready():
            payment = world.open("biller", "", given["TranId"][:200], int(amount), given)
        return redirect(url_for("kaspi_hosted.bill", payment_id=payment.id), 303)

    @pages.get("/online/<payment_id>")
    def bill(payment_id: str) -> str:
        return _bill(world, payment_id, "")

    @pages.post("/online/<payment_id>")
    def pay_bill(payment_id: str) -> str | Response:
        try:
            shown = dashboard.act(payment_id, {"do": "pay"})
        except Conflict as error:
            return _bill(world, payment_id, str(error))
        except NotFound as error:
            abort(404, str(error))
        if shown["status"] == "paid":
            return redirect(url_for("kaspi_hosted.bill", payment_id=payment_id), 303)
        return _bill(world, payment_id, "The shop did not take the payment. Nothing was charged.")

    return pages


def _do(world: World, payment: Payment, do: str) -> None:
    """What the form asks for. Raises Impossible."""
    if do == "scan":
        world.scan(payment)
    elif do == "confirm":
        world.confirm(payment)
    elif do == "refuse":
        world.fail(payment)
    elif do in ("pay", "pay_and_close"):
        world.pay(payment)
    else:
        abort(400, "The form needs a button: do=scan, confirm, refuse, pay or pay_and_close.")


def _find(world: World, payment_id: str) -> Payment:
    payment = world.payment(payment_id)
    if payment is None or payment.kind == "biller":
        abort(404, "There is no such code.")
    return payment


def _shown(payment: Payment) -> dict[str, Any]:
    return {"merchant": settings.MERCHANT, "payment": payment, "amount": show(payment.amount_minor)}


def _page(world: World, payment_id: str, problem: str = "") -> str:
    with world.ready():
        payment = _find(world, payment_id)
        if payment.status == CREATED and not world.is_over(payment):
            # Whoever opens a link has it in their app.
            world.look(payment)
        over = world.is_over(payment)
    unscanned = payment.status in (CREATED, OPENED)
    return render_template(
        "kaspi/pay.html", **_shown(payment), over=over, unscanned=unscanned, problem=problem
    )


def _bill(world: World, payment_id: str, problem: str) -> str:
    with world.ready():
        payment = world.payment(payment_id)
    if payment is None or payment.kind != "biller":
        abort(404, "There is no such bill.")
    back = str(payment.more.get("returnUrl", ""))
    back = back if urlsplit(back).scheme in ("http", "https") else ""
    return render_template("kaspi/bill.html", **_shown(payment), back=back, problem=problem)
