"""Checkout Sessions over the API: how they are made, refused, ended and listed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import requests
import stripe

from tests.sandbox.conftest import Params, charge_of, intent_of, submit
from tests.support.sandbox import Sandbox

Pay = Callable[..., stripe.checkout.Session]


def test_an_open_session(session: stripe.checkout.Session) -> None:
    assert session.id.startswith("cs_test_")
    assert (session.status, session.payment_status) == ("open", "unpaid")
    assert (session.amount_total, session.currency) == (2500, "eur")
    assert session.url and session.payment_intent is None and session.livemode is False
    assert session.client_reference_id == "order-1"
    assert session.expires_at - session.created == 24 * 3600


def test_a_paid_session(pay: Pay) -> None:
    paid = pay()
    intent, charge = intent_of(paid), charge_of(paid)
    assert (paid.status, paid.payment_status, paid.url) == ("complete", "paid", None)
    assert (intent.status, intent.amount_received) == ("succeeded", 2500)
    assert intent.metadata.to_dict() == {"order": "order-1"}
    assert (charge.amount, charge.amount_refunded) == (2500, 0)


def _with(params: Params, **changes: Any) -> Params:
    return {name: value for name, value in {**params, **changes}.items() if value is not None}


def _line(**price: Any) -> list[Params]:
    data = {"currency": "eur", "unit_amount": 1000, "product_data": {"name": "Seat"}, **price}
    return [{"quantity": 1, "price_data": {k: v for k, v in data.items() if v is not None}}]


PRICE = "line_items[0][price_data]"
REFUSED: list[tuple[Params, str, str | None]] = [
    ({"payment_method_types": ["card"]}, "payment_method_types", "parameter_unknown"),
    ({"colour": "red"}, "colour", "parameter_unknown"),
    ({"payment_intent_data": {"colour": "red"}}, "payment_intent_data[colour]", "parameter_unknown"),
    ({"mode": "gift"}, "mode", None),
    ({"mode": None}, "mode", "parameter_missing"),
    ({"mode": "subscription"}, "mode", "sandbox_not_imitated"),
    ({"ui_mode": "hosted"}, "ui_mode", None),
    ({"success_url": None}, "success_url", "parameter_missing"),
    ({"success_url": ""}, "success_url", "parameter_invalid_empty"),
    ({"success_url": "/ok"}, "success_url", "url_invalid"),
    ({"cancel_url": "javascript:alert(1)"}, "cancel_url", "url_invalid"),
    ({"customer_email": "nobody"}, "customer_email", "email_invalid"),
    ({"client_reference_id": "x" * 201}, "client_reference_id", "parameter_invalid_string_length"),
    ({"expires_at": "tomorrow"}, "expires_at", "parameter_invalid_integer"),
    ({"adaptive_pricing": {"enabled": "maybe"}}, "adaptive_pricing[enabled]", None),
    ({"metadata": "order-1"}, "metadata", None),
    ({"metadata": {"k" * 41: "v"}}, "metadata", None),
    ({"metadata": {"k": "v" * 501}}, "metadata[k]", None),
    ({"metadata": {str(n): "v" for n in range(51)}}, "metadata", None),
    ({"line_items": None}, "line_items", "parameter_missing"),
    ({"line_items": _line() * 101}, "line_items", None),
    ({"line_items": _line(currency=None)}, f"{PRICE}[currency]", "parameter_missing"),
    ({"line_items": _line(currency="xxx")}, f"{PRICE}[currency]", None),
    ({"line_items": _line(product_data=None)}, f"{PRICE}[product_data]", "parameter_missing"),
    (
        {"line_items": _line(product_data={"description": "?"})},
        f"{PRICE}[product_data][name]",
        "parameter_missing",
    ),
    ({"line_items": _line(unit_amount="10.00")}, f"{PRICE}[unit_amount]", "parameter_invalid_integer"),
    ({"line_items": _line(unit_amount=None)}, f"{PRICE}[unit_amount]", "parameter_missing"),
    ({"line_items": _line(unit_amount=-1)}, f"{PRICE}[unit_amount]", "parameter_invalid_integer"),
    ({"line_items": _line(unit_amount=49)}, "line_items", "amount_too_small"),
    ({"line_items": _line(unit_amount=199, currency="aed")}, "line_items", "amount_too_small"),
    ({"line_items": _line(unit_amount=100_000_000)}, "line_items", "amount_too_large"),
    ({"line_items": _line(unit_amount=1001, currency="kwd")}, "line_items", "invalid_charge_amount"),
    ({"line_items": _line() + _line(currency="usd")}, "line_items", None),
    ({"line_items": [{"price": "price_1", "quantity": 1}]}, "line_items[0][price]", "resource_missing"),
    ({"line_items": [{**_line()[0], "quantity": 0}]}, "line_items[0][quantity]", None),
    ({"discounts": [{"coupon": "c"}]}, "discounts", "sandbox_not_imitated"),
    ({"expand": ["status"]}, "expand", None),
]


@pytest.mark.parametrize(("changes", "param", "code"), REFUSED, ids=[str(param) for _, param, _ in REFUSED])
def test_what_is_refused(
    client: stripe.StripeClient, params: Params, changes: Params, param: str, code: str | None
) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.checkout.sessions.create(_with(params, **changes))
    assert refused.value.param == param
    assert code is None or refused.value.code == code
    assert client.v1.checkout.sessions.list().data == []


@pytest.mark.parametrize(
    ("currency", "unit_minor"), [("jpy", 50), ("kwd", 1000), ("aed", 200), ("EUR", 50), ("gbp", 30)]
)
def test_amounts_that_are_taken(
    client: stripe.StripeClient, params: Params, currency: str, unit_minor: int
) -> None:
    wanted = _with(params, line_items=_line(currency=currency, unit_amount=unit_minor))
    made = client.v1.checkout.sessions.create(wanted)
    assert (made.amount_total, made.currency) == (unit_minor, currency.lower())


@pytest.mark.parametrize(
    ("minutes", "taken"), [(29, False), (31, True), (24 * 60 - 1, True), (24 * 60 + 1, False)]
)
def test_expires_at(client: stripe.StripeClient, params: Params, minutes: int, taken: bool) -> None:
    wanted = _with(params, expires_at=int(time.time()) + minutes * 60)
    if taken:
        assert client.v1.checkout.sessions.create(wanted).expires_at == wanted["expires_at"]
    else:
        with pytest.raises(stripe.InvalidRequestError, match="expires_at"):
            client.v1.checkout.sessions.create(wanted)


def test_expire_only_when_open(
    client: stripe.StripeClient, session: stripe.checkout.Session, pay: Pay
) -> None:
    expired = client.v1.checkout.sessions.expire(session.id)
    assert (expired.status, expired.payment_status, expired.url) == ("expired", "unpaid", None)
    for session_id in (session.id, pay().id):
        with pytest.raises(stripe.InvalidRequestError, match="can be expired"):
            client.v1.checkout.sessions.expire(session_id)


def test_time_expires_it(box: Sandbox, client: stripe.StripeClient, params: Params) -> None:
    made = client.v1.checkout.sessions.create(_with(params, expires_at=int(time.time()) + 31 * 60))
    box.advance(30 * 60)
    assert client.v1.checkout.sessions.retrieve(made.id).status == "open"
    box.advance(61)
    assert client.v1.checkout.sessions.retrieve(made.id).status == "expired"
    assert client.v1.events.list({"type": "checkout.session.expired"}).data[0].data.object["id"] == made.id


def test_lists_see_what_time_expired(box: Sandbox, client: stripe.StripeClient, params: Params) -> None:
    wanted = _with(params, expires_at=int(time.time()) + 31 * 60)
    made = [client.v1.checkout.sessions.create(wanted).id for _ in range(3)]
    box.advance(31 * 60)
    assert client.v1.checkout.sessions.list({"status": "open"}).data == []
    assert [s.id for s in client.v1.checkout.sessions.list({"status": "expired"}).data] == made[::-1]


def test_pages(client: stripe.StripeClient, params: Params) -> None:
    made = [client.v1.checkout.sessions.create(params).id for _ in range(7)][::-1]
    sessions = client.v1.checkout.sessions
    assert [s.id for s in sessions.list({"limit": 3}).auto_paging_iter()] == made
    first = sessions.list({"limit": 3})
    assert (len(first.data), first.has_more) == (3, True)
    last = sessions.list({"limit": 4, "starting_after": first.data[-1].id})
    assert ([s.id for s in last.data], last.has_more) == (made[3:], False)
    before = sessions.list({"limit": 2, "ending_before": made[4]})
    assert ([s.id for s in before.data], before.has_more) == (made[2:4], True)
    assert len(sessions.list().data) == 7
    with pytest.raises(stripe.InvalidRequestError, match="No such checkout.session"):
        sessions.list({"starting_after": "cs_test_none"})
    with pytest.raises(stripe.InvalidRequestError, match="Limit"):
        sessions.list({"limit": 101})


def test_filters(box: Sandbox, client: stripe.StripeClient, params: Params, pay: Pay) -> None:
    old = client.v1.checkout.sessions.create(params)
    box.advance(100)
    paid = pay()
    intent = intent_of(paid)

    def found(**filters: Any) -> list[str]:
        wanted: Params = filters
        return [s.id for s in client.v1.checkout.sessions.list(wanted).data]

    assert found(status="complete") == [paid.id]
    assert found(status="open") == [old.id]
    assert found(payment_intent=intent.id) == [paid.id]
    assert found(created={"gte": paid.created}) == [paid.id]
    assert found(created={"gt": old.created, "lte": paid.created}) == [paid.id]
    assert found(created={"lt": paid.created}) == [old.id]
    assert found(created=old.created) == [old.id]
    assert found(customer_details={"email": "buyer@example.org"}) == [paid.id]
    assert found(customer="cus_nobody") == []
    expand: Params = {"expand": ["data.payment_intent.latest_charge"]}
    listed = client.v1.checkout.sessions.list(expand).data
    assert charge_of(listed[0]).paid is True
    assert listed[1].payment_intent is None


def test_line_items(client: stripe.StripeClient, session: stripe.checkout.Session) -> None:
    first = client.v1.checkout.sessions.line_items.list(session.id, {"limit": 1})
    assert ([line.description for line in first.data], first.has_more) == (["Seat"], True)
    rest = client.v1.checkout.sessions.line_items.list(session.id, {"starting_after": first.data[0].id})
    assert ([line.description for line in rest.data], rest.has_more) == (["Programme"], False)


def test_a_filter_of_payment_methods(box: Sandbox, client: stripe.StripeClient, params: Params) -> None:
    made = client.v1.checkout.sessions.create(_with(params, allowed_payment_method_types=["card"]))
    assert made.payment_method_types == ["card"]
    assert made.url
    assert "Pay later" not in requests.get(made.url, timeout=10).text
    assert "does not take" in submit(made.url, "pay_later").text


def test_a_total_of_zero(client: stripe.StripeClient, params: Params) -> None:
    made = client.v1.checkout.sessions.create(_with(params, line_items=_line(unit_amount=0)))
    assert made.url and submit(made.url).status_code == 303
    done = client.v1.checkout.sessions.retrieve(made.id)
    assert (done.status, done.payment_status, done.payment_intent) == (
        "complete",
        "no_payment_required",
        None,
    )


NOWHERE = (
    "checkout/sessions/cs_test_none",
    "payment_intents/pi_none",
    "charges/ch_none",
    "refunds/re_none",
    "disputes/du_none",
    "events/evt_none",
)


@pytest.mark.parametrize("path", NOWHERE)
def test_what_is_not_there(client: stripe.StripeClient, path: str) -> None:
    with pytest.raises(stripe.InvalidRequestError) as missing:
        client.raw_request("get", f"/v1/{path}")
    assert (missing.value.http_status, missing.value.code) == (404, "resource_missing")


def test_payment_intents_refuse_payment_method_types(client: stripe.StripeClient) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.raw_request(
            "post", "/v1/payment_intents", amount=100, currency="eur", payment_method_types=["card"]
        )
    assert refused.value.code == "payment_method_types_no_longer_supported"


@pytest.mark.parametrize("key", ["sk_test_wrong", "sk_live_kassa_sandbox", "pk_test_kassa_sandbox"])
def test_a_wrong_key(box: Sandbox, key: str) -> None:
    client = stripe.StripeClient(key, base_addresses={"api": f"{box.base_url}/stripe"})
    with pytest.raises(stripe.AuthenticationError) as refused:
        client.v1.accounts.retrieve_current()
    assert key not in str(refused.value)


def test_no_key_another_version_another_form(box: Sandbox) -> None:
    url, key = f"{box.base_url}/stripe/v1/account", ("sk_test_kassa_sandbox", "")
    assert requests.get(url, timeout=10).status_code == 401
    assert requests.get(url, auth=key, timeout=10).json()["id"] == "acct_kassasandbox"
    old = requests.get(url, auth=key, headers={"Stripe-Version": "2019-12-03"}, timeout=10)
    assert (old.status_code, "2026-10-28.endive" in old.text) == (400, True)
    sent = requests.post(f"{box.base_url}/stripe/v1/refunds", json={"charge": "x"}, auth=key, timeout=10)
    assert sent.status_code == 400 and "content type" in sent.text
    assert requests.post(f"{box.base_url}/stripe/v1/nothing", auth=key, timeout=10).status_code == 404
