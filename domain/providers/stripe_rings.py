"""Stripe's events: whether one is genuine, and the names by which the payment behind it may be found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import stripe

from domain.providers.contract import BadSignature, Ring, told_name
from domain.providers.stripe_reading import Thing, is_own, object_of

_SIGNATURE_AGE = 300
# A purchase rings up to six times. These tell nothing new of a payment that is known to be paid.
_ONLY_OF_PAYING = frozenset(
    {
        "checkout.session.completed",
        "checkout.session.async_payment_succeeded",
        "payment_intent.created",
        "payment_intent.processing",
        "payment_intent.requires_action",
        "payment_intent.succeeded",
        "charge.succeeded",
    }
)
_UNREADABLE = (
    stripe.SignatureVerificationError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RecursionError,
)


def read(body: bytes, signature: str, secrets: tuple[str, ...]) -> Ring:
    """The event that a request carries. BadSignature where it is not Stripe's, or not readable."""
    try:
        _check_signature(body, signature, secrets)
        event = json.loads(body)
        thing = event["data"]["object"]
        kind = told_name(event["type"], 100)
        # Some objects, such as a balance, have no id.
        known = "" if thing.get("id") is None else told_name(thing["id"])
        return Ring(
            told_name(event["id"]),
            kind,
            known,
            only_of_paying=kind in _ONLY_OF_PAYING,
            of_a_decline=kind == "payment_intent.payment_failed" and _is_nameless(thing),
            **_names_of(thing),
        )
    except _UNREADABLE as error:
        raise BadSignature(type(error).__name__) from error


def _check_signature(body: bytes, signature: str, secrets: tuple[str, ...]) -> None:
    """By any of the secrets: each address that Stripe rings at has its own."""
    *others, last = secrets
    for secret in others:
        with suppress(stripe.SignatureVerificationError):
            stripe.WebhookSignature.verify_header(body, signature, secret, _SIGNATURE_AGE)
            return
    stripe.WebhookSignature.verify_header(body, signature, last, _SIGNATURE_AGE)


def _names_of(thing: Thing) -> dict[str, str | None]:
    """The names by which the payment behind an event may be found. BadSignature where one is no text."""
    charge = thing["id"] if thing.get("object") == "charge" else _first_told(thing, "charge", "latest_charge")
    metadata = thing.get("metadata")
    metadata = {} if metadata is None else metadata
    payment = _payment(thing)
    return {
        "provider_id": None if payment is None else told_name(payment),
        "charge_id": None if charge is None else told_name(charge),
        "reference": _written(metadata.get("reference")),
        "site": _written(metadata.get("site")),
    }


def _payment(thing: Thing) -> Any:
    """The id of the payment: a session, or an intent that no session made. None where it does not tell.

    A refund and a dispute do not tell which kind of intent they are of; one of a session is no payment's id.
    """
    kind = thing.get("object")
    if kind == "checkout.session" or kind == "payment_intent" and is_own(thing):
        return thing["id"]
    if kind == "charge" and is_own(thing) or kind in ("refund", "dispute"):
        return _first_told(thing, "payment_intent")
    return None


def _first_told(thing: Thing, *names: str) -> Any:
    """The first of the fields that says something; of an object that stands there, its id."""
    told = next((thing[name] for name in names if thing.get(name) is not None), None)
    return told["id"] if isinstance(told, Mapping) else told


def _written(value: Any) -> str | None:
    """What metadata says. What another program writes there, long or in several lines, names nothing here."""
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise BadSignature("Metadata is text.")
    return value if len(value) <= 255 and value.isprintable() else None


def _is_nameless(intent: Thing) -> bool:
    """Whether the attempt that failed last left no charge: the buyer was not authenticated, say."""
    return not object_of(intent.get("last_payment_error")).get("charge")
