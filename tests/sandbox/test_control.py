"""/control: a person in the dashboard, and fate."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import requests
import stripe

from tests.sandbox.conftest import Params, charge_of, intent_of
from tests.support.sandbox import Sandbox

Client = stripe.StripeClient
Session = stripe.checkout.Session
Pay = Callable[..., Session]


def refused(box: Sandbox, path: str, body: Any) -> tuple[int, str]:
    answer = requests.post(f"{box.base_url}/control/{path}", json=body, timeout=10)
    return answer.status_code, answer.json()["error"]


def test_payments(box: Sandbox, client: Client, session: Session, params: Params) -> None:
    newer = client.v1.checkout.sessions.create(params)
    listed = box.get("payments")
    assert [payment["id"] for payment in listed] == [newer.id, session.id]
    shown = listed[1]
    assert (shown["provider"], shown["status"]) == ("stripe", "open")
    assert (shown["amount_minor"], shown["currency"], shown["reference"]) == (2500, "EUR", "order-1")
    assert shown["hosted_url"] == session.url
    assert shown["success_url"] == f"https://shop.example.org/ok?session_id={session.id}"
    assert shown["cancel_url"] == f"https://shop.example.org/back?s={session.id}"
    assert len(box.get("payments", limit=1)) == 1
    assert box.get(f"payments/{session.id}") == shown


def test_the_life_of_a_payment(box: Sandbox, session: Session) -> None:
    for do, status in (
        ("decline", "open"),
        ("cancel", "open"),
        ("pay_later", "processing"),
        ("complete_later", "paid"),
    ):
        assert box.do(session.id, do)["status"] == status
    assert box.do(session.id, "refund", amount_minor=500)["refunded_minor"] == 500
    assert box.do(session.id, "refund")["refunded_minor"] == 2500
    assert box.do(session.id, "refund_fail")["refunded_minor"] == 500
    assert box.do(session.id, "dispute")["dispute"].startswith("du_")
    assert box.do(session.id, "dispute_lost")["status"] == "paid"


@pytest.mark.parametrize(("after", "status"), [("fail_later", "failed"), ("cancel", "cancelled")])
def test_a_debit_that_comes_to_nothing(
    box: Sandbox, client: Client, session: Session, after: str, status: str
) -> None:
    box.do(session.id, "pay_later")
    assert box.do(session.id, after)["status"] == status
    now = client.v1.checkout.sessions.retrieve(session.id)
    assert (now.status, now.payment_status) == ("complete", "unpaid")
    assert client.v1.events.list().data[0].type in (
        "checkout.session.async_payment_failed", "payment_intent.canceled"
    )  # fmt: skip


def test_what_cannot_be_done(box: Sandbox, session: Session) -> None:
    for do in ("complete_later", "refund", "refund_fail", "dispute", "dispute_won"):
        assert refused(box, f"payments/{session.id}", {"do": do})[0] == 409
    box.do(session.id, "expire")
    for do in ("pay", "decline", "pay_later", "expire", "cancel"):
        status, words = refused(box, f"payments/{session.id}", {"do": do})
        assert status == 409 and "expired" in words
    assert refused(box, f"payments/{session.id}", {"do": "steal"})[0] == 400
    assert refused(box, f"payments/{session.id}", {"do": "pay", "amount_minor": 3})[0] == 400
    assert refused(box, f"payments/{session.id}", [])[0] == 400
    assert refused(box, "payments/cs_test_none", {"do": "pay"})[0] == 404
    assert refused(box, "payments/what", {"do": "pay"})[0] == 404
    assert requests.get(f"{box.base_url}/control/nothing", timeout=10).status_code == 404


def test_no_other_site_presses_the_buttons(box: Sandbox, session: Session) -> None:
    url = f"{box.base_url}/control/payments/{session.id}"
    foreign = requests.post(url, json={"do": "pay"}, headers={"Origin": "https://evil.example"}, timeout=10)
    assert foreign.status_code == 403 and "another site" in foreign.json()["error"]
    own = requests.post(url, json={"do": "pay"}, headers={"Origin": box.base_url}, timeout=10)
    assert own.json()["status"] == "paid"


def test_late_money(box: Sandbox, client: Client, session: Session) -> None:
    """What a race at the provider can do, on request: an expired session is paid after all."""
    box.do(session.id, "decline")
    box.do(session.id, "expire")
    assert box.do(session.id, "pay", force=True)["status"] == "paid"
    now = client.v1.checkout.sessions.retrieve(session.id, {"expand": ["payment_intent"]})
    assert now.payment_status == "paid" and intent_of(now).amount_received == 2500


def test_too_much_back(box: Sandbox, session: Session) -> None:
    box.do(session.id, "pay")
    status, words = refused(box, f"payments/{session.id}", {"do": "refund", "amount_minor": 2501})
    assert status == 409 and "greater than unrefunded" in words
    assert refused(box, f"payments/{session.id}", {"do": "refund", "amount_minor": "5"})[0] == 400


def test_tampering(box: Sandbox, client: Client, pay: Pay) -> None:
    paid = pay()
    changes = {
        "amount_minor": 1,
        "currency": "USD",
        "reference": "order-2",
        "account": "acct_x",
        "livemode": True,
    }
    box.do(paid.id, "tamper", set=changes)
    now = client.v1.checkout.sessions.retrieve(paid.id, {"expand": ["payment_intent.latest_charge"]})
    assert (now.amount_total, now.currency, now.client_reference_id) == (1, "usd", "order-2")
    assert now.livemode is True and now.metadata and now.metadata["order"] == "order-2"
    intent, charge = intent_of(now), charge_of(now)
    assert (intent.amount_received, intent.on_behalf_of, intent.metadata["order"]) == (1, "acct_x", "order-2")
    assert (charge.amount, charge.currency) == (1, "usd")
    assert refused(box, f"payments/{paid.id}", {"do": "tamper", "set": {"amount_minor": "1"}})[0] == 400
    assert refused(box, f"payments/{paid.id}", {"do": "tamper", "set": {"status": "open"}})[0] == 400


def test_an_account_that_was_changed_before_the_payment(
    box: Sandbox, client: Client, session: Session
) -> None:
    box.do(session.id, "tamper", set={"account": "acct_x"})
    box.do(session.id, "pay")
    paid = client.v1.checkout.sessions.retrieve(session.id, {"expand": ["payment_intent.latest_charge"]})
    assert (intent_of(paid).on_behalf_of, charge_of(paid).on_behalf_of) == ("acct_x", "acct_x")


def test_refunds(box: Sandbox, client: Client, pay: Pay) -> None:
    intent = intent_of(pay())
    first = client.v1.refunds.create(
        {"payment_intent": intent.id, "amount": 1000, "metadata": {"ours": "r-1"}}
    )
    assert (first.status, first.amount) == ("succeeded", 1000)
    assert first.metadata and first.metadata["ours"] == "r-1"
    with pytest.raises(stripe.InvalidRequestError, match="greater than unrefunded"):
        client.v1.refunds.create({"payment_intent": intent.id, "amount": 1501})
    second = client.v1.refunds.create({"payment_intent": intent.id})
    assert second.amount == 1500
    with pytest.raises(stripe.InvalidRequestError) as again:
        client.v1.refunds.create({"payment_intent": intent.id})
    assert again.value.code == "charge_already_refunded"
    listed = client.v1.refunds.list({"payment_intent": intent.id}).data
    assert [refund.id for refund in listed] == [second.id, first.id]
    charge = client.v1.charges.retrieve(str(first.charge))
    assert (charge.amount_refunded, charge.refunded) == (2500, True)


@pytest.mark.parametrize(
    ("number", "at_once", "later"),
    [("4000000000007726", "pending", "succeeded"), ("4000000000005126", "succeeded", "failed")],
)
def test_slow_refunds(box: Sandbox, client: Client, pay: Pay, number: str, at_once: str, later: str) -> None:
    intent = intent_of(pay(number))
    refund = client.v1.refunds.create({"payment_intent": intent.id, "amount": 500})
    assert refund.status == at_once
    box.advance(61)
    assert client.v1.refunds.retrieve(refund.id).status == later
    charge = client.v1.charges.retrieve(str(refund.charge))
    assert charge.amount_refunded == (0 if later == "failed" else 500)


def test_no_refund_of_what_the_bank_took(box: Sandbox, client: Client, pay: Pay) -> None:
    paid = pay()
    box.do(paid.id, "dispute", amount_minor=1000)
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.v1.refunds.create({"payment_intent": intent_of(paid).id})
    assert refusal.value.code == "charge_disputed"
    box.do(paid.id, "dispute_won")
    assert client.v1.refunds.create({"payment_intent": intent_of(paid).id}).amount == 2500


def test_faults_are_seeded(box: Sandbox) -> None:
    def statuses() -> list[int]:
        box.faults("http_500", "http_429", rate=0.5, seed=7)
        key = ("sk_test_kassa_sandbox", "")
        return [
            requests.get(f"{box.base_url}/stripe/v1/account", auth=key, timeout=9).status_code
            for _ in range(20)
        ]

    first = statuses()
    assert set(first) == {200, 429, 500} and statuses() == first
    assert sum(box.get("faults")["injected"].values()) == sum(status != 200 for status in first)


def test_faults_match_and_end(box: Sandbox, client: Client, session: Session) -> None:
    box.faults("http_429", match={"method": "GET", "path": "/v1/checkout/sessions/cs_"}, times=2)
    assert client.v1.accounts.retrieve_current().id == "acct_kassasandbox"
    for _ in range(2):
        with pytest.raises(stripe.RateLimitError):
            client.v1.checkout.sessions.retrieve(session.id)
    assert client.v1.checkout.sessions.retrieve(session.id).id == session.id
    assert box.get("faults")["times_left"] == 0
    box.faults()
    assert box.get("faults") == {"injected": {}}


def test_garbage_and_slowness(box: Sandbox, client: Client) -> None:
    box.faults("garbage")
    with pytest.raises(stripe.APIError, match="Invalid response body"):
        client.v1.accounts.retrieve_current()
    box.faults("slow")
    begun = time.monotonic()
    client.v1.accounts.retrieve_current()
    assert 1 <= time.monotonic() - begun < 4


def test_answers_are_mixed_up(box: Sandbox, client: Client, params: Params, session: Session) -> None:
    """The call is done, and its answer is that to another of its kind."""
    retrieve = client.v1.checkout.sessions.retrieve
    other = client.v1.checkout.sessions.create(params | {"client_reference_id": "ORD-OTHER-1"})
    assert retrieve(session.id).id == session.id and retrieve(other.id).id == other.id
    box.faults("mixed_up")
    assert retrieve(session.id).id == other.id
    made = client.v1.checkout.sessions.create(params | {"client_reference_id": "ORD-THIRD-1"})
    assert made.client_reference_id == "ORD-OTHER-1"
    box.faults()
    listed = client.v1.checkout.sessions.list({"limit": 3}).data
    assert "ORD-THIRD-1" in {each.client_reference_id for each in listed}


@pytest.mark.parametrize(
    "rule",
    [{"rate": 0.5}, {"kinds": ["fire"]}, {"kinds": ["slow"], "rate": 2}, {"kinds": ["slow"], "colour": "red"},
     {"kinds": ["slow"], "match": {"path": "("}}, {"kinds": ["slow"], "times": -1}],
)  # fmt: skip
def test_rules_that_cannot_be_followed(box: Sandbox, rule: dict[str, Any]) -> None:
    assert refused(box, "faults", rule)[0] == 400


def test_the_clock(box: Sandbox) -> None:
    assert box.get("clock")["offset_seconds"] == 0
    assert box.post("clock", {"advance_seconds": 90})["offset_seconds"] == 90
    assert box.post("clock", {"advance_seconds": 0.5})["offset_seconds"] == 90.5
    assert float((box.home / "clock").read_text()) == 90.5
    assert abs(box.get("clock")["now"] - time.time() - 90.5) < 5
    (box.home / "clock").write_text("7.5\n")
    assert box.get("clock")["offset_seconds"] == 7.5
    assert box.post("clock", {"reset": True})["offset_seconds"] == 0
    assert not (box.home / "clock").exists()
    for body in (
        {"advance_seconds": "5"},
        {},
        {"advance_seconds": 1, "colour": "red"},
        {"advance_seconds": True},
    ):
        assert refused(box, "clock", body)[0] == 400


def test_calls(box: Sandbox, client: Client, params: Params) -> None:
    begun = time.time()
    client.v1.checkout.sessions.create(params, {"idempotency_key": "key-9"})
    box.faults("timeout_before", seconds=0.1, times=1)
    with pytest.raises(stripe.APIConnectionError):
        client.v1.accounts.retrieve_current()
    created, unanswered = box.calls(begun)
    assert (created["method"], created["path"]) == ("POST", "/stripe/v1/checkout/sessions")
    assert (created["idempotency_key"], created["status"]) == ("key-9", 200)
    assert (unanswered["status"], unanswered["fault"]) == (None, "timeout_before")
    assert box.calls(created["time"]) == [unanswered]
    box.advance(1000)
    assert box.calls(box.get("clock")["now"]) == []
    assert refused(box, "clock", {})[0] == 400
    assert requests.get(f"{box.base_url}/control/calls?since=noon", timeout=10).status_code == 400


def test_settings_and_pages(box: Sandbox, session: Session) -> None:
    settings = box.get("settings")
    assert settings["stripe"]["api_base"] == f"{box.base_url}/stripe"
    assert settings["stripe"]["webhook_secret"] == "whsec_kassa_sandbox"
    assert settings["mail"]["smtp_port"] == box.smtp_port
    index = requests.get(box.base_url, timeout=10).text
    assert f'href="{session.url}"' in index and 'href="/mail"' in index and 'href="/control"' in index
    page = requests.get(f"{box.base_url}/control", timeout=10).text
    assert "order-1" in page
    done = requests.post(f"{box.base_url}/control/payments/{session.id}", data={"do": "pay"}, timeout=10)
    assert done.status_code == 200 and "dispute" in done.text


def test_what_curl_sends_without_saying_that_it_is_json(box: Sandbox, session: Session) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    url = f"{box.base_url}/control/payments/{session.id}"
    done = requests.post(url, data='{"do": "pay"}', headers=form, timeout=10)
    assert (done.status_code, done.json()["status"]) == (200, "paid")
