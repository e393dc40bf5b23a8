"""/control for SumUp: payments, what is done to them, merchants, settings, faults, notifications."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import requests
import stripe
from sumup import Sumup
from sumup.errors import InternalServerError, RateLimitError
from sumup.types import Checkout

from tests.sandbox.conftest import PLATFORM, Params, Receiver, sumup_client
from tests.support.sandbox import Sandbox


def refused(box: Sandbox, checkout: Checkout, **body: Any) -> tuple[int, str]:
    """What /control answers to what cannot be done."""
    answer = requests.post(f"{box.base_url}/control/payments/{checkout.id}", json=body, timeout=10)
    return answer.status_code, answer.json()["error"]


# --- payments


def test_payments_of_all_providers(
    box: Sandbox, sdk: Sumup, client: stripe.StripeClient, params: Params, wanted: dict[str, Any]
) -> None:
    first = client.v1.checkout.sessions.create(params)
    box.advance(10)
    second = sdk.checkouts.create(**wanted)
    box.advance(10)
    third = client.v1.checkout.sessions.create(params)
    listed = box.get("payments")
    assert [payment["id"] for payment in listed] == [third.id, second.id, first.id]
    shown = listed[1]
    assert {
        "id": second.id,
        "provider": "sumup",
        "status": "open",
        "amount_minor": 2500,
        "currency": "EUR",
        "reference": "attempt-1",
        "hosted_url": second.hosted_checkout_url,
        "success_url": "https://shop.example.org/back?code=1",
        "cancel_url": None,
        "account": PLATFORM,
    }.items() <= shown.items()
    assert box.get(f"payments/{second.id}") == shown
    page = requests.get(f"{box.base_url}/control", timeout=10).text
    assert "attempt-1" in page
    assert requests.get(f"{box.base_url}/", timeout=10).ok


def test_payments_of_the_same_second_are_in_their_order(
    box: Sandbox, sdk: Sumup, client: stripe.StripeClient, params: Params, wanted: dict[str, Any]
) -> None:
    # Stripe tells whole seconds, and SumUp more: each order of the two comes up, within one second or two.
    made = []
    for number in range(6):
        if number % 2:
            made.append(sdk.checkouts.create(**(wanted | {"checkout_reference": f"attempt-{number}"})).id)
        else:
            made.append(client.v1.checkout.sessions.create(params).id)
    assert [payment["id"] for payment in box.get("payments")] == made[::-1]


def test_how_a_payment_goes(box: Sandbox, checkout: Checkout) -> None:
    name = str(checkout.id)
    assert box.do(name, "cancel")["status"] == "open"
    assert box.do(name, "decline")["status"] == "failed"
    paid = box.do(name, "pay")
    assert (paid["status"], paid["refunded_minor"]) == ("paid", 0)
    assert paid["transaction"]
    assert box.do(name, "refund", amount_minor=1000)["refunded_minor"] == 1000
    assert box.do(name, "refund_fail")["refunded_minor"] == 0
    assert box.do(name, "refund")["refunded_minor"] == 2500


def test_expiring(box: Sandbox, checkout: Checkout) -> None:
    assert box.do(str(checkout.id), "expire")["status"] == "expired"
    assert refused(box, checkout, do="pay")[0] == 409
    assert box.do(str(checkout.id), "pay", force=True)["status"] == "paid"


def test_a_card_of_one_s_choice(box: Sandbox, checkout: Checkout) -> None:
    status, words = refused(box, checkout, do="pay", card="4000000000009995")
    assert (status, "not enough money" in words) == (409, True)
    assert box.do(str(checkout.id), "pay", card="4200000000000042")["status"] == "paid"


@pytest.mark.parametrize("do", ["pay_later", "complete_later", "fail_later"])
def test_what_sumup_lacks_is_said(box: Sandbox, checkout: Checkout, do: str) -> None:
    status, words = refused(box, checkout, do=do)
    assert (status, "SumUp has no" in words) == (409, True)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"do": "dance"}, 400),
        ({}, 400),
        ({"do": "pay", "colour": "red"}, 400),
        ({"do": "refund"}, 409),
        ({"do": "refund_fail"}, 409),
        ({"do": "dispute"}, 409),
        ({"do": "tamper"}, 400),
        ({"do": "tamper", "set": {"amount_minor": "1"}}, 400),
        ({"do": "tamper", "set": {"noise": 1}}, 400),
        ({"do": "tamper", "set": {"livemode": True}}, 409),
    ],
)
def test_what_cannot_be_done(box: Sandbox, checkout: Checkout, body: dict[str, Any], status: int) -> None:
    assert refused(box, checkout, **body)[0] == status


def test_more_than_there_is_cannot_be_refunded(box: Sandbox, checkout: Checkout) -> None:
    box.do(str(checkout.id), "pay")
    assert refused(box, checkout, do="refund", amount_minor=2501)[0] == 409
    assert refused(box, checkout, do="refund", amount_minor=0)[0] == 400


@pytest.mark.parametrize(("end", "status"), [("dispute_lost", "SUCCESSFUL"), ("dispute_won", "FAILED")])
def test_a_chargeback(box: Sandbox, sdk: Sumup, checkout: Checkout, end: str, status: str) -> None:
    box.do(str(checkout.id), "pay")
    box.do(str(checkout.id), "dispute", amount_minor=900)
    assert refused(box, checkout, do="refund")[0] == 409
    box.do(str(checkout.id), end)
    name = str(sdk.checkouts.get(str(checkout.id)).transaction_id)
    charged = sdk.transactions.get(PLATFORM, id=name)
    back = [(e.status, e.amount) for e in charged.events or () if e.type == "CHARGE_BACK"]
    assert back == [(status, 9.0)]
    assert charged.simple_status == ("CHARGEBACK" if end == "dispute_lost" else "SUCCESSFUL")


def test_tampering(box: Sandbox, sdk: Sumup, checkout: Checkout) -> None:
    box.do(str(checkout.id), "pay")
    changes = {"amount_minor": 2499, "currency": "gbp", "reference": "else", "account": "MHARBOUR"}
    box.do(str(checkout.id), "tamper", set=changes)
    read = sdk.checkouts.get(str(checkout.id))
    assert (read.amount, read.currency, read.checkout_reference) == (24.99, "GBP", "else")
    assert read.merchant_code == "MHARBOUR"
    (charged,) = read.transactions or []
    assert (charged.amount, charged.currency, charged.merchant_code) == (24.99, "GBP", "MHARBOUR")


def test_amounts_with_a_float_s_noise(box: Sandbox, sdk: Sumup, wanted: dict[str, Any]) -> None:
    made = sdk.checkouts.create(**wanted | {"amount": 0.3})
    box.do(str(made.id), "pay")
    box.do(str(made.id), "tamper", set={"noise": True})
    read = sdk.checkouts.get(str(made.id))
    assert read.amount == 0.1 + 0.2 != 0.3
    assert [t.amount for t in read.transactions or ()] == [0.1 + 0.2]


# --- merchants and settings


def test_merchants(box: Sandbox) -> None:
    listed = box.get("merchants")
    assert (len(listed), listed[0]["code"], listed[0]["platform"]) == (12, PLATFORM, True)
    added = box.post("merchants", {"count": 50})
    assert len({merchant["code"] for merchant in added}) == 50
    assert len(box.get("merchants")) == 62
    with sumup_client(box, added[49]["access_token"]) as sdk:
        assert sdk.merchants.get(added[49]["code"]).merchant_code == added[49]["code"]
    (named,) = box.post(
        "merchants", {"code": "MVIENNA1", "name": "Vienna", "currency": "EUR", "country": "AT"}
    )
    assert (named["name"], named["country"]) == ("Vienna", "AT")
    box.reset()
    assert len(box.get("merchants")) == 12


def test_a_connected_account_outlives_a_reset(box: Sandbox) -> None:
    token = box.post("merchants/MPIERNIN", {"do": "token"})["access_token"]
    box.reset()
    with sumup_client(box, token) as sdk:
        assert sdk.merchants.get("MPIERNIN").merchant_code == "MPIERNIN"
    box.post("merchants/MPIERNIN", {"do": "revoke"})


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("merchants", {"count": 0}, 400),
        ("merchants", {"currency": "KZT"}, 400),
        ("merchants", {"code": "x"}, 400),
        ("merchants", {"colour": "red"}, 400),
        ("merchants", {"code": "MHARBOUR"}, 409),
        ("merchants/MNOBODY1", {"do": "token"}, 404),
        ("merchants/MHARBOUR", {"do": "dance"}, 400),
        ("settings", {"sumup": {"refund_status": 200}}, 400),
        ("settings", {"sumup": {"colour": "red"}}, 400),
        ("settings", {"sumup": []}, 400),
        ("settings", {}, 400),
    ],
)
def test_what_makes_no_sense(box: Sandbox, path: str, body: dict[str, Any], status: int) -> None:
    assert requests.post(f"{box.base_url}/control/{path}", json=body, timeout=10).status_code == status


def test_settings(box: Sandbox) -> None:
    shown = box.get("settings")["sumup"]
    assert shown["api_base"] == f"{box.base_url}/sumup"
    assert (shown["api_key"], shown["merchant_code"]) == ("sup_sk_kassa_sandbox", PLATFORM)
    assert all("kassa_sandbox" in shown[name] for name in ("api_key", "client_id", "client_secret"))
    changed = box.post("settings", {"sumup": {"rotate_refresh": False, "refund_status": 204}})["sumup"][
        "options"
    ]
    assert (changed["rotate_refresh"], changed["refund_status"]) == (False, 204)
    box.reset()
    assert box.get("settings")["sumup"]["options"]["rotate_refresh"] is True


# --- faults


def test_faults(box: Sandbox, sdk: Sumup, wanted: dict[str, Any]) -> None:
    box.faults("http_500", match={"path": "/sumup/"}, times=1)
    with pytest.raises(InternalServerError):
        sdk.checkouts.create(**wanted)
    assert sdk.checkouts.list(checkout_reference="attempt-1") == []
    box.faults("http_429", times=1)
    with pytest.raises(RateLimitError):
        sdk.checkouts.create(**wanted)
    box.faults("http_500", times=1, after=True)
    with pytest.raises(InternalServerError):
        sdk.checkouts.create(**wanted)
    # It was made, and its answer lost.
    assert len(sdk.checkouts.list(checkout_reference="attempt-1")) == 1
    calls = [(call["method"], call["path"], call["status"], call["fault"]) for call in box.calls()]
    assert calls[0] == ("POST", "/sumup/v0.1/checkouts", 500, "http_500")
    assert {call["provider"] for call in box.calls()} == {"sumup"}


# --- notifications


def bells(receiver: Receiver, sdk: Sumup, wanted: dict[str, Any]) -> Checkout:
    return sdk.checkouts.create(**wanted, return_url=receiver.url)


def test_notifications(box: Sandbox, receiver: Receiver, sdk: Sumup, wanted: dict[str, Any]) -> None:
    made = bells(receiver, sdk, wanted)
    box.do(str(made.id), "decline")
    box.do(str(made.id), "decline")
    box.do(str(made.id), "pay")
    events = receiver.wait_for(2)
    # The second decline changed no status.
    assert events == [{"event_type": "CHECKOUT_STATUS_CHANGED", "id": made.id}] * 2
    body, signature = receiver.got[0]
    assert json.loads(body) == events[0]
    assert not signature
    # One is delivered when its answer is back, which is a moment after it arrived.
    ends = time.monotonic() + 15
    while (states := {sent["state"] for sent in box.get("webhooks")}) != {"delivered"}:
        assert time.monotonic() < ends, states
        time.sleep(0.05)


@pytest.mark.parametrize("status", [200, 202, 204])
def test_any_2xx_ends_them(
    box: Sandbox, receiver: Receiver, sdk: Sumup, wanted: dict[str, Any], status: int
) -> None:
    receiver.statuses.append(status)
    sdk.checkouts.deactivate(str(bells(receiver, sdk, wanted).id))
    receiver.wait_for(1)
    box.advance(24 * 3600)
    assert len(receiver.got) == 1


def test_they_are_tried_again(box: Sandbox, receiver: Receiver, sdk: Sumup, wanted: dict[str, Any]) -> None:
    receiver.statuses += [500, 503, 404, 301, 500]
    box.do(str(bells(receiver, sdk, wanted).id), "pay")
    for count, pause in enumerate((60, 300, 1200, 7200), start=1):
        receiver.wait_for(count)
        waiting(box, count)
        box.advance(pause + 1)
    receiver.wait_for(5)
    assert waiting(box, 5)["state"] == "failed"
    # A person may ask for one more.
    (sent,) = box.get("webhooks")
    assert box.post(f"webhooks/{sent['id']}")["state"] == "delivered"


def waiting(box: Sandbox, attempts: int) -> dict[str, Any]:
    """The one notification, once that many attempts are noted."""
    for _ in range(200):
        (sent,) = box.get("webhooks")
        if sent["attempts"] >= attempts:
            found: dict[str, Any] = sent
            return found
    raise AssertionError(f"{attempts} attempts were not made")


@pytest.mark.parametrize(("kind", "count"), [("webhook_lost", 0), ("webhook_twice", 2)])
def test_faults_of_notifications(
    box: Sandbox, receiver: Receiver, sdk: Sumup, wanted: dict[str, Any], kind: str, count: int
) -> None:
    made = bells(receiver, sdk, wanted)
    box.faults(kind, times=1)
    box.do(str(made.id), "pay")
    receiver.wait_for(count)
    box.faults()
    # One that follows shows that nothing of the first is left to come.
    box.do(str(bells(receiver, sdk, wanted | {"checkout_reference": "next"}).id), "pay")
    receiver.wait_for(count + 1)
    assert [event["id"] for event in receiver.events()].count(made.id) == count


def test_an_end_that_time_brings_rings_too(
    box: Sandbox, receiver: Receiver, sdk: Sumup, wanted: dict[str, Any]
) -> None:
    made = sdk.checkouts.create(**wanted, return_url=receiver.url, valid_until="2099-01-01T00:00:00Z")
    box.advance(100 * 365 * 24 * 3600)
    receiver.wait_for(1)
    assert sdk.checkouts.get(str(made.id)).status == "EXPIRED"
