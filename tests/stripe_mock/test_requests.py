"""Every request that the Stripe adapter makes, sent to the official stripe-mock as well.

stripe-mock knows Stripe's parameters and remembers nothing: its answers are fixtures. So the adapter works
over the sandbox, each of its requests is written down, and then each is sent to stripe-mock word for word,
which must accept it. It is found on the PATH (https://github.com/stripe/stripe-mock), or at STRIPE_MOCK_URL.

Its specification is older than the SDK, and its refusals do not say what they are about. So a request that
is refused is sent again with less of its parameters: what it is accepted without is newer where the SDK knows
it, and a fault of ours where it does not. A stand-in that behaves alike keeps these tests honest where there
is no stripe-mock.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import requests
import stripe
from flask import Flask
from stripe import params as types
from stripe.params import checkout as checkout_types
from werkzeug import Request, Response
from werkzeug.serving import make_server

from domain import clock
from domain.providers import contract, registry
from tests.support.contract import purchase
from tests.support.sandbox import Sandbox, free_port

PROVIDERS = Path(__file__).resolve().parents[2] / "domain" / "providers"
ADAPTER = (PROVIDERS / "stripe.py", PROVIDERS / "stripe_domains.py")
START_SECONDS = 20
# The SDK's calls in the adapter's text, and the methods and paths that each becomes.
_SHAPES = ("/v1/checkout/sessions", "/v1/payment_intents")
_DOMAINS = "/v1/payment_method_domains"
ENDPOINTS: dict[str, tuple[tuple[str, str], ...]] = {
    # Raw requests, by their verb and path as the adapter writes them; a payment has one of two shapes.
    'post", shape.path': tuple(("post", path) for path in _SHAPES),
    'get", shape.path': tuple(("get", path) for path in _SHAPES),
    'get", SESSIONS.path': (("get", "/v1/checkout/sessions"),),
    # One payment by its id, and the lists of what happened.
    'get", path': (*(("get", f"{path}/ID") for path in _SHAPES), ("get", "/v1/charges")),
    'post", path': (
        ("post", "/v1/checkout/sessions/ID/expire"),
        ("post", "/v1/payment_intents/ID/cancel"),
    ),
    "refunds.create": (("post", "/v1/refunds"),),
    "refunds.list": (("get", "/v1/refunds"),),
    "charges.list": (("get", "/v1/charges"),),
    "disputes.list": (("get", "/v1/disputes"),),
    "accounts.retrieve_current": (("get", "/v1/account"),),
    "payment_method_domains.list": (("get", _DOMAINS),),
    "payment_method_domains.create": (("post", _DOMAINS),),
    "payment_method_domains.update": (("post", f"{_DOMAINS}/ID"),),
    "payment_method_domains.validate": (("post", f"{_DOMAINS}/ID/validate"),),
}
# What the SDK, which is newer than any stripe-mock, lets each of them be asked with.
SHAPES: dict[tuple[str, str], type] = {
    ("post", "/v1/checkout/sessions"): checkout_types.SessionCreateParams,
    ("get", "/v1/checkout/sessions"): checkout_types.SessionListParams,
    ("get", "/v1/checkout/sessions/ID"): checkout_types.SessionRetrieveParams,
    ("post", "/v1/checkout/sessions/ID/expire"): checkout_types.SessionExpireParams,
    ("post", "/v1/payment_intents"): types.PaymentIntentCreateParams,
    ("get", "/v1/payment_intents"): types.PaymentIntentListParams,
    ("get", "/v1/payment_intents/ID"): types.PaymentIntentRetrieveParams,
    ("post", "/v1/payment_intents/ID/cancel"): types.PaymentIntentCancelParams,
    ("get", _DOMAINS): types.PaymentMethodDomainListParams,
    ("post", _DOMAINS): types.PaymentMethodDomainCreateParams,
    ("post", f"{_DOMAINS}/ID"): types.PaymentMethodDomainUpdateParams,
    ("post", f"{_DOMAINS}/ID/validate"): types.PaymentMethodDomainValidateParams,
    ("post", "/v1/refunds"): types.RefundCreateParams,
    ("get", "/v1/refunds"): types.RefundListParams,
    ("get", "/v1/disputes"): types.DisputeListParams,
    ("get", "/v1/charges"): types.ChargeListParams,
    ("get", "/v1/account"): types.AccountRetrieveCurrentParams,
}
# Of the one form that stripe-mock takes.
KEY = "sk_test_kassa1234567890"
# So many parameters of one request may be newer than its specification.
MOST_NEWER = 3


@dataclass(frozen=True)
class Sent:
    """A request as it went out; `path` with its query, without the sandbox's own beginning."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: str

    @property
    def endpoint(self) -> tuple[str, str]:
        return self.method, _nameless(urlsplit(self.path).path)


