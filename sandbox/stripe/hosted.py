"""The hosted payment page, where the buyer is sent: plain forms, so that it works without JavaScript.

The form posts `number`, `expiry`, `cvc`, `name`, `email` and a button `do` of pay, pay_later or
pay_and_close; the 3D Secure page posts `do` of authenticate or fail_authentication.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from flask import Blueprint, abort, redirect, render_template, request
from werkzeug.wrappers import Response

from sandbox import settings
from sandbox.cards import Unreadable
from sandbox.store import Stored
from sandbox.stripe.books import INTENT, SESSION, Impossible
from sandbox.stripe.cards import AUTHENTICATION_FAILED, Card, Decline, read
from sandbox.stripe.currencies import show
from sandbox.stripe.dashboard import substituted
from sandbox.stripe.world import World

TEST_CARDS = (
    ("4242 4242 4242 4242", "pays"),
    ("5555 4444 3333 1111", "pays"),
    ("4000 0000 0000 0002", "is declined"),
    ("4000 0000 0000 9995", "has insufficient funds"),
    ("4000 0025 0000 3155", "asks for 3D Secure"),
    ("4000 0000 0000 0259", "pays, then is disputed"),
    ("4000 0000 0000 7726", "pays; a refund takes a minute"),
    ("4000 0000 0000 5126", "pays; a refund fails after a minute"),
)


@dataclass
class Problem:
    """What went wrong with the form, and at which of its fields."""

    message: str
    field: str = ""


def blueprint(world: World) -> Blueprint:
    """The page under /stripe/pay/<session id>."""
    page = Blueprint("stripe_hosted", __name__, url_prefix="/stripe/pay")

    @page.get("/<session_id>")
    def checkout(session_id: str) -> str | Response:
        with world.ready():
            session = _session(world, session_id)
        return _render(world, session, {}, None)

    @page.post("/<session_id>")
    def confirm(session_id: str) -> str | Response:
        do = request.form.get("do", "")
        with world.ready():
            session = _session(world, session_id)
        try:
            with world.ready():
                session = _session(world, session_id)
                if do in ("authenticate", "fail_authentication"):
                    decline = _authenticate(world, session, passed=do == "authenticate")
                elif do in ("pay", "pay_and_close", "pay_later"):
                    decline = _pay(world, session, do)
                else:
                    abort(400, "The form needs a button: do=pay, pay_later or pay_and_close.")
                waiting = _waiting(world, session)
        except Unreadable as error:
            return _render(world, session, request.form, Problem(str(error), error.field))
        except Impossible as error:
            return _render(world, session, request.form, Problem(str(error)))
        if decline is not None:
            return _render(world, session, request.form, Problem(decline.message, "number"))
        if waiting is not None:
            return render_template("authenticate.html", **_shown(session), close=do == "pay_and_close")
        return _leave(session, close=do == "pay_and_close" or "close" in request.form)

    return page


def _session(world: World, session_id: str) -> Stored:
    world.run_due(object_id=session_id)
    session = world.store.find(SESSION, session_id)
    if session is None:
        abort(404, "There is no such checkout.")
    return session


def _pay(world: World, session: Stored, do: str) -> Decline | None:
    form = request.form
    name, email = form.get("name", "").strip(), form.get("email", "").strip()
    if do == "pay_later":
        return world.pay_session(session, None, name=name, email=email)
    today = time.gmtime(world.now())
    card = None
    if session.body["amount_total"]:
        card = read(
            form.get("number", ""), form.get("expiry", ""), form.get("cvc", ""), today.tm_year, today.tm_mon
        )
    return world.pay_session(session, card or Card(""), name=name, email=email)


def _authenticate(world: World, session: Stored, *, passed: bool) -> Decline | None:
    intent = _waiting(world, session)
    if intent is None:
        raise Impossible("There is no payment to authenticate. Type your card again.")
    if not passed:
        world.fail_authentication(intent)
        return AUTHENTICATION_FAILED
    details = session.body["customer_details"] or {}
    card = Card("4000002500003155")
    return world.pay_session(
        session, card, name=details.get("name") or "", email=details.get("email") or "", authenticated=True
    )


def _waiting(world: World, session: Stored) -> Stored | None:
    """The PaymentIntent that waits for 3D Secure, if one does."""
    if session.body["status"] != "open" or not session.body["payment_intent"]:
        return None
    intent = world.get(INTENT, session.body["payment_intent"])
    return intent if intent.body["status"] == "requires_action" else None


def _shown(session: Stored) -> dict[str, object]:
    body = session.body
    lines = [
        {
            "name": line["description"],
            "quantity": line["quantity"],
            "amount": show(line["amount_total"], line["currency"]),
        }
        for line in session.inner["lines"]
    ]
    return {
        "merchant": settings.MERCHANT,
        "session": body,
        "lines": lines,
        "amount": show(body["amount_total"], body["currency"]),
        "success_url": substituted(body["success_url"], session.id),
        "cancel_url": substituted(body["cancel_url"], session.id),
        "bank_debit": "sepa_debit" in body["payment_method_types"],
        "cards": TEST_CARDS,
    }


def _render(
    world: World, session: Stored, form: Mapping[str, str], problem: Problem | None
) -> str | Response:
    with world.ready():
        session = _session(world, session.id)
    template = "checkout.html" if session.body["status"] == "open" else "closed.html"
    return render_template(template, **_shown(session), form=form, problem=problem)


def _leave(session: Stored, *, close: bool) -> str | Response:
    """Back to the shop; or, as if the tab had been closed, nowhere."""
    if close:
        return render_template("tab_closed.html", **_shown(session))
    return redirect(substituted(session.body["success_url"], session.id) or "/", 303)
