"""What Stripe.js does in a browser: a stand-in script, the button in its frame, confirming, 3D Secure.

The script offers the small part of Stripe.js that a page with an Express Checkout Element uses. It knows
what a browser knows: the publishable key, and the client secret of one PaymentIntent.
"""

from __future__ import annotations

import hmac
import json
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

from flask import Blueprint, Response, abort, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from sandbox import settings
from sandbox.store import Stored
from sandbox.stripe.books import INTENT, Impossible
from sandbox.stripe.cards import BAD, GOOD, Card, Decline
from sandbox.stripe.currencies import show
from sandbox.stripe.dashboard import WALLETS
from sandbox.stripe.world import World

Body = dict[str, Any]
_THREE_D_SECURE = "4000002500003155"
# What can be chosen in the button's frame.
CARDS = ((GOOD, "pays"), (BAD, "is declined"), (_THREE_D_SECURE, "asks for 3D Secure"))


def blueprint(world: World) -> Blueprint:
    """Everything under /stripe/js, and the bank's page under /stripe/hooks."""
    browser = Blueprint("stripe_browser", __name__, url_prefix="/stripe")

    @browser.get("/js/stripe.js")
    def script() -> Response:
        text = render_template("stripe.js", origin=request.host_url.rstrip("/"))
        return Response(text, content_type="text/javascript; charset=utf-8")

    @browser.get("/js/button")
    def button() -> str:
        """The frame with the button. What it asks for, it tells the page around it."""
        wallets = [wallet for wallet in WALLETS if wallet in request.args.getlist("wallet")]
        return render_template("express_checkout.html", wallets=wallets, cards=CARDS)

    @browser.post("/js/payment_intents/<intent_id>/confirm")
    def confirm(intent_id: str) -> Response:
        with world.ready():
            answer, status = _confirmed(world, intent_id)
        response = Response(answer, status, content_type="application/json")
        # Stripe answers browsers of any site: what is asked for is known by its secret.
        response.headers["Access-Control-Allow-Origin"] = "*"
        return response

    @browser.get("/hooks/<intent_id>")
    def bank(intent_id: str) -> str:
        with world.ready():
            return _bank_page(_waiting(world, intent_id))

    @browser.post("/hooks/<intent_id>")
    def decided(intent_id: str) -> AnyResponse:
        with world.ready():
            intent = _waiting(world, intent_id)
            back, wallet = intent.inner["return_url"], intent.inner.get("wallet", "")
            if request.form.get("do") == "authenticate":
                world.pay_intent(intent, Card(_THREE_D_SECURE), authenticated=True, wallet=wallet)
                return redirect(_returning(intent, back, "succeeded"), 303)
            world.fail_authentication(intent)
            return redirect(_returning(intent, back, "failed"), 303)

    return browser


def _confirmed(world: World, intent_id: str) -> tuple[str, int]:
    """What a browser is answered that confirms an intent, as JSON, and the status."""
    form = request.form
    intent = world.store.find(INTENT, intent_id)
    given = form.get("client_secret", "").encode("ascii", "replace").decode()
    if form.get("key") != settings.PUBLISHABLE_KEY:
        return _error("invalid_request_error", "Invalid API Key provided.", 401)
    known = intent is not None and not intent.inner.get("session")
    if intent is None or not known or not hmac.compare_digest(given, intent.body["client_secret"]):
        return _error("invalid_request_error", f"No such payment_intent: '{intent_id}'", 404)
    wallet, back = form.get("wallet", ""), form.get("return_url", "")
    if wallet not in WALLETS or urlsplit(back).scheme not in ("http", "https"):
        return _error("invalid_request_error", "A wallet and a return_url are needed.", 400)
    try:
        decline = world.pay_intent(intent, Card(form.get("card") or GOOD), wallet=wallet)
    except Impossible as error:
        return _error("invalid_request_error", str(error), 400)
    if decline is not None:
        return _error("card_error", decline.message, 402, decline)
    status = intent.body["status"]
    if status == "requires_action":
        intent.inner |= {"return_url": back, "wallet": wallet}
        page = url_for("stripe_browser.bank", intent_id=intent_id, _external=True)
        intent.body["next_action"]["redirect_to_url"] |= {"url": page, "return_url": back}
        world.store.save(intent)
        return json.dumps({"redirect": page}), 200
    return json.dumps(
        {"redirect": _returning(intent, back, "succeeded" if status == "succeeded" else "pending")}
    ), 200


def _returning(intent: Stored, back: str, status: str) -> str:
    """The page's address of return, with what Stripe adds to it."""
    parts = urlsplit(back)
    more = urlencode(
        {
            "payment_intent": intent.id,
            "payment_intent_client_secret": intent.body["client_secret"],
            "redirect_status": status,
        }
    )
    return urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, more)))))


def _waiting(world: World, intent_id: str) -> Stored:
    """An intent that waits for its buyer's bank."""
    intent = world.store.find(INTENT, intent_id)
    if intent is None or intent.body["status"] != "requires_action" or "return_url" not in intent.inner:
        abort(404, "There is no payment to confirm.")
    return intent


def _bank_page(intent: Stored) -> str:
    amount = show(intent.body["amount"], intent.body["currency"])
    return render_template("authenticate.html", merchant=settings.MERCHANT, amount=amount, close=False)


def _error(kind: str, message: str, status: int, decline: Decline | None = None) -> tuple[str, int]:
    error: Body = {"type": kind, "message": message}
    if decline is not None:
        error |= {"code": decline.code, "decline_code": decline.decline_code}
    return json.dumps({"error": error}), status