def _nameless(path: str) -> str:
    """A path without the ids in it."""
    return re.sub(r"/(cs|pi|pmd)_[A-Za-z0-9_]+", "/ID", path)


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
    adapter = registry.get("stripe")
    began = clock.now()
    made = adapter.create(adapter.params(purchase(adapter)), "key-1").provider_id
    other = adapter.create(adapter.params(purchase(adapter, "P-2")), "key-2").provider_id
    sandbox.do(other, "decline")
    assert isinstance(adapter, contract.Retraces) and adapter.declines(adapter.fetch(other))
    sandbox.do(made, "pay")
    adapter.fetch(made, thorough=True)
    assert adapter.find("P-1", began) is not None
    for number in range(100):
        adapter.create(adapter.params(purchase(adapter, f"Q-{number}")), f"key-{number + 3}")
    # Two pages of sessions; their intents, on a third, are none of their own.
    assert len(list(adapter.pages(began, clock.now()) or ())) == 3
    adapter.refund(made, 1000, "refund-1")
    told = [happening for page in adapter.happened(began, clock.now()) or () for happening in page.happenings]
    assert adapter.behind(told[0]) is not None
    assert adapter.find_refund(made, "refund-1") is not None
    adapter.close(other, "close-2")
    adapter.health()
    _by_wallet(adapter, sandbox)
    return recorded


def _by_wallet(adapter: contract.Provider, sandbox: Sandbox) -> None:
    """The same by PaymentIntents, with what a button on our own page needs besides."""
    wanted = replace(purchase(adapter, "W-1"), method="apple_pay")
    made = adapter.create(adapter.params(wanted), "key-w1").provider_id
    other = adapter.create(adapter.params(replace(wanted, reference="W-2")), "key-w2").provider_id
    assert isinstance(adapter, contract.HasClientSecret) and adapter.client_secret(made)
    sandbox.do(made, "pay", wallet="apple_pay")
    adapter.fetch(made, thorough=True)
    adapter.refund(made, 1000, "refund-w1")
    adapter.close(other, "close-w2")
    assert isinstance(adapter, contract.KnowsDomains)
    assert adapter.domain_status("pay.example.org") is None
    assert adapter.register_domain("pay.example.org").problems == ()
    # Somebody switches it off in the dashboard; registering it again switches it on.
    path, headers = f"{sandbox.base_url}/stripe{_DOMAINS}", {"Authorization": "Bearer sk_test_kassa_sandbox"}
    [known] = requests.get(path, headers=headers, timeout=30).json()["data"]
    off = requests.post(f"{path}/{known['id']}", data={"enabled": "false"}, headers=headers, timeout=30)
    assert off.json()["enabled"] is False
    assert adapter.register_domain("pay.example.org").problems == ()


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
    adapter = "".join(path.read_text() for path in ADAPTER)
    called = set(re.findall(r"client\.v1\.([a-z_.]+)\(", adapter))
    called |= set(re.findall(r"client\.raw_request\(\"([^,]+, [^,)]+)", adapter))
    assert called == set(ENDPOINTS)
    assert {request.endpoint for request in sent} == {one for ones in ENDPOINTS.values() for one in ones}


def test_posts_carry_a_key_of_ours(sent: list[Sent]) -> None:
    # A host is known by its name: registering it twice does nothing twice.
    posts = [one for one in sent if one.method == "post" and not one.path.startswith(_DOMAINS)]
    keys = {dict(request.headers).get("Idempotency-Key", "") for request in posts}
    assert {"key-1", "refund-1", "close-2"} <= keys
    assert all(key.startswith(("key-", "refund-", "close-")) for key in keys)


# --- What stripe-mock says of them ----------------------------------------------------------------------


def answer(url: str, request: Sent, *, without: frozenset[str] = frozenset(), extra: str = "") -> int:
    """The status that a request is answered with, less some of its parameters, or with one too many.

    stripe-mock takes keys of one form only, which the sandbox's is not, and looks at nothing else of them.
    """
    headers = {**dict(request.headers), "Authorization": f"Bearer {KEY}"}
    address, _, query = request.path.partition("?")
    query, body = (_less(text, without) for text in (query, request.body))
    if extra and request.method == "post":
        body = f"{body}&{extra}"
    return requests.request(
        request.method, f"{url}{address}?{query}".rstrip("?"), headers=headers, data=body or None, timeout=30
    ).status_code


