"""Our own pay page: a wallet's button of the provider's, what it may do, and where the wallet leads to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
import requests
from flask import Flask
from flask.testing import FlaskClient
from psycopg import sql

import config
from domain import clock
from domain.errors import DomainError
from domain.orders import managing
from domain.payments import reconciling
from domain.providers import registry
from domain.providers.stripe import StripeProvider
from domain.sweep import sweeping
from extensions import db
from models import EventState, OrderState, Payment, PaymentState
from tests.support.sandbox import Sandbox
from tests.support.shop import address, make_event, place
from tests.support.web import newest_order, newest_payment, path_of, ring

SCRIPT = re.compile(r"<script(?![^>]* src=)|<style|\sstyle=|\son[a-z]+=")


def ordered(method: str = "apple_pay", **more: Any) -> Payment:
    """An order whose buyer chose a wallet: its payment, open at the provider."""
    order = place(make_event(**more))
    payment = managing.pay_again(order.id, "stripe", payer_id=None, method=method)
    assert payment is not None and payment.state is PaymentState.OPEN
    return payment


@pytest.fixture
def payment(app: Flask) -> Payment:
    return ordered()


def page_of(payment: Payment) -> str:
    return path_of(payment.url or "")


def data(html: str) -> dict[str, str]:
    """What the page gives its script."""
    tag = re.search(r'<div class="wallet"[^>]*>', html)
    assert tag is not None, html
    return {name: unescape(value) for name, value in re.findall(r'data-(\w+)="([^"]*)"', tag[0])}


def press(sandbox: Sandbox, html: str, card: str = "4242424242424242", **more: str) -> requests.Response:
    """What the stand-in script does as its button is pressed."""
    told = data(html)
    fields = {
        "key": told["key"],
        "client_secret": told["secret"],
        "return_url": told["return"],
        "wallet": told["method"],
        "card": card,
    }
    intent = told["secret"].partition("_secret_")[0]
    path = f"{sandbox.base_url}/stripe/js/payment_intents/{intent}/confirm"
    return requests.post(path, data=fields | more, timeout=30)


def policy(response: Any) -> dict[str, list[str]]:
    """Content-Security-Policy as directives with their sources."""
    parts = [part.split() for part in response.headers["Content-Security-Policy"].split(";")]
    return {name: sources for name, *sources in parts}


# --- The page -------------------------------------------------------------------------------------------


def test_the_page_carries_the_button_and_ways_out(client: FlaskClient, payment: Payment) -> None:
    page = client.get(page_of(payment))
    told = data(page.text)
    assert told["key"] == config.get().stripe_publishable_key
    assert told["secret"].startswith(f"{payment.provider_id}_secret_")
    assert (told["method"], told["return"]) == ("apple_pay", f"{payment.url}/done")
    assert "25.00" in page.text and payment.order.code in page.text and "Apple Pay" in page.text
    assert "Pay by card instead" in page.text and "needs JavaScript" in page.text
    assert page.headers["Cache-Control"] == "private, no-store"
    assert not SCRIPT.search(page.text)
    # Ours first: it waits for the provider's, and says so where that does not come.
    scripts = re.findall(r'<script src="([^"]+)"[^>]* defer>', page.text)
    names = [urlsplit(one).path.rpartition("/")[2] for one in scripts]
    assert names == ["order.js", "wallet.js", "stripe.js"]


@pytest.mark.parametrize("change", ["another key", "another payment", "no such payment", "a session's"])
def test_who_has_no_right_key_finds_nothing(client: FlaskClient, payment: Payment, change: str) -> None:
    page = page_of(payment)
    base, _, key = page.rpartition("/")
    if change == "a session's":
        by_card = managing.pay_again(payment.order_id, "stripe", payer_id=None, method="card")
        assert by_card is not None
        page = StripeProvider._page(registry.get("stripe"), by_card.reference)  # type: ignore[arg-type]
        page = path_of(page)
    elif change == "another key":
        page = f"{base}/{'0' * len(key)}"
    else:
        other = ordered(slug="other") if change == "another payment" else None
        page = f"/pay/wallet/{other.reference if other else 'ORD-NOBODY22-1'}/{key}"
    for end in ("", "/done"):
        assert client.get(page + end).status_code == 404


def test_a_silent_provider_leaves_words_and_the_card(
    client: FlaskClient, sandbox: Sandbox, payment: Payment
) -> None:
    sandbox.faults("http_500", match={"path": "^/stripe/v1/payment_intents"})
    page = client.get(page_of(payment))
    assert page.status_code == 200 and "cannot reach the payment service" in page.text
    assert "Pay by card instead" in page.text and 'id="wallet"' not in page.text
    assert "frame-src" not in page.headers["Content-Security-Policy"]


def test_what_is_over_leads_to_the_order(client: FlaskClient, sandbox: Sandbox, payment: Payment) -> None:
    sandbox.do(payment.provider_id or "", "expire")
    led = client.get(page_of(payment))
    assert (led.status_code, led.location) == (303, address(payment.order))
    assert "Time ran out" in client.get(led.location).text


def test_nothing_is_paid_for_an_event_that_was_cancelled(client: FlaskClient, payment: Payment) -> None:
    event = payment.order.event
    assert event is not None
    event.state = EventState.CANCELLED
    db.session.commit()
    assert client.get(page_of(payment)).location == address(newest_order())


def test_the_order_s_page_leads_here(client: FlaskClient, payment: Payment) -> None:
    assert f'href="{payment.url}"' in client.get(address(payment.order)).text


def test_by_card_instead(client: FlaskClient, sandbox: Sandbox, payment: Payment) -> None:
    """The button of the page: the intent is closed, and the provider's own page opens."""
    page = client.get(page_of(payment)).text
    form = page[page.index(f'action="{address(payment.order)}/pay"') :]
    hidden = re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form[: form.index("</form>")])
    led = client.post(f"{address(payment.order)}/pay", data=dict(hidden))
    fresh = newest_payment()
    assert (led.status_code, led.location) == (303, fresh.url)
    assert (fresh.method, (fresh.provider_id or "")[:3]) == ("card", "cs_")
    assert sandbox.get(f"payments/{payment.provider_id}")["status"] == "cancelled"
    assert db.session.get_one(Payment, payment.id).state is PaymentState.CANCELLED
    # Nobody is told that an order ended which goes on.
    assert fresh.order.state is OrderState.PENDING_VERIFICATION
    strange = client.post(f"{address(payment.order)}/pay", data={**dict(hidden), "method": "gold"})
    assert strange.status_code == 303
    assert newest_payment().id == fresh.id


