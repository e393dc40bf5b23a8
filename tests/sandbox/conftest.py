"""Fixtures for the sandbox's own tests: the official SDK, pointed at a sandbox process."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
import requests
import stripe
from sumup import Sumup
from sumup.types import Checkout

from tests.sandbox.sumup_answers import faults_of
from tests.support.sandbox import Sandbox

stripe.enable_telemetry = False
# What a request sends. The SDK types parameters only where they are written out in the call.
Params = Any


@pytest.fixture
def box(sandbox: Sandbox) -> Iterator[Sandbox]:
    """The session's sandbox, emptied before and after."""
    sandbox.reset()
    yield sandbox
    sandbox.post("settings", {"webhook_url": None})
    sandbox.reset()


@pytest.fixture
def client(box: Sandbox) -> stripe.StripeClient:
    """The official SDK, with nothing but another base URL."""
    return stripe.StripeClient("sk_test_kassa_sandbox", base_addresses={"api": f"{box.base_url}/stripe"})


@pytest.fixture
def params() -> Params:
    """What a shop opens a session with: two lines, 25.00 EUR."""
    return {
        "mode": "payment",
        "success_url": "https://shop.example.org/ok?session_id={CHECKOUT_SESSION_ID}",
        "cancel_url": "https://shop.example.org/back?s={CHECKOUT_SESSION_ID}",
        "client_reference_id": "order-1",
        "customer_email": "buyer@example.org",
        "metadata": {"order": "order-1"},
        "payment_intent_data": {"metadata": {"order": "order-1"}},
        "adaptive_pricing": {"enabled": False},
        "line_items": [
            {
                "quantity": 2,
                "price_data": {"currency": "eur", "unit_amount": 1000, "product_data": {"name": "Seat"}},
            },
            {
                "quantity": 1,
                "price_data": {"currency": "eur", "unit_amount": 500, "product_data": {"name": "Programme"}},
            },
        ],
    }


@pytest.fixture
def session(client: stripe.StripeClient, params: Params) -> stripe.checkout.Session:
    """An open session of 25.00 EUR."""
    return client.v1.checkout.sessions.create(params)


@pytest.fixture
def pay(box: Sandbox, client: stripe.StripeClient, params: Params) -> Callable[..., stripe.checkout.Session]:
    """Opens a session and pays it on the hosted page with a card; the session as it is then, expanded."""

    def pay_with(number: str = "4242424242424242") -> stripe.checkout.Session:
        opened = client.v1.checkout.sessions.create(params)
        assert opened.url
        assert submit(opened.url, number=number).status_code == 303
        expand: Params = {"expand": ["payment_intent.latest_charge"]}
        return client.v1.checkout.sessions.retrieve(opened.id, expand)

    return pay_with


def intent_of(session: stripe.checkout.Session) -> stripe.PaymentIntent:
    """The PaymentIntent of an expanded session."""
    assert isinstance(session.payment_intent, stripe.PaymentIntent)
    return session.payment_intent


def charge_of(session: stripe.checkout.Session) -> stripe.Charge:
    """The charge of an expanded session."""
    charge = intent_of(session).latest_charge
    assert isinstance(charge, stripe.Charge)
    return charge


def submit(url: str, do: str = "pay", **fields: str) -> requests.Response:
    """Post the hosted page's form as a browser without JavaScript does. Redirects are not followed."""
    form = {"number": "4242 4242 4242 4242", "expiry": "12 / 34", "cvc": "123", "name": "Ada Lovelace"}
    return requests.post(url, data={**form, **fields, "do": do}, allow_redirects=False, timeout=30)


@dataclass
class Receiver:
    """An endpoint for webhooks. `statuses` are answered in turn; then 200 for ever."""

    url: str
    statuses: list[int] = field(default_factory=list)
    got: list[tuple[bytes, str]] = field(default_factory=list)
    arrived: threading.Condition = field(default_factory=threading.Condition)

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(body) for body, _ in self.got]

    def wait_for(self, count: int, seconds: float = 15) -> list[dict[str, Any]]:
        """The events, once there are `count` of them."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.got) >= count, seconds), self.types()
        return self.events()

    def types(self) -> list[str]:
        return [event["type"] for event in self.events()]


@pytest.fixture
def receiver(box: Sandbox) -> Iterator[Receiver]:
    """An endpoint that the sandbox sends its webhooks to."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with receiving.arrived:
                receiving.got.append((body, self.headers["Stripe-Signature"]))
                self.send_response(receiving.statuses.pop(0) if receiving.statuses else 200)
                self.end_headers()
                receiving.arrived.notify_all()

        def log_message(self, format: str, *args: Any) -> None:
            """Tests need no log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiving = Receiver(f"http://127.0.0.1:{server.server_address[1]}/hook")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    box.post("settings", {"webhook_url": receiving.url})
    yield receiving
    box.post("settings", {"webhook_url": None})
    server.shutdown()
    server.server_close()


# SumUp

PLATFORM = "MKASSA01"


def fitting(answer: httpx.Response) -> None:
    """Fails where an answer has a field, type or word that is not in the table."""
    assert faults_of(answer) == [], f"{answer.request.method} {answer.request.url}: {answer.text}"


def sumup_client(box: Sandbox, token: str = "sup_sk_kassa_sandbox") -> Sumup:
    """The official SDK with somebody's key or token. Each of its answers is checked field by field."""
    client = Sumup(api_key=token, base_url=f"{box.base_url}/sumup", timeout=10)
    client._client.event_hooks["response"] = [fitting]
    return client


def token_of(box: Sandbox, merchant: str, **more: Any) -> dict[str, Any]:
    """Tokens of a merchant, as /control hands them out."""
    tokens: dict[str, Any] = box.post(f"merchants/{merchant}", {"do": "token", **more})
    return tokens


@pytest.fixture
def sdk(box: Sandbox) -> Iterator[Sumup]:
    """The official SDK with the platform's key."""
    with sumup_client(box) as client:
        yield client


@pytest.fixture
def plain(box: Sandbox) -> Iterator[httpx.Client]:
    """SumUp's API without the SDK, as the platform; its answers are checked too."""
    with httpx.Client(
        base_url=f"{box.base_url}/sumup",
        headers={"Authorization": "Bearer sup_sk_kassa_sandbox"},
        event_hooks={"response": [fitting]},
        trust_env=False,
    ) as client:
        yield client


@pytest.fixture
def wanted() -> dict[str, Any]:
    """What a shop opens a checkout with: 25.00 EUR."""
    return {
        "checkout_reference": "attempt-1",
        "amount": 25.0,
        "currency": "EUR",
        "merchant_code": PLATFORM,
        "description": "Two seats",
        "hosted_checkout": {"enabled": True},
        "redirect_url": "https://shop.example.org/back?code=1",
    }


@pytest.fixture
def checkout(sdk: Sumup, wanted: dict[str, Any]) -> Checkout:
    """An open checkout of 25.00 EUR."""
    return sdk.checkouts.create(**wanted)
