"""Idempotency keys: the first answer again, refusals, faults in between."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
import stripe

from tests.sandbox.conftest import Params
from tests.support.sandbox import Sandbox

Create = Callable[..., stripe.checkout.Session]
KEY: Any = {"idempotency_key": "key-1"}


@pytest.fixture
def create(client: stripe.StripeClient, params: Params) -> Create:
    """Creates a session under key-1."""

    def under_key(**changes: Any) -> stripe.checkout.Session:
        wanted: Params = {**params, **changes}
        return client.v1.checkout.sessions.create(wanted, KEY)

    return under_key


@pytest.fixture
def impatient(box: Sandbox, params: Params) -> Create:
    """Creates a session under key-1 with a client that waits a second and does not try again."""
    client = stripe.StripeClient(
        "sk_test_kassa_sandbox",
        base_addresses={"api": f"{box.base_url}/stripe"},
        http_client=stripe.RequestsClient(timeout=1),
    )
    return lambda: client.v1.checkout.sessions.create(params, KEY)


def count(client: stripe.StripeClient) -> int:
    return len(client.v1.checkout.sessions.list({"limit": 100}).data)


def test_the_same_answer_again(client: stripe.StripeClient, create: Create) -> None:
    first, second = create(), create()
    assert (first.id, first.url) == (second.id, second.url)
    assert first.last_response and second.last_response
    assert "Idempotent-Replayed" not in first.last_response.headers
    assert second.last_response.headers["Idempotent-Replayed"] == "true"
    assert count(client) == 1


def test_other_parameters_or_another_path(client: stripe.StripeClient, create: Create) -> None:
    made = create()
    with pytest.raises(stripe.IdempotencyError):
        create(client_reference_id="order-2")
    with pytest.raises(stripe.IdempotencyError):
        client.v1.checkout.sessions.expire(made.id, options=KEY)
    assert client.v1.checkout.sessions.retrieve(made.id).status == "open"


def test_refusals_are_kept_but_not_of_ill_formed_requests(
    client: stripe.StripeClient, create: Create
) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        create(colour="red")
    made = create()
    refund: Any = {"idempotency_key": "key-2"}
    for _ in range(2):
        with pytest.raises(stripe.InvalidRequestError, match="No such payment_intent"):
            client.v1.refunds.create({"payment_intent": "pi_none"}, refund)
    with pytest.raises(stripe.IdempotencyError):
        client.v1.refunds.create({"payment_intent": made.id}, refund)


def test_a_key_is_forgotten_after_a_day(box: Sandbox, client: stripe.StripeClient, create: Create) -> None:
    first = create()
    box.advance(23 * 3600)
    assert create().id == first.id
    box.advance(2 * 3600)
    assert create().id != first.id


def test_a_key_that_is_too_long(client: stripe.StripeClient, params: Params) -> None:
    with pytest.raises(stripe.IdempotencyError):
        client.v1.checkout.sessions.create(params, {"idempotency_key": "k" * 256})


def test_side_by_side(box: Sandbox, client: stripe.StripeClient, create: Create) -> None:
    box.faults("slow", seconds=1, times=1)

    def attempt(number: int) -> str:
        try:
            return create().id
        except stripe.APIError as error:
            assert error.http_status == 409
            return "409"

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(attempt, range(4)))
    assert outcomes.count("409") == 3 and count(client) == 1


def test_before_the_work(box: Sandbox, client: stripe.StripeClient, impatient: Create) -> None:
    box.faults("timeout_before", times=1, seconds=2)
    with pytest.raises(stripe.APIConnectionError):
        impatient()
    assert count(client) == 0
    assert impatient().status == "open"
    assert count(client) == 1


def test_after_the_work(box: Sandbox, client: stripe.StripeClient, impatient: Create) -> None:
    box.faults("timeout_after", times=1, seconds=2)
    with pytest.raises(stripe.APIConnectionError):
        impatient()
    assert count(client) == 1
    made = impatient()
    assert made.last_response and made.last_response.headers["Idempotent-Replayed"] == "true"
    assert count(client) == 1


def test_the_connection_is_dropped_at_last(box: Sandbox) -> None:
    box.faults("timeout_before", seconds=0.2)
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{box.base_url}/stripe/v1/account", timeout=10)


@pytest.mark.parametrize(
    ("rule", "worked", "kept"),
    [({}, 0, False), ({"stored": True}, 0, True), ({"after": True}, 1, True)],
    ids=["in front", "inside", "after the work"],
)
def test_a_500(
    box: Sandbox, client: stripe.StripeClient, create: Create, rule: dict[str, Any], worked: int, kept: bool
) -> None:
    box.faults("http_500", match={"method": "POST"}, times=1, **rule)
    with pytest.raises(stripe.APIError) as failed:
        create()
    assert failed.value.http_status == 500
    assert count(client) == worked
    if kept:
        with pytest.raises(stripe.APIError):
            create()
    else:
        assert create().status == "open"
    assert count(client) == (worked if kept else 1)


def test_a_client_that_tries_again_has_one_session(box: Sandbox, params: Params) -> None:
    client = stripe.StripeClient(
        "sk_test_kassa_sandbox",
        base_addresses={"api": f"{box.base_url}/stripe"},
        http_client=stripe.RequestsClient(timeout=1),
        max_network_retries=2,
    )
    box.faults("timeout_after", times=1, seconds=1.5, match={"method": "POST", "path": "/v1/checkout"})
    made = client.v1.checkout.sessions.create(params)
    assert [s.id for s in client.v1.checkout.sessions.list().data] == [made.id]