def test_without_a_publishable_key_no_wallet_is_offered(app: Flask) -> None:
    config.use(replace(config.get(), stripe_publishable_key=""))
    order = place(make_event())
    with pytest.raises(DomainError) as refused:
        managing.pay_again(order.id, "stripe", payer_id=None, method="apple_pay")
    assert refused.value.code == "method_not_set_up"


# --- What the page may do -------------------------------------------------------------------------------


def test_the_policy_is_what_stripe_documents(client: FlaskClient, payment: Payment) -> None:
    """docs.stripe.com/security/guide, "Content security policy", for Stripe.js: as others quoted it in 2026.

    The real script is not loaded in any test: this holds that it may be.
    """
    config.use(replace(config.get(), stripe_api_base="", stripe_publishable_key="pk_test_1"))
    element = registry.get("stripe").element  # type: ignore[attr-defined]
    assert element.script.startswith("https://js.stripe.com/")
    documented = {
        "connect-src": {"https://api.stripe.com"},
        "frame-src": {"https://*.js.stripe.com", "https://js.stripe.com", "https://hooks.stripe.com"},
        "script-src": {"https://*.js.stripe.com", "https://js.stripe.com"},
    }
    assert {name: set(sources) for name, sources in element.sources.items()} == documented


def test_that_page_alone_may_do_what_the_button_needs(client: FlaskClient, payment: Payment) -> None:
    page, elsewhere = client.get(page_of(payment)), client.get(address(payment.order))
    origin = f"http://{urlsplit(config.get().stripe_api_base).netloc}"
    allowed, usual = policy(page), policy(elsewhere)
    for directive in ("script-src", "frame-src", "connect-src"):
        assert origin in allowed[directive] and origin not in usual.get(directive, [])
        assert "'self'" in allowed[directive]
        assert not {"'unsafe-inline'", "'unsafe-eval'", "*"} & set(allowed[directive])
    same = allowed.keys() - {"script-src", "style-src", "frame-src", "connect-src"}
    assert {name: allowed[name] for name in same} == {name: usual[name] for name in same}
    assert page.headers["Permissions-Policy"].endswith(f'payment=(self "{origin}")')
    assert elsewhere.headers["Permissions-Policy"].endswith("payment=()")


