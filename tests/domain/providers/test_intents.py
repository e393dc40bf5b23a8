"""PaymentIntents beside Checkout Sessions: which of them are payments, and what only wallets need."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import stripe
from flask import Flask
from stripe._api_version import _ApiVersion

import config
from domain import clock, pay_links
from domain.providers import registry, stripe_intents
from domain.providers.contract import HasClientSecret, KnowsDomains, Missing, Presentation, Provider, Report
from domain.providers.stripe import StripeProvider, build
from tests.support.benches import StripeBench
from tests.support.contract import purchase
from tests.support.sandbox import Sandbox

METHODS = ("card", "apple_pay", "google_pay")


@pytest.fixture
def bench(app: Flask, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[StripeBench]:
    yield StripeBench(sandbox, monkeypatch)


@pytest.fixture
def adapter(bench: StripeBench) -> StripeProvider:
    found = registry.get("stripe")
    assert isinstance(found, StripeProvider)
    return found


def opened(adapter: Provider, method: str, reference: str = "P-1") -> Report:
    wanted = replace(purchase(adapter, reference), method=method)
    return adapter.create(adapter.params(wanted), f"key-{reference}")


def events(sandbox: Sandbox, adapter: StripeProvider, bench: StripeBench) -> list[Any]:
    """Every event that Stripe has made, as a ring."""
    listed = adapter._quick.v1.events.list({"limit": 100}).to_dict()["data"]
    bodies = [json.dumps(event).encode() for event in listed]
    return [adapter.ring(body, bench.sign(body)) for body in bodies]


# --- Two shapes, one provider ---------------------------------------------------------------------------


def test_each_way_to_pay_has_its_shape(adapter: StripeProvider) -> None:
    assert adapter.methods == METHODS
    for method in METHODS:
        made = opened(adapter, method, f"P-{method}")
        page = method == "card"
        assert adapter.presents(method) is (Presentation.PAGE if page else Presentation.ELEMENT)
        assert made.provider_id.startswith("cs_test_" if page else "pi_")
        assert (made.url or "").startswith(config.get().public_url) is not page


def test_the_intents_parameters(adapter: StripeProvider) -> None:
    params = adapter.params(replace(purchase(adapter), method="google_pay"))
    assert params["allowed_payment_method_types"] == ["card"]
    assert params["metadata"] == {
        "order": "ORD-7KQ2MPXA",
        "reference": "P-1",
        "site": config.get().public_url,
        "payment": "alone",
    }
    assert (params["amount"], params["currency"]) == (2500, "eur")
    assert "Concert – Seat" in params["description"] and "receipt_email" not in params


def test_an_intent_of_a_session_is_no_payment(
    adapter: StripeProvider, bench: StripeBench, sandbox: Sandbox
) -> None:
    """In rings, lists and find, and by its id, whoever names it."""
    began = clock.now() - timedelta(minutes=1)
    session = opened(adapter, "card").provider_id
    sandbox.do(session, "pay")
    intent = sandbox.get(f"payments/{session}")["payment_intent"]
    for call in (adapter.fetch, adapter.refunded_minor, lambda name: adapter.close(name, "close-1")):
        with pytest.raises(Missing):
            call(intent)
    listed = [report.provider_id for page in adapter.pages(began, clock.now()) for report in page]
    assert listed == [session]
    found = adapter.find("P-1", began)
    assert found is not None and found.provider_id == session
    rings = events(sandbox, adapter, bench)
    assert {ring.type for ring in rings} >= {"payment_intent.succeeded", "charge.succeeded"}
    assert {ring.provider_id for ring in rings} == {session, None}
    assert {ring.reference for ring in rings} == {"P-1"}


def test_rings_of_our_own_intent_lead_to_it(
    adapter: StripeProvider, bench: StripeBench, sandbox: Sandbox
) -> None:
    made = opened(adapter, "apple_pay").provider_id
    for do in ("decline", "pay", "refund", "refund_fail"):
        sandbox.do(made, do)
    other = opened(adapter, "apple_pay", "P-2").provider_id
    sandbox.do(other, "pay_later")
    sandbox.do(other, "fail_later")
    rings = events(sandbox, adapter, bench)
    assert {ring.type for ring in rings} >= {
        "payment_intent.payment_failed",
        "payment_intent.processing",
        "charge.refunded",
        "refund.failed",
    }
    assert {ring.provider_id for ring in rings} == {made, other}
    told = {ring.type: ring.only_of_paying for ring in rings}
    assert told["payment_intent.succeeded"] and not told["payment_intent.payment_failed"]


def test_what_others_make_in_the_account_hides_nothing(
    adapter: StripeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that saves a card has no amount. What cannot be read is left out, and the rest is told."""
    began = clock.now() - timedelta(minutes=1)
    ours = {opened(adapter, method, f"P-{method}").provider_id for method in METHODS}
    saves_a_card = {"object": "checkout.session", "mode": "setup", "amount_total": None, "currency": None}
    saves_a_card |= {"id": "cs_test_a", "status": "open", "payment_status": "no_payment_required"}
    of_another = {"object": "payment_intent", "status": "requires_luck", "metadata": {"payment": "alone"}}
    strange = (saves_a_card, of_another | {"id": "pi_a"})
    real = stripe.StripeClient.raw_request

    def asked(client: stripe.StripeClient, method: str, path: str, **params: Any) -> Any:
        answer = real(client, method, path, **params)
        if "data" in answer.data:
            answer.data["data"][:0] = strange
        return answer

    monkeypatch.setattr(stripe.StripeClient, "raw_request", asked)
    listed = [report.provider_id for page in adapter.pages(began, clock.now()) for report in page]
    assert set(listed) == ours and len(listed) == len(ours)
    found = adapter.find("P-google_pay", began)
    assert found is not None and found.provider_id in ours
    assert adapter.find("P-nobody", began) is None


