"""PaymentIntents without a session: opened by the API, confirmed as Stripe.js does, with a wallet's card."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
import stripe

from tests.sandbox.shape import faults_of
from tests.sandbox.test_shapes import assert_all_fit, raw
from tests.support.sandbox import Sandbox

BACK = "https://shop.example.org/back?order=1"
KEY = "pk_test_kassa_sandbox"


@pytest.fixture
def intent(client: stripe.StripeClient) -> stripe.PaymentIntent:
    """An open intent of 25.00 EUR that only a card may pay."""
    return client.v1.payment_intents.create(
        {
            "amount": 2500,
            "currency": "eur",
            "allowed_payment_method_types": ["card"],
            "metadata": {"reference": "P-1"},
        }
    )


def confirm(box: Sandbox, intent: stripe.PaymentIntent, **changes: str) -> requests.Response:
    """As the stand-in script does: with what a browser knows, and no key of ours."""
    fields = {
        "key": KEY,
        "client_secret": str(intent.client_secret),
        "wallet": "apple_pay",
        "card": "4242424242424242",
        "return_url": BACK,
    }
    path = f"{box.base_url}/stripe/js/payment_intents/{intent.id}/confirm"
    return requests.post(path, data=fields | changes, timeout=30)


def returned(answer: requests.Response | str) -> dict[str, list[str]]:
    """What the address says that the buyer is led back to."""
    address = answer if isinstance(answer, str) else answer.json()["redirect"]
    assert address.startswith(BACK)
    return parse_qs(urlsplit(address).query)


def charge_of(client: stripe.StripeClient, intent_id: str) -> Any:
    now = client.v1.payment_intents.retrieve(intent_id, {"expand": ["latest_charge"]})
    return now.latest_charge


@pytest.mark.parametrize("wallet", ["apple_pay", "google_pay"])
def test_a_browser_pays_by_its_wallet(
    box: Sandbox, client: stripe.StripeClient, intent: stripe.PaymentIntent, wallet: str
) -> None:
    assert (intent.status, intent.payment_method_types) == ("requires_payment_method", ["card"])
    answer = confirm(box, intent, wallet=wallet)
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert returned(answer) == {
        "order": ["1"],
        "payment_intent": [intent.id],
        "payment_intent_client_secret": [intent.client_secret],
        "redirect_status": ["succeeded"],
    }
    charge = charge_of(client, intent.id)
    assert charge.payment_method_details.card.wallet.type == wallet
    assert (charge.paid, charge.metadata["reference"]) == (True, "P-1")
    assert_all_fit(box)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"key": "sk_test_kassa_sandbox"}, 401),
        ({"key": ""}, 401),
        ({"client_secret": "pi_1_secret_1"}, 404),
        ({"wallet": "purse"}, 400),
        ({"return_url": "javascript:alert(1)"}, 400),
    ],
)
def test_who_does_not_know_enough_pays_nothing(
    box: Sandbox, intent: stripe.PaymentIntent, changes: dict[str, str], status: int
) -> None:
    assert confirm(box, intent, **changes).status_code == status
    assert box.get(f"payments/{intent.id}")["status"] == "open"


def test_a_refused_card_says_why_and_may_be_followed_by_another(
    box: Sandbox, client: stripe.StripeClient, intent: stripe.PaymentIntent
) -> None:
    refused = confirm(box, intent, card="4000000000000002")
    assert (refused.status_code, refused.json()["error"]["type"]) == (402, "card_error")
    now = client.v1.payment_intents.retrieve(intent.id)
    assert now.status == "requires_payment_method" and now.last_payment_error
    assert returned(confirm(box, intent))["redirect_status"] == ["succeeded"]
    assert confirm(box, intent).status_code == 400


@pytest.mark.parametrize("passed", [True, False])
def test_a_bank_that_asks(
    box: Sandbox, client: stripe.StripeClient, intent: stripe.PaymentIntent, passed: bool
) -> None:
    page = confirm(box, intent, card="4000002500003155").json()["redirect"]
    assert page == f"{box.base_url}/stripe/hooks/{intent.id}"
    assert client.v1.payment_intents.retrieve(intent.id).status == "requires_action"
    assert "payment_intent.requires_action" in assert_all_fit(box)
    assert "25.00" in requests.get(page, timeout=30).text
    do = "authenticate" if passed else "fail_authentication"
    led = requests.post(page, data={"do": do}, timeout=30, allow_redirects=False)
    told = returned(led.headers["Location"])["redirect_status"]
    assert told == (["succeeded"] if passed else ["failed"])
    assert box.get(f"payments/{intent.id}")["status"] == ("paid" if passed else "open")
    assert requests.get(page, timeout=30).status_code == 404


def test_a_slow_bank_is_waited_for(
    box: Sandbox, client: stripe.StripeClient, intent: stripe.PaymentIntent
) -> None:
    box.do(intent.id, "pay_later")
    assert client.v1.payment_intents.retrieve(intent.id).status == "processing"
    with pytest.raises(stripe.InvalidRequestError, match="still processing"):
        client.v1.payment_intents.cancel(intent.id)
    box.do(intent.id, "complete_later")
    assert charge_of(client, intent.id).payment_method_details.type == "card"
    assert_all_fit(box)


def test_control_pays_in_a_wallet_or_not(box: Sandbox, client: stripe.StripeClient) -> None:
    one, two = (client.v1.payment_intents.create({"amount": 900, "currency": "eur"}).id for _ in range(2))
    assert box.do(one, "pay", wallet="google_pay")["status"] == "paid"
    assert charge_of(client, one).payment_method_details.card.wallet.type == "google_pay"
    with pytest.raises(AssertionError, match="answered 400"):
        box.do(two, "pay", wallet="purse")
    assert box.do(two, "pay", wallet="none")["status"] == "paid"
    assert charge_of(client, two).payment_method_details.card.wallet is None
    with pytest.raises(AssertionError, match="answered 409"):
        box.do(two, "pay")


def test_an_intent_ends_and_fate_may_pay_it_all_the_same(
    box: Sandbox, client: stripe.StripeClient, intent: stripe.PaymentIntent
) -> None:
    box.do(intent.id, "expire")
    ended = client.v1.payment_intents.retrieve(intent.id)
    assert (ended.status, ended.cancellation_reason) == ("canceled", "automatic")
    assert box.do(intent.id, "pay", force=True)["status"] == "paid"


def test_lists_and_parameters(client: stripe.StripeClient, intent: stripe.PaymentIntent) -> None:
    other = client.v1.payment_intents.create({"amount": 900, "currency": "eur"})
    listed = client.v1.payment_intents.list({"limit": 1})
    assert [one.id for one in listed.data] == [other.id] and listed.has_more
    rest = client.v1.payment_intents.list({"starting_after": other.id, "created": {"gte": intent.created}})
    assert [one.id for one in rest.data] == [intent.id]
    least: dict[str, Any] = {"amount": 900, "currency": "eur"}
    wrongs: list[Any] = [
        {**least, "allowed_payment_method_types": ["blik"]},
        {**least, "description": "x" * 1001},
    ]
    for wrong in wrongs:
        with pytest.raises(stripe.InvalidRequestError):
            client.v1.payment_intents.create(wrong)


def test_the_script_and_its_button(box: Sandbox) -> None:
    script = requests.get(f"{box.base_url}/stripe/js/stripe.js", timeout=30)
    assert script.headers["Content-Type"].startswith("text/javascript")
    assert f'"{box.base_url}"' in script.text and "{{" not in script.text
    button = requests.get(f"{box.base_url}/stripe/js/button?wallet=google_pay&wallet=purse", timeout=30)
    assert "Pay with Google Pay" in button.text and "Apple Pay" not in button.text


def test_domains(box: Sandbox, client: stripe.StripeClient) -> None:
    domains = client.v1.payment_method_domains
    made = domains.create({"domain_name": "pay.example.org"})
    assert domains.create({"domain_name": "pay.example.org"}).id == made.id
    domains.create({"domain_name": "kassa.invalid"})
    for body in raw(box, "payment_method_domains")["data"]:
        assert faults_of(body, stripe.PaymentMethodDomain) == []
    [found] = domains.list({"domain_name": "kassa.invalid"}).data
    assert found.apple_pay.status == domains.validate(found.id).apple_pay.status == "inactive"
    assert domains.update(made.id, {"enabled": False}).enabled is False
    assert [one.id for one in domains.list({"enabled": False}).data] == [made.id]
    for wrong in ("localhost", "127.0.0.1", "https://pay.example.org", "a_b.example.org"):
        with pytest.raises(stripe.InvalidRequestError):
            domains.create({"domain_name": wrong})
