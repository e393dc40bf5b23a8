"""The hosted payment page, driven as a browser without JavaScript drives it."""

from __future__ import annotations

import re

import pytest
import requests
import stripe

from tests.sandbox.conftest import Params, intent_of, submit
from tests.support.sandbox import Sandbox

Client = stripe.StripeClient
Session = stripe.checkout.Session


def state(client: Client, session: Session) -> tuple[str | None, str]:
    now = client.v1.checkout.sessions.retrieve(session.id)
    return now.status, now.payment_status


def url_of(session: Session) -> str:
    assert session.url
    return session.url


def test_what_it_shows(session: Session) -> None:
    text = requests.get(url_of(session), timeout=10).text
    for shown in (
        "Seat × 2",
        "20.00 EUR",
        "Programme",
        "25.00 EUR",
        "buyer@example.org",
        "Sandbox: no real money",
    ):
        assert shown in text
    labelled = set(re.findall(r'<label for="(\w+)"', text))
    assert labelled == set(re.findall(r'<input id="(\w+)"', text)) == {"number", "expiry", "cvc", "name"}
    assert set(re.findall(r'name="do" value="(\w+)"', text)) == {"pay", "pay_later", "pay_and_close"}
    assert f"https://shop.example.org/back?s={session.id}" in text
    assert "<script" not in text


@pytest.mark.parametrize("number", ["4242 4242 4242 4242", "4242424242424242", "5555 4444 3333 1111"])
def test_paying(client: Client, session: Session, number: str) -> None:
    answer = submit(url_of(session), number=number)
    assert answer.status_code == 303
    assert answer.headers["Location"] == f"https://shop.example.org/ok?session_id={session.id}"
    assert state(client, session) == ("complete", "paid")


def test_an_encoded_placeholder_is_filled_in_too(client: Client, params: Params) -> None:
    params["success_url"] = "https://shop.example.org/ok?s=%7BCHECKOUT_SESSION_ID%7D"
    made = client.v1.checkout.sessions.create(params)
    assert submit(url_of(made)).headers["Location"] == f"https://shop.example.org/ok?s={made.id}"


@pytest.mark.parametrize(
    ("number", "words", "code"),
    [
        ("4000000000000002", "Your card was declined.", "generic_decline"),
        ("4000000000009995", "insufficient funds", "insufficient_funds"),
        ("4111111111111111", "only the test cards work here", "test_mode_live_card"),
    ],
)
def test_a_decline_keeps_it_open(
    client: Client, session: Session, number: str, words: str, code: str
) -> None:
    answer = submit(url_of(session), number=number)
    assert answer.status_code == 200 and words in answer.text and 'role="alert"' in answer.text
    assert state(client, session) == ("open", "unpaid")
    declined = client.v1.checkout.sessions.retrieve(session.id, {"expand": ["payment_intent"]})
    intent = intent_of(declined)
    assert intent.last_payment_error
    assert (intent.status, intent.last_payment_error.decline_code) == ("requires_payment_method", code)
    assert submit(url_of(session)).status_code == 303
    assert state(client, session) == ("complete", "paid")
    assert client.v1.checkout.sessions.retrieve(session.id).payment_intent == intent.id


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("number", "", "number is incomplete"),
        ("number", "4242 4242 4242 4241", "number is invalid"),
        ("expiry", "13/30", "expiration date is incomplete"),
        ("expiry", "01/20", "in the past"),
        ("cvc", "1", "security code is incomplete"),
    ],
)
def test_a_form_filled_in_wrongly(
    client: Client, session: Session, field: str, value: str, words: str
) -> None:
    answer = submit(url_of(session), **{field: value})
    assert words in answer.text and "Ada Lovelace" in answer.text
    assert re.search(rf'id="{field}"[^>]*aria-invalid', answer.text)
    assert client.v1.checkout.sessions.retrieve(session.id).payment_intent is None


def test_3d_secure(client: Client, session: Session) -> None:
    asked = submit(url_of(session), number="4000002500003155")
    assert "Complete authentication" in asked.text and state(client, session) == ("open", "unpaid")
    failed = submit(url_of(session), "fail_authentication")
    assert "unable to authenticate" in failed.text and state(client, session) == ("open", "unpaid")
    submit(url_of(session), number="4000002500003155")
    assert submit(url_of(session), "authenticate").status_code == 303
    assert state(client, session) == ("complete", "paid")


def test_authentication_that_nobody_asked_for(client: Client, session: Session) -> None:
    assert "no payment to authenticate" in submit(url_of(session), "authenticate").text
    assert state(client, session) == ("open", "unpaid")


def test_pay_later(box: Sandbox, client: Client, session: Session) -> None:
    assert submit(url_of(session), "pay_later").status_code == 303
    assert state(client, session) == ("complete", "unpaid")
    box.do(session.id, "complete_later")
    assert state(client, session) == ("complete", "paid")


def test_close_the_tab(client: Client, session: Session) -> None:
    answer = submit(url_of(session), "pay_and_close")
    assert answer.status_code == 200 and "shop.example.org/ok" not in answer.text
    assert state(client, session) == ("complete", "paid")


def test_close_the_tab_after_3d_secure(client: Client, session: Session) -> None:
    asked = submit(url_of(session), "pay_and_close", number="4000002500003155")
    assert 'name="close"' in asked.text
    assert submit(url_of(session), "authenticate", close="1").status_code == 200
    assert state(client, session) == ("complete", "paid")


def test_twice(client: Client, session: Session) -> None:
    submit(url_of(session))
    again = submit(url_of(session))
    assert again.status_code == 200 and "You are all done here" in again.text
    assert len(client.v1.charges.list().data) == 1
    assert "You are all done here" in requests.get(url_of(session), timeout=10).text


def test_too_late(box: Sandbox, client: Client, session: Session) -> None:
    box.advance(24 * 3600 + 1)
    assert "timed out" in submit(url_of(session)).text
    assert state(client, session) == ("expired", "unpaid")
    assert client.v1.charges.list().data == []


def test_the_buyer_types_an_email(client: Client, params: Params) -> None:
    del params["customer_email"]
    made = client.v1.checkout.sessions.create(params)
    assert '<label for="email"' in requests.get(url_of(made), timeout=10).text
    submit(url_of(made), email="ada@example.org")
    details = client.v1.checkout.sessions.retrieve(made.id).customer_details
    assert details and (details.email, details.name) == ("ada@example.org", "Ada Lovelace")


def test_the_disputed_card(client: Client, session: Session) -> None:
    submit(url_of(session), number="4000000000000259")
    assert state(client, session) == ("complete", "paid")
    [dispute] = client.v1.disputes.list().data
    assert (dispute.status, dispute.amount) == ("needs_response", 2500)


def test_a_button_that_is_not_there_and_a_checkout_that_is_not(box: Sandbox, session: Session) -> None:
    assert submit(url_of(session), "steal").status_code == 400
    assert requests.get(f"{box.base_url}/stripe/pay/cs_test_none", timeout=10).status_code == 404