def test_money_leads_back_to_either_shape(adapter: StripeProvider, sandbox: Sandbox) -> None:
    began = clock.now() - timedelta(minutes=1)
    made = {opened(adapter, method, f"P-{method}").provider_id for method in METHODS}
    for provider_id in made:
        sandbox.do(provider_id, "pay")
    told = [one for page in adapter.happened(began, clock.now()) for one in page.happenings]
    assert len({one.charges for one in told}) == len(told) == len(made)
    behind = [adapter.behind(one) for one in told]
    assert {report.provider_id for report in behind if report is not None} == made
    stranger = replace(told[0], handle="pi_nobodyhasthis")
    assert adapter.behind(stranger) is None


# --- What was used --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["card", "apple_pay"])
@pytest.mark.parametrize("wallet", ["apple_pay", "google_pay", "none"])
def test_what_was_really_used_is_read_from_the_charge(
    adapter: StripeProvider, sandbox: Sandbox, method: str, wallet: str
) -> None:
    """Stripe's own page shows both wallets, and a wallet's button may be pressed for another card."""
    made = opened(adapter, method)
    assert made.used_method == ""
    sandbox.do(made.provider_id, "pay", wallet=wallet)
    used = "card" if wallet == "none" else wallet
    assert adapter.fetch(made.provider_id).used_method == used
    began = clock.now() - timedelta(minutes=1)
    [listed] = [report for page in adapter.pages(began, clock.now()) for report in page]
    assert listed.used_method == used


def test_a_bank_debit_is_no_card(adapter: StripeProvider, sandbox: Sandbox) -> None:
    made = opened(adapter, "card").provider_id
    sandbox.do(made, "pay_later")
    assert adapter.fetch(made).used_method == ""
    sandbox.do(made, "complete_later")
    assert adapter.fetch(made).used_method == "sepa_debit"


# --- How an intent goes ---------------------------------------------------------------------------------


def test_a_slow_bank_is_not_closed_and_may_refuse(adapter: StripeProvider, sandbox: Sandbox) -> None:
    made = opened(adapter, "apple_pay").provider_id
    sandbox.do(made, "pay_later")
    assert adapter.close(made, "close-1").state == "processing"
    sandbox.do(made, "fail_later")
    again = adapter.fetch(made)
    assert (again.state, bool(again.reason), len(again.declines)) == ("open", True, 1)
    sandbox.do(made, "pay")
    assert adapter.fetch(made).state == "paid"


def test_a_bank_that_asks_leaves_it_open_and_closable(adapter: StripeProvider, sandbox: Sandbox) -> None:
    made = opened(adapter, "apple_pay").provider_id
    stripe_itself = adapter._quick.v1.payment_intents
    stripe_itself.confirm(made, {"payment_method": "pm_card_authenticationRequired"})
    assert stripe_itself.retrieve(made).status == "requires_action"
    assert adapter.fetch(made).state == "open"
    assert adapter.close(made, "close-1").state == "expired"