# --- Paying ---------------------------------------------------------------------------------------------


def test_apple_pay_is_confirmed_as_the_wallet_leads_back(
    client: FlaskClient, sandbox: Sandbox, payment: Payment
) -> None:
    page = page_of(payment)
    answer = press(sandbox, client.get(page).text)
    back = answer.json()["redirect"]
    assert "payment_intent_client_secret=" in back
    led = client.get(path_of(back))
    # What the wallet added to the address is left behind.
    assert (led.status_code, led.location) == (303, address(payment.order))
    assert newest_order().state is OrderState.COMPLETED
    paid = newest_payment()
    assert (paid.method, paid.used_method, paid.fulfilled) == ("apple_pay", "apple_pay", True)
    assert client.get(page).status_code == 303


def test_the_tab_is_closed_and_the_sweep_finds_it(
    client: FlaskClient, sandbox: Sandbox, payment: Payment
) -> None:
    press(sandbox, client.get(page_of(payment)).text, wallet="google_pay")
    sandbox.advance(60)
    sweeping.run("test")
    assert newest_order().state is OrderState.COMPLETED
    assert newest_payment().used_method == "google_pay"


def test_the_sweep_reads_a_hundred_intents_a_call(app: Flask, sandbox: Sandbox) -> None:
    """By the list, as it reads sessions; what a session made is passed by."""
    event = make_event(capacity=50)
    for number in range(5):
        order = place(event, form_token=f"t{number}")
        made = managing.pay_again(order.id, "stripe", payer_id=None, method="apple_pay")
        assert made is not None
        sandbox.do(made.provider_id or "", "pay")
    since = clock.now().timestamp()
    sandbox.advance(60)
    run = sweeping.run("test")
    assert run.verified == 5
    paths = [call["path"] for call in sandbox.calls(since)]
    assert "/stripe/v1/payment_intents" in paths
    assert not [path for path in paths if re.search("payment_intents/pi_|sessions/cs_", path)]


def test_a_ring_is_enough(client: FlaskClient, sandbox: Sandbox, payment: Payment) -> None:
    sandbox.do(payment.provider_id or "", "pay", wallet="apple_pay")
    intent = {
        "object": "payment_intent",
        "id": payment.provider_id,
        "metadata": {"payment": "alone", "reference": payment.reference, "site": config.get().public_url},
    }
    event = {"id": "evt_1", "type": "payment_intent.succeeded", "data": {"object": intent}}
    assert ring(client, json.dumps(event)).status_code == 200
    assert newest_order().state is OrderState.COMPLETED


@pytest.mark.parametrize("passed", [True, False])
def test_a_bank_that_asks(client: FlaskClient, sandbox: Sandbox, payment: Payment, passed: bool) -> None:
    bank = press(sandbox, client.get(page_of(payment)).text, "4000002500003155").json()["redirect"]
    do = "authenticate" if passed else "fail_authentication"
    led = requests.post(bank, data={"do": do}, timeout=30, allow_redirects=False)
    shown = client.get(path_of(led.headers["Location"]), follow_redirects=True).text
    if passed:
        assert newest_order().state is OrderState.COMPLETED
        return
    assert (newest_payment().state, newest_payment().reason_code) == (PaymentState.OPEN, "not_confirmed")
    assert "The last try did not work" in shown
    assert "The last try did not work" in client.get(page_of(payment)).text


def test_a_refused_card_stays_payable(client: FlaskClient, sandbox: Sandbox, payment: Payment) -> None:
    page = page_of(payment)
    refused = press(sandbox, client.get(page).text, "4000000000000002")
    assert refused.status_code == 402
    reconciling.reconcile(payment.id, door="test")
    shown = client.get(page).text
    assert "The last try did not work" in shown and "Nothing was charged" in shown
    back = press(sandbox, shown).json()["redirect"]
    client.get(path_of(back))
    assert newest_order().state is OrderState.COMPLETED


