"""SumUp's checkouts, transactions and refunds, through the official SDK; each answer checked by its table."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sumup import Sumup
from sumup.errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    NotFoundError,
    PermissionDeniedError,
    UnprocessableEntityError,
)
from sumup.types import Checkout, TransactionFull

from tests.sandbox.conftest import PLATFORM, sumup_client, token_of
from tests.support.sandbox import Sandbox


def paid(box: Sandbox, sdk: Sumup, checkout: Checkout) -> TransactionFull:
    """Pays a checkout; its transaction."""
    box.do(str(checkout.id), "pay")
    return transaction(sdk, checkout)


def transaction(sdk: Sumup, checkout: Checkout) -> TransactionFull:
    """The transaction that paid a checkout."""
    found = sdk.checkouts.get(str(checkout.id)).transaction_id
    assert found
    return sdk.transactions.get(PLATFORM, id=found)


def refund(sdk: Sumup, of: TransactionFull, **amount: float) -> None:
    sdk.transactions.refund(PLATFORM, str(of.id), **amount)


def now(box: Sandbox) -> datetime:
    return datetime.fromtimestamp(box.get("clock")["now"], UTC)


# --- opening and reading


def test_open_and_read(box: Sandbox, sdk: Sumup, checkout: Checkout) -> None:
    assert (checkout.status, checkout.amount, checkout.currency) == ("PENDING", 25.0, "EUR")
    assert checkout.hosted_checkout_url == f"{box.base_url}/sumup/pay/{checkout.id}"
    read = sdk.checkouts.get(str(checkout.id))
    assert (read.checkout_reference, read.merchant_code, read.transactions) == ("attempt-1", PLATFORM, [])
    assert read.transaction_id is None
    assert read.redirect_url == "https://shop.example.org/back?code=1"


def test_without_a_hosted_page_there_is_no_address(box: Sandbox, sdk: Sumup, wanted: dict[str, Any]) -> None:
    made = sdk.checkouts.create(**wanted | {"hosted_checkout": {"enabled": False}})
    assert made.hosted_checkout_url is None
    assert httpx.get(f"{box.base_url}/sumup/pay/{made.id}", trust_env=False).status_code == 404


def test_found_by_its_reference(sdk: Sumup, checkout: Checkout, wanted: dict[str, Any]) -> None:
    other = sdk.checkouts.create(**wanted | {"checkout_reference": "attempt-2"})
    assert [c.id for c in sdk.checkouts.list(checkout_reference="attempt-1")] == [checkout.id]
    assert sdk.checkouts.list(checkout_reference="attempt-3") == []
    assert [c.id for c in sdk.checkouts.list()] == [other.id, checkout.id]


def test_a_reference_is_good_once_for_a_payee(
    box: Sandbox, sdk: Sumup, checkout: Checkout, wanted: dict[str, Any]
) -> None:
    with pytest.raises(ConflictError) as refusal:
        sdk.checkouts.create(**wanted)
    assert refusal.value.body.error_code == "DUPLICATED_CHECKOUT"
    sdk.checkouts.deactivate(str(checkout.id))
    with pytest.raises(ConflictError):
        sdk.checkouts.create(**wanted)
    with sumup_client(box, token_of(box, "MHARBOUR")["access_token"]) as harbour:
        assert harbour.checkouts.create(**wanted | {"merchant_code": "MHARBOUR"}).id != checkout.id


def test_updating(sdk: Sumup, checkout: Checkout) -> None:
    changed = sdk.checkouts.update(
        str(checkout.id), amount=30.5, currency="CHF", description="Three", checkout_reference="attempt-9"
    )
    assert (changed.amount, changed.currency, changed.description) == (30.5, "CHF", "Three")
    assert [c.id for c in sdk.checkouts.list(checkout_reference="attempt-9")] == [checkout.id]


def test_a_paid_one_is_not_updated(box: Sandbox, sdk: Sumup, checkout: Checkout) -> None:
    box.do(str(checkout.id), "pay")
    with pytest.raises(ConflictError):
        sdk.checkouts.update(str(checkout.id), amount=1.0)


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"amount": None}, "amount", "MISSING"),
        ({"currency": None}, "currency", "MISSING"),
        ({"amount": "25.00"}, "amount", "INVALID"),
        ({"amount": True}, "amount", "INVALID"),
        ({"amount": 0}, "amount", "INVALID"),
        ({"amount": -1}, "amount", "INVALID"),
        ({"amount": 25.005}, "amount", "INVALID"),
        ({"amount": 25.5, "currency": "CLP"}, "amount", "INVALID"),
        ({"currency": "KZT"}, "currency", "INVALID"),
        ({"currency": "eur"}, "currency", "INVALID"),
        ({"checkout_reference": "r" * 65}, "checkout_reference", "INVALID"),
        ({"checkout_reference": 7}, "checkout_reference", "INVALID"),
        ({"return_url": "no address"}, "return_url", "INVALID"),
        ({"valid_until": "2030-01-01T00:00:00"}, "valid_until", "INVALID"),
        ({"valid_until": "2020-01-01T00:00:00Z"}, "valid_until", "INVALID"),
        ({"hosted_checkout": {}}, "hosted_checkout.enabled", "MISSING"),
        ({"hosted_checkout": {"enabled": "yes"}}, "hosted_checkout.enabled", "INVALID"),
        ({"purpose": "SETUP_RECURRING_PAYMENT"}, "purpose", "INVALID"),
        ({"colour": "red"}, "colour", "INVALID"),
    ],
)
def test_what_is_missing_or_ill_typed_is_refused(
    plain: httpx.Client, wanted: dict[str, Any], change: dict[str, Any], param: str, code: str
) -> None:
    sent = {name: value for name, value in (wanted | change).items() if value is not None}
    answer = plain.post("/v0.1/checkouts", json=sent)
    assert answer.status_code == 400
    assert (answer.json()["param"], answer.json()["error_code"]) == (param, code)


def test_several_mistakes_are_a_list(plain: httpx.Client) -> None:
    answer = plain.post("/v0.1/checkouts", json={"amount": "1", "currency": "EUR", "merchant_code": PLATFORM})
    assert answer.status_code == 400
    assert {one["param"] for one in answer.json()} == {"amount", "checkout_reference"}


@pytest.mark.parametrize("sent", [b"", b"[]", b"{", b'"text"', b"null"])
def test_a_body_that_is_none_is_refused(plain: httpx.Client, sent: bytes) -> None:
    assert plain.post("/v0.1/checkouts", content=sent).status_code == 400


def test_unknown_parameters_of_a_query_are_refused(plain: httpx.Client) -> None:
    assert plain.get("/v0.1/checkouts", params={"reference": "x"}).status_code == 400
    assert plain.get(f"/v2.1/merchants/{PLATFORM}/transactions/history?limit=x").status_code == 400


@pytest.mark.parametrize("amount", [0.1 + 0.2, 19.99, 0.29, 1.1 + 2.2, 9999999.99])
def test_the_noise_of_floats_is_dropped(sdk: Sumup, wanted: dict[str, Any], amount: float) -> None:
    assert sdk.checkouts.create(**wanted | {"amount": amount}).amount == round(amount, 2)


@pytest.mark.parametrize(("currency", "amount"), [("CLP", 5000.0), ("HUF", 990.0), ("SEK", 12.34)])
def test_currencies(sdk: Sumup, wanted: dict[str, Any], currency: str, amount: float) -> None:
    made = sdk.checkouts.create(**wanted | {"amount": amount, "currency": currency})
    assert (made.amount, made.currency) == (amount, currency)


# --- who may


@pytest.mark.parametrize("token", ["sup_sk_wrong", "", "None"])
def test_a_wrong_bearer(box: Sandbox, checkout: Checkout, token: str) -> None:
    with sumup_client(box, token or "x") as stranger:
        with pytest.raises(AuthenticationError) as refusal:
            stranger.checkouts.get(str(checkout.id))
        assert refusal.value.problem is not None
        with pytest.raises(AuthenticationError):
            stranger.merchants.get(PLATFORM)


def test_other_merchants_have_other_checkouts(
    box: Sandbox, sdk: Sumup, checkout: Checkout, wanted: dict[str, Any]
) -> None:
    charged = paid(box, sdk, checkout)
    with sumup_client(box, token_of(box, "MHARBOUR")["access_token"]) as harbour:
        with pytest.raises(NotFoundError):
            harbour.checkouts.get(str(checkout.id))
        with pytest.raises(NotFoundError):
            harbour.checkouts.deactivate(str(checkout.id))
        with pytest.raises(PermissionDeniedError):
            harbour.checkouts.create(**wanted | {"checkout_reference": "theirs"})
        for code in (PLATFORM, "MHARBOUR"):
            with pytest.raises(NotFoundError):
                harbour.transactions.get(code, id=str(charged.id))
            with pytest.raises(NotFoundError):
                harbour.transactions.refund(code, str(charged.id))
        with pytest.raises(NotFoundError):
            harbour.merchants.get(PLATFORM)
        with pytest.raises(PermissionDeniedError):
            harbour.transactions.list(PLATFORM)
        assert harbour.checkouts.list(checkout_reference="attempt-1") == []


def test_a_token_without_the_scope(box: Sandbox, wanted: dict[str, Any]) -> None:
    tokens = token_of(box, "MHARBOUR", scope="user.profile_readonly")
    with sumup_client(box, tokens["access_token"]) as harbour:
        with pytest.raises(PermissionDeniedError) as refusal:
            harbour.checkouts.create(**wanted | {"merchant_code": "MHARBOUR"})
        assert refusal.value.message == "checkout_payments_not_allowed"
        assert harbour.merchants.get("MHARBOUR").sandbox is True


def test_what_is_not_imitated_says_so(plain: httpx.Client) -> None:
    answer = plain.put("/v0.1/checkouts/x", json={})
    assert answer.status_code == 404
    assert "does not imitate" in answer.json()["detail"]


# --- how they end


def test_paid_and_its_transaction(box: Sandbox, sdk: Sumup, checkout: Checkout) -> None:
    charged = paid(box, sdk, checkout)
    read = sdk.checkouts.get(str(checkout.id))
    assert (read.status, read.transaction_code) == ("PAID", charged.transaction_code)
    assert [(t.id, t.status, t.amount) for t in read.transactions or ()] == [(charged.id, "SUCCESSFUL", 25.0)]
    assert (charged.simple_status, charged.product_summary) == ("SUCCESSFUL", "Two seats")
    # A payout is an event too, which is no refund.
    assert [(e.type, e.status) for e in charged.events or ()] == [("PAYOUT", "SCHEDULED")]
    assert sdk.transactions.get(PLATFORM, transaction_code=str(charged.transaction_code)).id == charged.id


def test_failed_twice_and_then_paid(box: Sandbox, sdk: Sumup, checkout: Checkout) -> None:
    box.do(str(checkout.id), "decline")
    assert sdk.checkouts.get(str(checkout.id)).status == "FAILED"
    box.do(str(checkout.id), "decline")
    box.do(str(checkout.id), "pay")
    read = sdk.checkouts.get(str(checkout.id))
    assert read.status == "PAID"
    assert [t.status for t in read.transactions or ()] == ["FAILED", "FAILED", "SUCCESSFUL"]
    assert read.transaction_id == (read.transactions or [])[-1].id


@pytest.mark.parametrize("amount", [11.0, 42.01, 42.76, 42.91])
def test_amounts_that_fail(box: Sandbox, sdk: Sumup, wanted: dict[str, Any], amount: float) -> None:
    made = sdk.checkouts.create(**wanted | {"amount": amount})
    with pytest.raises(AssertionError, match="409"):
        box.do(str(made.id), "pay")
    read = sdk.checkouts.get(str(made.id))
    assert (read.status, [t.status for t in read.transactions or ()]) == ("FAILED", ["FAILED"])


@pytest.mark.parametrize("first", ["", "decline"])
def test_deactivating(box: Sandbox, sdk: Sumup, checkout: Checkout, first: str) -> None:
    if first:
        box.do(str(checkout.id), first)
    assert sdk.checkouts.deactivate(str(checkout.id)).status == "EXPIRED"
    assert sdk.checkouts.get(str(checkout.id)).status == "EXPIRED"
    with pytest.raises(ConflictError):
        sdk.checkouts.deactivate(str(checkout.id))


def test_a_paid_one_is_not_deactivated(box: Sandbox, sdk: Sumup, checkout: Checkout) -> None:
    box.do(str(checkout.id), "pay")
    with pytest.raises(ConflictError) as refusal:
        sdk.checkouts.deactivate(str(checkout.id))
    assert refusal.value.body.error_code == "CHECKOUT_PROCESSED"
    assert sdk.checkouts.get(str(checkout.id)).status == "PAID"


def test_valid_until_ends_it(box: Sandbox, sdk: Sumup, wanted: dict[str, Any]) -> None:
    end = now(box) + timedelta(hours=2)
    made = sdk.checkouts.create(**wanted, valid_until=end)
    assert made.valid_until == end.replace(microsecond=end.microsecond // 1000 * 1000)
    box.advance(7190)
    assert sdk.checkouts.get(str(made.id)).status == "PENDING"
    box.advance(20)
    assert sdk.checkouts.get(str(made.id)).status == "EXPIRED"
    with pytest.raises(AssertionError, match="409"):
        box.do(str(made.id), "pay")
    # Fate may let money come late all the same.
    assert box.do(str(made.id), "pay", force=True)["status"] == "paid"


def test_without_valid_until_it_stays_open(box: Sandbox, sdk: Sumup, checkout: Checkout) -> None:
    box.advance(30 * 24 * 3600)
    assert sdk.checkouts.get(str(checkout.id)).status == "PENDING"


# --- money back


def test_refunds_in_parts(box: Sandbox, sdk: Sumup, checkout: Checkout) -> None:
    charged = paid(box, sdk, checkout)
    refund(sdk, charged, amount=5.25)
    after = transaction(sdk, checkout)
    assert (after.status, after.simple_status) == ("REFUNDED", "REFUNDED")
    assert [e.amount for e in after.events or () if e.type == "REFUND"] == [5.25]
    assert [link.max_amount for link in after.links or ()] == [19.75]
    with pytest.raises(ConflictError):
        refund(sdk, charged, amount=20.0)
    refund(sdk, charged)
    whole = transaction(sdk, checkout)
    assert sum(e.amount or 0 for e in whole.events or () if e.type == "REFUND") == 25.0
    with pytest.raises(ConflictError):
        refund(sdk, charged)
    read = sdk.checkouts.get(str(checkout.id))
    assert (read.status, [t.status for t in read.transactions or ()]) == ("PAID", ["REFUNDED"])


@pytest.mark.parametrize("amount", [0, -1, 1.001, "5"])
def test_amounts_that_cannot_be_refunded(box: Sandbox, sdk: Sumup, checkout: Checkout, amount: Any) -> None:
    charged = paid(box, sdk, checkout)
    with pytest.raises(BadRequestError):
        refund(sdk, charged, amount=amount)


def test_the_older_form_of_a_refund(box: Sandbox, sdk: Sumup, checkout: Checkout) -> None:
    """204 and legacy errors, by a setting: the SDK takes the success for an error."""
    charged = paid(box, sdk, checkout)
    box.post("settings", {"sumup": {"refund_status": 204}})
    with pytest.raises(APIError) as answer:
        refund(sdk, charged)
    assert answer.value.status == 204
    with pytest.raises(ConflictError) as refusal:
        refund(sdk, charged)
    assert refusal.value.response.json()["error_code"] == "CONFLICT"
    with pytest.raises(NotFoundError):
        sdk.transactions.refund(PLATFORM, "00000000-0000-4000-8000-000000000000")


def test_refunds_that_are_refused_by_a_setting(box: Sandbox, sdk: Sumup, checkout: Checkout) -> None:
    charged = paid(box, sdk, checkout)
    box.post("settings", {"sumup": {"refund_outcome": "processor"}})
    with pytest.raises(UnprocessableEntityError):
        refund(sdk, charged)
    box.post("settings", {"sumup": {"refund_outcome": "no_balance"}})
    with pytest.raises(ConflictError, match="balance"):
        refund(sdk, charged)
    box.post("settings", {"sumup": {"refund_outcome": "ok"}})
    refund(sdk, charged)


def test_what_was_not_paid_cannot_be_refunded(box: Sandbox, sdk: Sumup, checkout: Checkout) -> None:
    box.do(str(checkout.id), "decline")
    (failed,) = sdk.checkouts.get(str(checkout.id)).transactions or []
    with pytest.raises(ConflictError):
        sdk.transactions.refund(PLATFORM, str(failed.id))


# --- the list of transactions


def test_history(box: Sandbox, sdk: Sumup, wanted: dict[str, Any]) -> None:
    made = [sdk.checkouts.create(**wanted | {"checkout_reference": f"h{i}"}) for i in range(3)]
    charged = [paid(box, sdk, checkout) for checkout in made]
    codes = [t.transaction_code for t in charged]
    assert [t.transaction_code for t in sdk.transactions.list(PLATFORM).items or ()] == codes
    newest = sdk.transactions.list(PLATFORM, order="descending", limit=2)
    assert [t.transaction_code for t in newest.items or ()] == codes[:0:-1]
    assert [link.rel for link in newest.links or ()] == ["next"]
    rest = sdk.transactions.list(PLATFORM, order="descending", newest_ref=str(charged[1].id))
    assert [t.transaction_code for t in rest.items or ()] == codes[:1]
    assert rest.links == []


def test_what_changed_since(box: Sandbox, sdk: Sumup, wanted: dict[str, Any]) -> None:
    first = sdk.checkouts.create(**wanted)
    second = sdk.checkouts.create(**wanted | {"checkout_reference": "second"})
    paid(box, sdk, first)
    charged = paid(box, sdk, second)
    box.advance(3600)
    since = now(box) - timedelta(minutes=1)
    assert sdk.transactions.list(PLATFORM, changes_since=since).items == []
    refund(sdk, charged, amount=5)
    (changed,) = sdk.transactions.list(PLATFORM, changes_since=since).items or []
    assert (changed.transaction_id, changed.refunded_amount) == (charged.id, 5.0)
    statuses = sdk.transactions.list(PLATFORM, statuses=["SUCCESSFUL"]).items or ()
    assert len(list(statuses)) == 1


# --- merchants


def test_who_a_token_speaks_for(box: Sandbox, sdk: Sumup, plain: httpx.Client) -> None:
    assert sdk.merchants.get(PLATFORM).default_currency == "EUR"
    assert plain.get("/v0.1/me").json()["merchant_profile"]["merchant_code"] == PLATFORM
    with sumup_client(box, token_of(box, "MALPHORN")["access_token"]) as alphorn:
        members = alphorn.memberships.list(kind="merchant", status="accepted", limit=25)
        assert [(m.resource_id, m.resource.name) for m in members.items] == [("MALPHORN", "Alphorn im Hof")]
        assert alphorn.memberships.list(kind="organization").items == []
        assert alphorn.merchants.get("MALPHORN").default_currency == "CHF"