@pytest.mark.parametrize(
    ("reason", "state"),
    [
        ("abandoned", "expired"),
        ("requested_by_customer", "cancelled"),
        ("duplicate", "cancelled"),
        ("fraudulent", "cancelled"),
        (None, "cancelled"),
    ],
)
def test_who_ended_an_intent_decides_what_its_end_is(
    adapter: StripeProvider, reason: Any, state: str
) -> None:
    made = opened(adapter, "apple_pay").provider_id
    adapter._quick.v1.payment_intents.cancel(made, {"cancellation_reason": reason} if reason else {})
    assert adapter.fetch(made).state == state


def test_a_status_that_is_not_known_changes_nothing(adapter: StripeProvider, sandbox: Sandbox) -> None:
    made = opened(adapter, "apple_pay").provider_id
    intent = adapter._quick.v1.payment_intents.retrieve(made).to_dict()
    with pytest.raises(ValueError, match="requires_luck"):
        stripe_intents.report({**intent, "status": "requires_luck"}, "platform", str)
    # Money that is only kept on the card is not paid, and its buyer is not to pay once more.
    kept = stripe_intents.report({**intent, "status": "requires_capture"}, "platform", str)
    assert (kept.state, kept.charge_id, kept.url) == ("processing", None, None)


# --- The button -----------------------------------------------------------------------------------------


def test_the_secret_is_read_anew_and_told_nowhere_else(adapter: StripeProvider, sandbox: Sandbox) -> None:
    assert isinstance(adapter, HasClientSecret)
    made = opened(adapter, "apple_pay")
    secret = adapter.client_secret(made.provider_id)
    assert secret is not None and secret.startswith(f"{made.provider_id}_secret_")
    for report in (made, adapter.fetch(made.provider_id, thorough=True), adapter.find("P-1", clock.now())):
        assert secret not in repr(report)
    assert adapter.client_secret(opened(adapter, "card", "P-2").provider_id) is None
    with pytest.raises(Missing):
        adapter.client_secret("pi_nobodyhasthis")


def test_the_page_is_known_by_the_reference_alone(adapter: StripeProvider) -> None:
    made, settings = opened(adapter, "apple_pay"), config.get()
    key = (made.url or "").rpartition("/")[2]
    assert made.url == f"{settings.public_url}/pay/wallet/P-1/{key}"
    assert pay_links.opens(settings, "P-1", key)
    for reference, given in (("P-2", key), ("P-1", key[:-1]), ("P-1", ""), ("P-1", "é" * 32)):
        assert not pay_links.opens(settings, reference, given)
    assert not pay_links.opens(replace(settings, secret_key="y" * 32), "P-1", key)


def test_the_script_is_of_the_release_that_the_sdk_speaks() -> None:
    assert f"https://js.stripe.com/{_ApiVersion.CURRENT_MAJOR}/stripe.js" == stripe_intents.SCRIPT
    real = build(replace(config.get(), stripe_api_base="", stripe_publishable_key="pk_test_x")).element
    assert (real.script, real.key) == (stripe_intents.SCRIPT, "pk_test_x")
    assert real.sources == stripe_intents.SOURCES
    assert "pk_" not in build(replace(config.get(), stripe_publishable_key="")).element.key


# --- Domains --------------------------------------------------------------------------------------------


def test_a_host_is_registered_and_looked_at_again(adapter: StripeProvider) -> None:
    assert isinstance(adapter, KnowsDomains)
    assert adapter.domain_status("pay.example.org") is None
    known = adapter.register_domain("pay.example.org")
    assert (known.domain, known.livemode, known.problems) == ("pay.example.org", False, ())
    assert adapter.register_domain("pay.example.org") == known == adapter.domain_status("pay.example.org")
    [problem] = adapter.register_domain("kassa.invalid").problems
    assert problem.startswith("Apple Pay: ") and "kassa.invalid" in problem


def test_every_field_that_is_read_is_one_of_the_sdks() -> None:
    """The adapter reads plain data, which no type checker compares with what Stripe answers."""
    read = {"id", "status", "amount", "amount_received", "currency", "livemode", "cancellation_reason"}
    read |= {"client_secret", "created", "last_payment_error", "latest_charge", "metadata", "on_behalf_of"}
    assert read <= set(stripe.PaymentIntent.__annotations__)
    domain = stripe.PaymentMethodDomain.__annotations__
    assert {"apple_pay", "google_pay", "enabled", "domain_name", "livemode"} <= set(domain)
