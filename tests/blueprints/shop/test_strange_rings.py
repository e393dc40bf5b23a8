"""Webhooks whose body is JSON and signed, and not what it ought to be: 400, never 500; nothing is kept."""

from __future__ import annotations

import copy
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from flask.testing import FlaskClient
from stripe import WebhookSignature

import config
from extensions import db
from models import WebhookEvent
from tests.support.merchants import use_sumup
from tests.support.sandbox import Sandbox

# Where a name belongs, these are none: they are other JSON, or text that no database keeps.
NO_NAMES = [
    *(0, 1, -1, 1.5, 10**30, True, False, [], ["cs_test_1"], {}, {"id": "cs_test_1"}),
    *("a\x00b", "\ud800", "\udfff-x", "line\nbreak", "e" * 300),
]
STRIPE = {
    "id": "evt_1",
    "type": "checkout.session.completed",
    "data": {
        "object": {
            "id": "cs_test_1",
            "object": "checkout.session",
            "charge": None,
            "metadata": {"reference": "ORD-1-1", "site": "https://other.example"},
        }
    },
}
CHARGE = STRIPE | {"type": "charge.succeeded", "data": {"object": {"id": "ch_1", "object": "charge"}}}
REFUND = STRIPE | {
    "type": "refund.updated",
    "data": {"object": {"id": "re_1", "object": "refund", "charge": "ch_1"}},
}
SUMUP = {"id": "evt_1", "type": "checkouts.paid", "object": {"id": "abc", "type": "checkout"}}
UNSIGNED = {"event_type": "CHECKOUT_STATUS_CHANGED", "id": "abc"}

Send = Callable[[FlaskClient, Any], int]


def to_stripe(client: FlaskClient, event: Any) -> int:
    body = json.dumps(event)
    signature = WebhookSignature.generate_signature_header(body, "whsec_kassa_sandbox")
    return client.post("/stripe/webhook/", data=body, headers={"Stripe-Signature": signature}).status_code


def to_sumup(client: FlaskClient, event: Any) -> int:
    body, moment = json.dumps(event).encode(), str(int(time.time()))
    mac = hmac.new(b"whsec_sumup", b"v1:" + moment.encode() + b":" + body, hashlib.sha256).hexdigest()
    headers = {"X-SumUp-Webhook-Signature": f"t={moment},v1={mac}"}
    return client.post("/sumup/webhook/", data=body, headers=headers).status_code


def to_sumup_unsigned(client: FlaskClient, event: Any) -> int:
    return client.post("/sumup/webhook/", data=json.dumps(event)).status_code


@pytest.fixture
def bells(client: FlaskClient, environ: dict[str, str], sandbox: Sandbox) -> Iterator[FlaskClient]:
    """Kassa with the doorbells of both providers, and secrets for both."""
    use_sumup(environ, sandbox)
    config.use(replace(config.get(), sumup_webhook_secret="whsec_sumup"))
    yield client


def changed(event: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """The event with another value in one place."""
    other = copy.deepcopy(event)
    inside: Any = other
    for name in path[:-1]:
        inside = inside[name]
    inside[path[-1]] = value
    return other


PLACES: list[tuple[Send, dict[str, Any], tuple[str, ...]]] = [
    (to_stripe, STRIPE, ("id",)),
    (to_stripe, STRIPE, ("type",)),
    (to_stripe, STRIPE, ("data", "object", "id")),
    (to_stripe, CHARGE, ("data", "object", "id")),
    (to_stripe, REFUND, ("data", "object", "id")),
    (to_sumup, SUMUP, ("id",)),
    (to_sumup, SUMUP, ("type",)),
    (to_sumup, SUMUP, ("object", "id")),
    (to_sumup_unsigned, UNSIGNED, ("id",)),
    (to_sumup_unsigned, UNSIGNED, ("event_type",)),
]


@pytest.mark.parametrize(
    ("send", "event", "path"), PLACES, ids=lambda part: str(getattr(part, "__name__", ""))
)
def test_what_is_no_name_is_refused_wherever_a_name_belongs(
    bells: FlaskClient, send: Send, event: dict[str, Any], path: tuple[str, ...]
) -> None:
    said = {repr(value)[:40]: send(bells, changed(event, path, value)) for value in [*NO_NAMES, ""]}
    assert said == dict.fromkeys(said, 400)
    assert db.session.query(WebhookEvent).all() == []
    assert send(bells, event) == 200


@pytest.mark.parametrize("name", ["charge", "latest_charge"])
def test_a_charge_that_is_no_id_is_refused(bells: FlaskClient, name: str) -> None:
    # An object that stands in the place of its id is the form of an expanded answer.
    wrong = [value for value in NO_NAMES if not isinstance(value, dict)] + [{}, {"id": 5}]
    said = [to_stripe(bells, changed(REFUND, ("data", "object", "charge"), None) | {"id": "evt_2"})]
    assert said == [200]
    for value in wrong:
        thing = {"id": "re_1", "object": "refund", name: value}
        assert to_stripe(bells, changed(REFUND, ("data", "object"), thing)) == 400, value
    assert db.session.query(WebhookEvent).count() == 1


@pytest.mark.parametrize("name", ["reference", "site"])
def test_metadata_is_text_and_that_of_others_is_let_be(bells: FlaskClient, name: str) -> None:
    path = ("data", "object", "metadata", name)
    for number, value in enumerate(NO_NAMES):
        status = to_stripe(bells, changed(STRIPE, path, value) | {"id": f"evt_{number}"})
        # Another program in the same account may write what it likes, and its events must not come again.
        # What is no text at all does not come as far.
        whole = isinstance(value, str) and "\x00" not in value and value.isascii()
        assert status == (200 if whole else 400), value
    for value in (5, "text", [1], True):
        assert to_stripe(bells, changed(STRIPE, path[:-1], value)) == 400


@pytest.mark.parametrize("value", [None, 0, 5, True, "text", [], ["x"], {}])
def test_whatever_stands_in_place_of_a_part_is_no_error_of_ours(bells: FlaskClient, value: Any) -> None:
    for path in (("data",), ("data", "object")):
        assert to_stripe(bells, changed(STRIPE, path, value)) in (200, 400)
    for send in (to_stripe, to_sumup, to_sumup_unsigned):
        assert send(bells, value) == 400
    assert to_sumup(bells, changed(SUMUP, ("object",), value)) == 400
    assert to_sumup_unsigned(bells, {"object": value, "id": "evt_1", "type": "checkouts.paid"}) == 400


def test_an_object_without_an_id_is_none_of_ours(bells: FlaskClient) -> None:
    """A balance has none: its event is genuine, and needs nothing."""
    assert to_stripe(bells, STRIPE | {"data": {"object": {"object": "balance"}}}) == 200
