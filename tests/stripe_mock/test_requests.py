"""Every request that the Stripe adapter makes, sent to the official stripe-mock as well.

stripe-mock knows Stripe's parameters and remembers nothing: its answers are fixtures. So the adapter works
over the sandbox, each of its requests is written down, and then each is sent to stripe-mock word for word,
which must accept it. It is found on the PATH (https://github.com/stripe/stripe-mock), or at STRIPE_MOCK_URL.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import stripe
from flask import Flask

from domain import clock, providers
from tests.support.contract import purchase
from tests.support.sandbox import Sandbox, free_port

ADAPTER = Path(__file__).resolve().parents[2] / "domain" / "providers" / "stripe.py"
START_SECONDS = 20
# The SDK's calls in the adapter's text, and the method and path that each becomes.
ENDPOINTS = {
    "checkout.sessions.retrieve": ("get", "/v1/checkout/sessions/ID"),
    # Raw requests, by their verb and path as the adapter writes them.
    'post", _SESSIONS': ("post", "/v1/checkout/sessions"),
    'get", f"{_SESSIONS}/{provider_id}"': ("get", "/v1/checkout/sessions/ID"),
    'get", _SESSIONS': ("get", "/v1/checkout/sessions"),
    "checkout.sessions.expire": ("post", "/v1/checkout/sessions/ID/expire"),
    "refunds.create": ("post", "/v1/refunds"),
    "refunds.list": ("get", "/v1/refunds"),
    "charges.list": ("get", "/v1/charges"),
    "disputes.list": ("get", "/v1/disputes"),
    "accounts.retrieve_current": ("get", "/v1/account"),
    # And /v1/refunds and /v1/disputes, which are listed of one payment, too.
    'get", path': ("get", "/v1/charges"),
}


@dataclass(frozen=True)
class Sent:
    """A request as it went out; `path` with its query, without the sandbox's own beginning."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: str

    @property
    def endpoint(self) -> tuple[str, str]:
        return self.method, re.sub(r"/(cs|pi)_[A-Za-z0-9_]+", "/ID", urlsplit(self.path).path)


@pytest.fixture
def sent(app: Flask, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> list[Sent]:
    """Everything that the adapter asks for in a payment's life, as it went over the wire."""
    recorded: list[Sent] = []
    real = stripe.RequestsClient.request

    def record(
        client: stripe.RequestsClient,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        post_data: Any = None,
    ) -> Any:
        _, path = url.split("/stripe", 1)
        recorded.append(Sent(method, path, tuple((headers or {}).items()), post_data or ""))
        return real(client, method, url, headers, post_data)

    monkeypatch.setattr(stripe.RequestsClient, "request", record)
    adapter = providers.get("stripe")
    began = clock.now()
    made = adapter.create(adapter.params(purchase(adapter)), "key-1").provider_id
    other = adapter.create(adapter.params(purchase(adapter, "P-2")), "key-2").provider_id
    sandbox.do(made, "pay")
    adapter.fetch(made, thorough=True)
    assert adapter.find("P-1", began) is not None
    for number in range(100):
        adapter.create(adapter.params(purchase(adapter, f"Q-{number}")), f"key-{number + 3}")
    assert len(list(adapter.pages(began, clock.now()) or ())) == 2
    adapter.refund(made, 1000, "refund-1")
    told = [happening for page in adapter.happened(began, clock.now()) or () for happening in page.happenings]
    assert adapter.behind(told[0]) is not None
    assert adapter.find_refund(made, "refund-1") is not None
    adapter.close(other, "close-2")
    adapter.health()
    return recorded


@pytest.fixture(scope="session")
def stripe_mock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running stripe-mock."""
    url, program = os.environ.get("STRIPE_MOCK_URL", ""), shutil.which("stripe-mock")
    if url:
        yield url.rstrip("/")
        return
    if program is None:
        pytest.skip("stripe-mock is not here: put it on the PATH, or set STRIPE_MOCK_URL to one that runs")
    port = free_port()
    log = tmp_path_factory.mktemp("stripe-mock") / "log"
    with log.open("w") as output:
        process = subprocess.Popen([program, "-http-port", str(port)], stdout=output, stderr=output)
    try:
        _wait_for(f"http://127.0.0.1:{port}", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            requests.get(url, timeout=5)
            return
        except requests.ConnectionError:
            time.sleep(0.1)
    raise RuntimeError(f"stripe-mock did not start: {log.read_text()}")


def test_every_call_in_the_adapter_is_among_them(sent: list[Sent]) -> None:
    """Needs no stripe-mock: a call that is added to the adapter must be added to the story above."""
    adapter = ADAPTER.read_text()
    called = set(re.findall(r"client\.v1\.([a-z_.]+)\(", adapter))
    called |= set(re.findall(r"client\.raw_request\(\"([^,]+, [^,)]+)", adapter))
    assert called == set(ENDPOINTS)
    assert {request.endpoint for request in sent} == set(ENDPOINTS.values())


def test_posts_carry_a_key_of_ours(sent: list[Sent]) -> None:
    keys = {dict(request.headers).get("Idempotency-Key", "") for request in sent if request.method == "post"}
    assert {"key-1", "refund-1", "close-2"} <= keys
    assert all(key.startswith(("key-", "refund-", "close-")) for key in keys)


@pytest.mark.stripe_mock
def test_stripe_mock_accepts_every_request(stripe_mock: str, sent: list[Sent]) -> None:
    refused = []
    # The hundred sessions that fill a page differ in nothing that matters here.
    different = {(request.endpoint, re.sub(r"\d+", "0", request.body)): request for request in sent}
    for request in different.values():
        answer = requests.request(
            request.method,
            stripe_mock + request.path,
            headers=dict(request.headers),
            data=request.body or None,
            timeout=30,
        )
        if answer.status_code != 200:
            refused.append(f"{request.method} {request.path}: {answer.status_code} {answer.text[:300]}")
    assert refused == []


@pytest.mark.stripe_mock
def test_stripe_mock_would_refuse_what_stripe_does_not_know(stripe_mock: str, sent: list[Sent]) -> None:
    """The negative control: the same request with a parameter too many."""
    create = next(request for request in sent if request.endpoint == ("post", "/v1/checkout/sessions"))
    answer = requests.post(
        stripe_mock + create.path, headers=dict(create.headers), data=f"{create.body}&colour=red", timeout=30
    )
    assert answer.status_code == 400
    assert "colour" in answer.text
