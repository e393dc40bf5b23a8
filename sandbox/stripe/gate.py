"""What every request to Stripe's API must bring: a key, a version, readable parameters."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from contextlib import suppress

from flask import request

from sandbox import settings
from sandbox.stripe.objects import API_VERSION
from sandbox.stripe.wire import ApiError, Tree, parse


def check_bearer() -> None:
    """The secret key, as a bearer or as the user name of basic authentication."""
    header = request.headers.get("Authorization", "")
    scheme, _, given = header.partition(" ")
    if scheme.lower() == "basic":
        with suppress(ValueError):
            given = base64.b64decode(given).decode().partition(":")[0]
    given = given.strip()
    if not given:
        raise ApiError(
            "You did not provide an API key. You need to provide your API key in the Authorization header, "
            "using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY').",
            status=401,
        )
    if not hmac.compare_digest(given.encode(), settings.SECRET_KEY.encode()):
        shown = f"{given[:8]}{'*' * max(4, len(given) - 12)}{given[-4:]}" if len(given) > 12 else "****"
        raise ApiError(f"Invalid API Key provided: {shown}", status=401)


def check_version() -> None:
    """The pinned version only: in another, fields would have other names."""
    version = request.headers.get("Stripe-Version", API_VERSION)
    if version != API_VERSION:
        raise ApiError(
            f"Invalid Stripe API version: {version}. The sandbox speaks {API_VERSION}.", kept=False
        )


def read_parameters() -> Tree:
    """The query of a GET, the form of a POST, nested."""
    if request.method == "GET":
        return parse(request.args.items(multi=True))
    if request.mimetype not in ("application/x-www-form-urlencoded", ""):
        raise ApiError(
            "Invalid request (check that your POST content type is application/x-www-form-urlencoded).",
            kept=False,
        )
    tree = parse(request.form.items(multi=True))
    if "payment_method_types" in tree and "payment_intents" in request.path:
        raise ApiError(
            "payment_method_types is no longer supported: use dynamic payment methods, or "
            "allowed_payment_method_types.",
            code="payment_method_types_no_longer_supported",
            param="payment_method_types",
            kept=False,
        )
    return tree


def idempotency_key() -> str | None:
    """The idempotency key of a POST; on a GET it means nothing."""
    key = request.headers.get("Idempotency-Key")
    if request.method != "POST" or not key:
        return None
    if len(key) > 255:
        raise ApiError(
            "Idempotency keys can be at most 255 characters long.", type="idempotency_error", kept=False
        )
    return key


def fingerprint(tree: Tree) -> str:
    """What must be the same for a key to be used again."""
    text = json.dumps([request.method, request.path, tree], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
