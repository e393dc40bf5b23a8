"""The hosted payment page, where the buyer is sent: plain forms, so that it works without JavaScript.

The form posts `number`, `expiry`, `cvc`, `name` and a button `do` of pay or pay_and_close; the 3D Secure page
posts `do` of authenticate or fail_authentication. Who has paid sees a page with a button back to the shop.
"""

from __future__ import annotations

from collections.abc import Mapping

from flask import Blueprint, abort, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from sandbox.cards import Unreadable
from sandbox.sumup import money
from sandbox.sumup.books import Checkout, Impossible
from sandbox.sumup.cards import read
from sandbox.sumup.world import World

TEST_CARDS = (
    ("4200 0000 0000 0091", "pays"),
    ("5555 4444 3333 1111", "pays"),
    ("4200 0000 0000 0042", "asks for 3D Secure"),
    ("4000 0000 0000 0002", "is declined"),
    ("4000 0000 0000 9995", "has not enough money"),
)


def blueprint(world: World) -> Blueprint:
    """The page under /sumup/pay/<checkout id>."""
    page = Blueprint("sumup_hosted", __name__, url_prefix="/sumup/pay")

    @page.get("/<checkout_id>")
    def checkout(checkout_id: str) -> str:
        return _render(world, checkout_id, {}, "", "")

    @page.post("/<checkout_id>")
    def confirm(checkout_id: str) -> str | Response:
        do = request.form.get("do", "")
        close = do == "pay_and_close" or "close" in request.form
        try:
            with world.ready():
                found = _find(world, checkout_id)
                problem = _tried(world, found, do)
                waits = world.waiting(found) is not None
        except Unreadable as error:
            return _render(world, checkout_id, request.form, str(error), error.field)
        except Impossible as error:
            return _render(world, checkout_id, request.form, str(error), "")
        if problem:
            return _render(world, checkout_id, request.form, problem, "number")
        if waits:
            return render_template("authenticate.html", **_shown(world, found), close=close)
        if close:
            return render_template("tab_closed.html", **_shown(world, found))
        return redirect(url_for("sumup_hosted.checkout", checkout_id=checkout_id), 303)

    return page


def _find(world: World, checkout_id: str) -> Checkout:
    checkout = world.checkout(checkout_id)
    if checkout is None or not checkout.hosted:
        abort(404, "There is no such checkout.")
    return checkout


def _tried(world: World, checkout: Checkout, do: str) -> str:
    """What the form asks for, done; why it failed, or ""."""
    if do not in ("pay", "pay_and_close", "authenticate", "fail_authentication"):
        abort(400, "The form needs a button: do=pay or pay_and_close.")
    if not world.page_open(checkout):
        raise Impossible("This page can no longer be paid.")
    if do in ("authenticate", "fail_authentication"):
        return world.confirm(checkout, passed=do == "authenticate")
    form = request.form
    card = read(form.get("number", ""), form.get("expiry", ""), form.get("cvc", ""), world.now())
    return world.pay(checkout, card)


def _shown(world: World, checkout: Checkout) -> dict[str, object]:
    with world.ready():
        merchant = world.merchant(checkout.merchant)
    return {
        "merchant": merchant.name if merchant else checkout.merchant,
        "checkout": checkout,
        "description": checkout.more.get("description"),
        "redirect_url": checkout.more.get("redirect_url"),
        "amount": money.show(checkout.amount_minor, checkout.currency),
        "cards": TEST_CARDS,
    }


def _render(world: World, checkout_id: str, form: Mapping[str, str], problem: str, field: str) -> str:
    with world.ready():
        checkout = _find(world, checkout_id)
        payable = world.page_open(checkout)
    shown = _shown(world, checkout)
    if payable:
        return render_template("sumup/checkout.html", **shown, form=form, problem=problem, field=field)
    return render_template("sumup/closed.html", **shown)
