"""SumUp's hosted page, driven as a browser without JavaScript drives it."""

from __future__ import annotations

import re

import pytest
import requests
from sumup import Sumup
from sumup.types import Checkout

from tests.sandbox.conftest import submit
from tests.support.sandbox import Sandbox


def page(checkout: Checkout) -> str:
    assert checkout.hosted_checkout_url
    return str(checkout.hosted_checkout_url)


def seen(checkout: Checkout) -> str:
    return requests.get(page(checkout), timeout=10).text


def state(sdk: Sumup, checkout: Checkout) -> tuple[str | None, list[str | None]]:
    """Its status, and those of its transactions."""
    now = sdk.checkouts.get(str(checkout.id))
    return now.status, [t.status for t in now.transactions or ()]


def test_what_it_shows(checkout: Checkout) -> None:
    text = seen(checkout)
    for shown in ("Kassa Sandbox", "25.00 EUR", "Two seats", "Sandbox: no real money"):
        assert shown in text
    labelled = set(re.findall(r'<label for="(\w+)"', text))
    assert labelled == set(re.findall(r'<input id="(\w+)"', text)) == {"number", "expiry", "cvc", "name"}
    assert set(re.findall(r'name="do" value="(\w+)"', text)) == {"pay", "pay_and_close"}
    # There is no way back but by paying.
    assert "shop.example.org" not in text
    assert "<script" not in text


@pytest.mark.parametrize("number", ["4200 0000 0000 0091", "5555 4444 3333 1111", "4242424242424242"])
def test_paying_shows_a_button_back_and_leads_nowhere(sdk: Sumup, checkout: Checkout, number: str) -> None:
    answer = submit(page(checkout), number=number)
    assert answer.status_code == 303
    assert answer.headers["Location"].endswith(f"/sumup/pay/{checkout.id}")
    text = seen(checkout)
    assert "Payment successful" in text
    assert 'href="https://shop.example.org/back?code=1"' in text
    assert state(sdk, checkout) == ("PAID", ["SUCCESSFUL"])


def test_paying_and_closing_the_tab(sdk: Sumup, checkout: Checkout) -> None:
    answer = submit(page(checkout), do="pay_and_close")
    assert answer.status_code == 200
    assert "The tab is closed" in answer.text
    assert state(sdk, checkout) == ("PAID", ["SUCCESSFUL"])


@pytest.mark.parametrize(
    ("number", "words"),
    [
        ("4000 0000 0000 0002", "The card was declined"),
        ("4000 0000 0000 9995", "not enough money"),
        ("4111 1111 1111 1111", "only the test cards work"),
    ],
)
def test_a_decline_leaves_it_payable(sdk: Sumup, checkout: Checkout, number: str, words: str) -> None:
    answer = submit(page(checkout), number=number)
    assert answer.status_code == 200
    assert words in answer.text
    assert 'aria-invalid="true"' in answer.text
    assert state(sdk, checkout) == ("FAILED", ["FAILED"])
    submit(page(checkout))
    assert state(sdk, checkout) == ("PAID", ["FAILED", "SUCCESSFUL"])


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("number", "1234", "number is incomplete"),
        ("number", "4200 0000 0000 0092", "number is invalid"),
        ("expiry", "13 / 34", "expiration date is incomplete"),
        ("expiry", "01 / 20", "in the past"),
        ("cvc", "", "security code is incomplete"),
    ],
)
def test_what_cannot_be_read_is_no_attempt(
    sdk: Sumup, checkout: Checkout, field: str, value: str, words: str
) -> None:
    assert words in submit(page(checkout), **{field: value}).text
    assert state(sdk, checkout) == ("PENDING", [])


def test_3d_secure(sdk: Sumup, checkout: Checkout) -> None:
    asked = submit(page(checkout), number="4200 0000 0000 0042")
    assert "Complete authentication" in asked.text
    assert state(sdk, checkout) == ("PENDING", ["PENDING"])
    assert submit(page(checkout), do="authenticate").status_code == 303
    assert state(sdk, checkout) == ("PAID", ["SUCCESSFUL"])


def test_3d_secure_that_is_not_passed(sdk: Sumup, checkout: Checkout) -> None:
    submit(page(checkout), number="4200 0000 0000 0042")
    assert "did not confirm" in submit(page(checkout), do="fail_authentication").text
    assert state(sdk, checkout) == ("FAILED", ["FAILED"])
    assert "no payment to confirm" in submit(page(checkout), do="authenticate").text


def test_who_leaves_during_3d_secure(sdk: Sumup, checkout: Checkout) -> None:
    submit(page(checkout), number="4200 0000 0000 0042")
    submit(page(checkout))
    assert state(sdk, checkout) == ("PAID", ["CANCELLED", "SUCCESSFUL"])


def test_it_takes_a_card_for_half_an_hour(box: Sandbox, sdk: Sumup, checkout: Checkout) -> None:
    box.advance(29 * 60)
    assert "Card number" in seen(checkout)
    box.advance(2 * 60)
    assert "timed out" in seen(checkout)
    assert "timed out" in submit(page(checkout)).text
    # The API says nothing of that.
    assert state(sdk, checkout) == ("PENDING", [])


def test_nobody_pays_twice(sdk: Sumup, checkout: Checkout) -> None:
    submit(page(checkout))
    assert "Payment successful" in submit(page(checkout)).text
    assert state(sdk, checkout) == ("PAID", ["SUCCESSFUL"])


def test_a_deactivated_one_cannot_be_paid(sdk: Sumup, checkout: Checkout) -> None:
    sdk.checkouts.deactivate(str(checkout.id))
    assert "timed out" in submit(page(checkout)).text
    assert state(sdk, checkout) == ("EXPIRED", [])


def test_unknown_pages_and_buttons(box: Sandbox, checkout: Checkout) -> None:
    assert requests.get(f"{box.base_url}/sumup/pay/unknown", timeout=10).status_code == 404
    assert submit(page(checkout), do="steal").status_code == 400