def test_a_slow_bank_is_waited_for_beyond_the_hold(
    client: FlaskClient, sandbox: Sandbox, payment: Payment
) -> None:
    """At the hold's end: read, cancel, read. What a bank is confirming keeps its place."""
    page = page_of(payment)
    sandbox.do(payment.provider_id or "", "pay_later")
    sandbox.advance(3 * 3600)
    sweeping.run("test")
    waiting = newest_payment()
    assert (waiting.state, waiting.order.stock_state) == (PaymentState.PROCESSING, "held")
    assert client.get(page).status_code == 303
    sandbox.do(payment.provider_id or "", "complete_later")
    sandbox.advance(1800)
    sweeping.run("test")
    assert newest_order().state is OrderState.COMPLETED


def test_nobody_pays_and_the_hold_ends(client: FlaskClient, sandbox: Sandbox, payment: Payment) -> None:
    html = client.get(page_of(payment)).text
    sandbox.advance(3600)
    sweeping.run("test")
    assert newest_order().state is OrderState.EXPIRED
    assert newest_order().stock_state == "released"
    calls = [(call["method"], call["path"].rpartition("/")[2][:6]) for call in sandbox.calls()]
    assert ("POST", "cancel") in calls
    # A page that was left open pays nothing any more.
    assert press(sandbox, html).status_code == 400
    assert sandbox.get(f"payments/{payment.provider_id}")["status"] == "cancelled"


def test_paid_between_the_reading_and_the_cancelling_wins(
    sandbox: Sandbox, payment: Payment, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = StripeProvider.close

    def close(adapter: StripeProvider, provider_id: str, key: str, **more: Any) -> Any:
        sandbox.do(provider_id, "pay", wallet="apple_pay")
        return real(adapter, provider_id, key, **more)

    monkeypatch.setattr(StripeProvider, "close", close)
    assert reconciling.reconcile(payment.id, door="test", closing=True).state is PaymentState.PAID
    assert newest_order().state is OrderState.COMPLETED


# --- What is kept nowhere -------------------------------------------------------------------------------


@pytest.fixture
def everything(app: Flask) -> Iterator[Any]:
    """All rows of all tables as text, read by a connection of its own."""
    url = config.get().database_url.replace("+psycopg", "")
    with psycopg.connect(url, autocommit=True) as connection:

        def read() -> str:
            tables = connection.execute(
                "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
            ).fetchall()
            rows = [
                row[0]
                for (table,) in tables
                for row in connection.execute(
                    sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(table))
                )
            ]
            return "\n".join(rows)

        yield read


def test_the_secret_is_in_no_row_and_in_no_line(
    client: FlaskClient,
    sandbox: Sandbox,
    everything: Any,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """From the first page to the refund, with the events that Stripe sends, which carry it."""
    payment = ordered()
    key = (payment.url or "").rpartition("/")[2]
    html = client.get(page_of(payment)).text
    secret = data(html)["secret"]
    bank = press(sandbox, html, "4000002500003155").json()["redirect"]
    led = requests.post(bank, data={"do": "authenticate"}, timeout=30, allow_redirects=False)
    client.get(path_of(led.headers["Location"]))
    listed = requests.get(
        f"{sandbox.base_url}/stripe/v1/events",
        headers={"Authorization": "Bearer sk_test_kassa_sandbox"},
        timeout=30,
    ).json()["data"]
    assert secret in json.dumps(listed)
    for event in listed:
        assert ring(client, json.dumps(event)).status_code == 200
    sweeping.run("test")
    db.session.rollback()
    tail = secret.partition("_secret_")[2]
    rows, lines = everything(), "".join(capfd.readouterr())
    assert str(payment.provider_id) in rows and tail not in rows
    assert "kassa.access" in lines and tail not in lines
    assert "/pay/wallet/" in lines and key not in lines


# --- Apple's file ---------------------------------------------------------------------------------------

FILE = "/.well-known/apple-developer-merchantid-domain-association"


def test_apple_s_file_is_what_the_setting_says(client: FlaskClient) -> None:
    assert client.get(FILE).status_code == 404
    config.use(replace(config.get(), apple_pay_domain_association="7B227073704964223A"))
    answer = client.get(FILE)
    assert (answer.status_code, answer.text) == (200, "7B227073704964223A")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