def _name(pair: str) -> str:
    """The parameter that a pair of a form or a query belongs to: a[b][0]=c is of a."""
    return unquote(pair.split("=", 1)[0]).split("[", 1)[0]


def _less(encoded: str, names: frozenset[str]) -> str:
    return "&".join(pair for pair in encoded.split("&") if pair and _name(pair) not in names)


def refused_for(url: str, request: Sent) -> frozenset[str]:
    """The parameters without which a request is accepted; none where it is. It never says which they are.

    A failure where nothing that is left out mends it.
    """
    _, _, query = request.path.partition("?")
    names = sorted({_name(pair) for pair in f"{query}&{request.body}".split("&") if pair})
    for number in range(min(MOST_NEWER, len(names)) + 1):
        for some in combinations(names, number):
            if answer(url, request, without=frozenset(some)) == 200:
                return frozenset(some)
    pytest.fail(f"{request.method} {request.path} is refused, whatever is left out: {request.body[:300]}")


def judge(url: str, sent: list[Sent]) -> tuple[set[str], set[str]]:
    """Which parameters it does not know: those that the SDK knows are newer than its specification."""
    newer: set[str] = set()
    unknown: set[str] = set()
    # The hundred sessions that fill a page differ in nothing that matters here.
    different = {(request.endpoint, re.sub(r"\d+", "0", request.body)): request for request in sent}
    for request in different.values():
        known = SHAPES[request.endpoint].__annotations__
        for name in refused_for(url, request):
            (newer if name in known else unknown).add(f"{' '.join(request.endpoint)}: {name}")
    return newer, unknown


@pytest.fixture(params=["stand-in", pytest.param("stripe-mock", marks=pytest.mark.stripe_mock)])
def mock(request: pytest.FixtureRequest) -> str:
    """stripe-mock; and a stand-in that behaves as it does, which is always here."""
    found: str = request.getfixturevalue(
        {"stand-in": "stand_in", "stripe-mock": "stripe_mock"}[request.param]
    )
    return found


@pytest.fixture
def stand_in() -> Iterator[str]:
    """As stripe-mock: one form of keys, a specification that is older, refusals that name no parameter."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        request = Request(environ)
        endpoint = (request.method.lower(), _nameless(request.path))
        names = {_name(name) for name in (*request.args, *request.form)}
        known = SHAPES[endpoint].__annotations__.keys() - {"adaptive_pricing", "allowed_payment_method_types"}
        key = re.fullmatch(r"Bearer sk_test_[A-Za-z0-9]+", request.headers.get("Authorization", ""))
        status = 401 if key is None else 200 if names <= known else 400
        said = {401: "Please authenticate.", 400: "additional properties are not allowed"}.get(status, "")
        return Response(json.dumps({"error": {"message": said}}), status)(environ, start_response)

    server = make_server("127.0.0.1", 0, app)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_every_request_is_accepted(mock: str, sent: list[Sent], request: pytest.FixtureRequest) -> None:
    newer, unknown = judge(mock, sent)
    if "stripe-mock" in request.node.name:
        # Stripe knows these and its older imitation does not: they are told, and are no failure.
        for name in sorted(newer):
            warnings.warn(f"newer than this stripe-mock's specification: {name}", stacklevel=1)
    assert unknown == set()


def test_what_stripe_does_not_know_is_refused(mock: str, sent: list[Sent]) -> None:
    """The negative control: the request that is accepted, with a parameter too many."""
    create = next(request for request in sent if request.endpoint == ("post", "/v1/checkout/sessions"))
    newer = refused_for(mock, create)
    assert answer(mock, create, without=newer) == 200
    assert answer(mock, create, without=newer, extra="colour=red") == 400
    wrong = replace(create, body=f"{create.body}&colour=red")
    assert judge(mock, [wrong])[1] == {"post /v1/checkout/sessions: colour"}


def test_the_stand_in_is_as_strict_as_stripe_mock(stand_in: str, sent: list[Sent]) -> None:
    """Its key is refused as ours would be, and what it lacks is named, so that the two tests are honest."""
    first = sent[0]
    headers = {"Authorization": "Bearer sk_test_kassa_sandbox"}
    asked = requests.request(
        first.method, stand_in + first.path, headers=headers, data=first.body, timeout=30
    )
    assert asked.status_code == 401
    refused = requests.post(
        f"{stand_in}/v1/refunds",
        data={"colour": "red"},
        headers={"Authorization": f"Bearer {KEY}"},
        timeout=30,
    )
    assert refused.status_code == 400 and "colour" not in refused.text
    assert judge(stand_in, sent)[0] == {
        "post /v1/checkout/sessions: adaptive_pricing",
        "post /v1/payment_intents: allowed_payment_method_types",
    }
