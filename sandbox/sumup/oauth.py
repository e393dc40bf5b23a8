"""OAuth: /authorize, where somebody logs in as a merchant and allows the app or does not, and /token.

The page's form posts `merchant` (a code) and a button `do` of allow or refuse, to the query it was opened by.
"""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from flask import Blueprint, Response, abort, redirect, render_template, request
from werkzeug.wrappers import Response as AnyResponse

from sandbox import settings
from sandbox.edge import Edge
from sandbox.faults import Fault, Faults
from sandbox.sumup.access import DEFAULT_SCOPES, SCOPES, Access, Worthless
from sandbox.sumup.api import refused
from sandbox.sumup.merchants import PLATFORM
from sandbox.sumup.world import World

Body = dict[str, Any]

_ONCE = ("response_type", "client_id", "redirect_uri", "scope", "state")


@dataclass(frozen=True)
class Wish:
    """What an app asks for."""

    redirect_uri: str
    scope: str
    state: str

    def back(self, **answer: str) -> AnyResponse:
        """Send the person back to the app with the answer."""
        query = answer | ({"state": self.state} if self.state else {})
        joint = "&" if urlsplit(self.redirect_uri).query else "?"
        return redirect(f"{self.redirect_uri}{joint}{urlencode(query)}", 302)


class Refusal(Exception):
    """An error of the token endpoint, as RFC 6749 has it."""

    def __init__(self, error: str, description: str, status: int = 400) -> None:
        super().__init__(description)
        self.error = error
        self.status = status


def blueprint(
    world: World, access: Access, faults: Faults, edge: Callable[[Callable[[int], Response]], Edge]
) -> Blueprint:
    """The two addresses."""
    pages = Blueprint("sumup_oauth", __name__, url_prefix="/sumup")
    served = edge(refused)

    @pages.get("/authorize")
    def authorize() -> str | AnyResponse:
        wish = _wish(world, access)
        return _page(world, wish, "") if isinstance(wish, Wish) else wish

    @pages.post("/authorize")
    def decide() -> str | AnyResponse:
        wish = _wish(world, access)
        if not isinstance(wish, Wish):
            return wish
        if request.form.get("do") != "allow":
            return wish.back(error="access_denied", error_description="The merchant refused.")
        with world.ready():
            merchant = world.merchant(request.form.get("merchant", ""))
            code = access.code(merchant.code, wish.scope, wish.redirect_uri) if merchant else ""
        return wish.back(code=code) if code else _page(world, wish, "Choose whose account it is.")

    @pages.post("/token")
    def token() -> Response:
        return served.serve(lambda fault: _token(world, access, faults, fault))

    return pages


# /authorize


def _wish(world: World, access: Access) -> Wish | AnyResponse:
    """What is asked for, or the answer to an app that asks for the wrong thing.

    A wrong client or address is told to the person: nobody may be sent to an address that is not the app's.
    """
    query = request.args
    with world.ready():
        options = access.options()
    redirect_uri = query.get("redirect_uri", "")
    if any(len(query.getlist(name)) > 1 for name in _ONCE):
        abort(400, "A parameter was given twice.")
    if query.get("client_id") != settings.SUMUP_CLIENT_ID:
        abort(400, "No app has this client_id.")
    known = options["redirect_uris"]
    parts = urlsplit(redirect_uri)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.fragment:
        abort(400, "redirect_uri must be an http or https address without a fragment.")
    if known and redirect_uri not in known:
        abort(400, "redirect_uri is not one of the app's, to the letter.")
    wish = Wish(redirect_uri, query.get("scope") or DEFAULT_SCOPES, query.get("state", ""))
    if query.get("response_type") != "code":
        return wish.back(error="unsupported_response_type", error_description="response_type must be code.")
    asked = wish.scope.split()
    if set(asked) - set(SCOPES):
        return wish.back(error="invalid_scope", error_description="A scope is unknown.")
    if "payments" in asked and not options["payments_approved"]:
        return wish.back(error="invalid_scope", error_description="payments is not approved.")
    return wish


def _page(world: World, wish: Wish, problem: str) -> str:
    with world.ready():
        merchants = [merchant for merchant in world.merchants() if merchant.code != PLATFORM]
    return render_template(
        "sumup/authorize.html",
        app=settings.MERCHANT,
        merchants=merchants,
        scopes=[(scope, _MEANING[scope]) for scope in wish.scope.split()],
        problem=problem,
    )


_MEANING = {
    "payments": "take payments for you, and refund them",
    "transactions.history": "see your transactions",
    "user.app-settings": "see and change your app settings",
    "user.profile_readonly": "see your profile",
    "user.profile": "see and change your profile",
    "user.payout-settings": "see and change where you are paid out",
    "user.subaccounts": "see and change the accounts of your employees",
    "payment_instruments": "keep the cards of your customers",
}


# /token


def _token(world: World, access: Access, faults: Faults, fault: Fault | None) -> Response:
    if fault is not None and fault.kind == "slow":
        faults.wait(fault.seconds)
    try:
        form = _form()
        _check_client(form)
        if fault is not None and fault.stored:
            return refused(500)
        with world.ready():
            body = _granted(access, form)
    except Refusal as error:
        return _answer(error.status, {"error": error.error, "error_description": str(error)})
    # A 500 that comes after the work: the tokens are made, and lost on their way.
    return refused(500) if fault is not None and fault.kind == "http_500" else _answer(200, body)


def _granted(access: Access, form: dict[str, str]) -> Body:
    kind = form.get("grant_type")
    try:
        if kind == "authorization_code":
            return access.exchange(_needed(form, "code"), _needed(form, "redirect_uri"))
        if kind == "refresh_token":
            return access.refresh(_needed(form, "refresh_token"))
    except Worthless:
        raise Refusal(
            "invalid_grant",
            "The code or refresh token is invalid, expired, revoked or used, or the redirect_uri is not "
            "that of the code.",
        ) from None
    if kind is None:
        raise Refusal("invalid_request", "grant_type is missing.")
    raise Refusal("unsupported_grant_type", "grant_type must be authorization_code or refresh_token.")


def _form() -> dict[str, str]:
    if request.mimetype != "application/x-www-form-urlencoded":
        raise Refusal("invalid_request", "The content type must be application/x-www-form-urlencoded.")
    twice = [name for name, values in request.form.lists() if len(values) > 1]
    if twice:
        raise Refusal("invalid_request", f"{twice[0]} was given twice.")
    return request.form.to_dict()


def _needed(form: dict[str, str], name: str) -> str:
    if not form.get(name):
        raise Refusal("invalid_request", f"{name} is missing.")
    return form[name]


def _check_client(form: dict[str, str]) -> None:
    """The app's id and secret: in the form, or as basic authentication."""
    given = f"{form.get('client_id', '')}:{form.get('client_secret', '')}"
    scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "basic":
        with suppress(ValueError):
            given = base64.b64decode(encoded).decode()
    right = f"{settings.SUMUP_CLIENT_ID}:{settings.SUMUP_CLIENT_SECRET}"
    if not hmac.compare_digest(given.encode(), right.encode()):
        raise Refusal("invalid_client", "Client authentication failed.", 401)


def _answer(status: int, body: Body) -> Response:
    response = Response(json.dumps(body), status, content_type="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response
