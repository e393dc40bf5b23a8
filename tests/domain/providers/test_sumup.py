"""SumUp's own traps: what its answers may look like that no other provider's do.

The contract's suite runs SumUp over the sandbox. Here the wire says by hand what a provider should not.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

import config
from domain import clock
from domain.providers.contract import LineItem, Missing, ProviderError
from domain.providers.sumup import SumUpProvider
from tests.support.sumup_wire import (
    AT,
    CHARGE_ID,
    CHECKOUT_ID,
    HISTORY,
    REFUNDS,
    attempt,
    checkout,
    paid,
    purchase,
    transaction,
    went,
)
from tests.support.wire import Wire

# --- What is asked for ----------------------------------------------------------------------------------


def test_the_parameters_are_what_is_sent(sumup: SumUpProvider, wire: Wire) -> None:
    params = sumup.params(purchase())
    assert params == {
        "checkout_reference": "P-1",
        "amount": 25.0,
        "currency": "EUR",
        "merchant_code": "MC1",
        "description": "ORD-7KQ2MPXA: 2 × Concert – Seat",
        "hosted_checkout": {"enabled": True},
        "redirect_url": "http://localhost/pay/success/x/y?session_id=P-1",
        "return_url": "http://localhost/sumup/webhook/",
        "valid_until": "2026-11-21T10:00:30+00:00",
    }
    wire.say("POST /v0.1/checkouts", 201, checkout())
    report = sumup.create(json.loads(json.dumps(params)), "key-1")
    (sent,) = wire.requests
    assert json.loads(sent.body) == params
    assert sent.headers["authorization"] == "Bearer sup_sk_wire"
    assert (report.state, report.url) == ("open", "https://checkout.sumup.com/pay/x")


@pytest.mark.parametrize(
    ("minor", "currency", "major"),
    [(30, "EUR", 0.3), (199_999, "EUR", 1999.99), (2500, "CLP", 2500.0), (150_000, "HUF", 1500.0)],
)
def test_amounts_are_major_units(sumup: SumUpProvider, minor: int, currency: str, major: float) -> None:
    assert sumup.params(purchase(amount_minor=minor, currency=currency))["amount"] == major


def test_a_long_name_is_cut_and_a_long_reference_is_refused(sumup: SumUpProvider) -> None:
    long = sumup.params(purchase(lines=(LineItem("x" * 300, 1, 2500),)))
    assert len(long["description"]) == 150
    with pytest.raises(ValueError, match="64"):
        sumup.params(purchase(reference="x" * 65))


def test_it_says_what_it_takes(sumup: SumUpProvider) -> None:
    assert sumup.supports("EUR") and not sumup.supports("KZT") and not sumup.supports("AED")
    assert (sumup.minimum_minor("EUR"), sumup.minimum_minor("CLP")) == (100, 1)
    assert sumup.open_minutes == config.get().max_poll_duration_minutes
    assert sumup.pages(clock.now(), clock.now()) is None


# --- Amounts that come back -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "currency", "minor"),
    [
        (b"0.30000000000000004", "EUR", 30),
        (b"25.000000000000004", "EUR", 2500),
        (b"1999.9899999999998", "EUR", 199_999),
        (b"25", "EUR", 2500),
        (b"2500", "CLP", 2500),
        (b"1500.5", "HUF", 150_050),
        (b"999999.99", "EUR", 99_999_999),
    ],
)
def test_a_float_is_read_as_what_was_meant(
    sumup: SumUpProvider, wire: Wire, sent: bytes, currency: str, minor: int
) -> None:
    body = json.dumps(checkout(amount="AMOUNT", currency=currency)).encode()
    wire.say(f"GET {AT}", 200, body.replace(b'"AMOUNT"', sent))
    assert sumup.fetch(CHECKOUT_ID).amount_minor == minor


@pytest.mark.parametrize("sent", [b"25.004", b"NaN", b"Infinity", b"1e400", b"null", b'"much"', b"[]"])
def test_what_is_no_amount_is_unreadable(sumup: SumUpProvider, wire: Wire, sent: bytes) -> None:
    body = json.dumps(checkout(amount="AMOUNT")).encode()
    wire.say(f"GET {AT}", 200, body.replace(b'"AMOUNT"', sent))
    with pytest.raises(ProviderError) as unknown:
        sumup.fetch(CHECKOUT_ID)
    assert (unknown.value.permanent, unknown.value.code) == (False, "unreadable")


# --- States ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "attempts", "state"),
    [
        ("PENDING", [], "open"),
        ("PENDING", ["PENDING"], "open"),
        ("FAILED", ["FAILED"], "open"),
        ("FAILED", [], "open"),
        ("PENDING", ["FAILED", "SUCCESSFUL"], "processing"),
        ("FAILED", ["SUCCESSFUL", "FAILED"], "processing"),
        ("PAID", ["FAILED", "CANCELLED", "SUCCESSFUL"], "paid"),
        ("PAID", ["REFUNDED"], "paid"),
        ("EXPIRED", [], "expired"),
        ("EXPIRED", ["FAILED"], "failed"),
    ],
)
def test_states(sumup: SumUpProvider, wire: Wire, status: str, attempts: list[str], state: str) -> None:
    tried = [attempt(word, id=f"tx-{number}") for number, word in enumerate(attempts)]
    wire.say(f"GET {AT}", 200, checkout(status, *tried))
    report = sumup.fetch(CHECKOUT_ID)
    assert (report.state, report.amount_minor, report.reference) == (state, 2500, "P-1")
    assert bool(report.url) == (state == "open")
    assert bool(report.reason) == (state == "failed" or status == "FAILED" and state == "open")
    assert report.charge_id == (f"tx-{len(attempts) - 1}" if state == "paid" else None)


@pytest.mark.parametrize("status", ["REFUNDED", "paid", "", None])
def test_a_status_that_nobody_knows_changes_nothing(
    sumup: SumUpProvider, wire: Wire, status: str | None
) -> None:
    wire.say(f"GET {AT}", 200, checkout() | {"status": status})
    with pytest.raises(ProviderError) as unknown:
        sumup.fetch(CHECKOUT_ID)
    assert (unknown.value.permanent, unknown.value.code) == (False, "unreadable")


@pytest.mark.parametrize("name", ["id", "amount", "currency", "checkout_reference", "merchant_code"])
def test_a_report_needs_all_that_settles(sumup: SumUpProvider, wire: Wire, name: str) -> None:
    body = checkout("PAID", attempt())
    del body[name]
    wire.say(f"GET {AT}", 200, body)
    with pytest.raises(ProviderError) as unknown:
        sumup.fetch(CHECKOUT_ID)
    assert (unknown.value.permanent, unknown.value.code) == (False, "unreadable")


@pytest.mark.parametrize(
    ("status", "attempts", "more", "amount"),
    [
        # Paid, and nothing proves it; paid twice; an amount that was changed on either side.
        ("PAID", [], {}, 0),
        ("PAID", [attempt("PENDING")], {}, 0),
        ("PAID", [attempt(), attempt(id="tx-2")], {}, 5000),
        ("PAID", [attempt(amount=26.0)], {}, 2600),
        ("PAID", [attempt()], {"amount": 26.0}, 2500),
        # Another transaction, account or currency; and one that was paid although it had ended.
        ("PAID", [attempt()], {"transaction_id": "tx-2"}, 2500),
        ("PAID", [attempt(merchant_code="MC2")], {}, 2500),
        ("PAID", [attempt(currency="USD")], {}, 2500),
        ("EXPIRED", [attempt()], {}, 2500),
    ],
)
def test_a_paid_checkout_that_contradicts_itself_matches_no_payment(
    sumup: SumUpProvider,
    wire: Wire,
    status: str,
    attempts: list[dict[str, Any]],
    more: dict[str, Any],
    amount: int,
) -> None:
    wire.say(f"GET {AT}", 200, checkout(status, *attempts, **more))
    report = sumup.fetch(CHECKOUT_ID)
    assert (report.state, report.amount_minor) == ("paid", amount)
    told = (report.amount_minor, report.currency, report.reference, report.account)
    assert told != (2500, "EUR", "P-1", "MC1")


def test_what_still_failed_after_closing_has_failed(sumup: SumUpProvider, wire: Wire) -> None:
    wire.say(f"DELETE {AT}", 409, {"error_code": "CHECKOUT_PROCESSED", "message": "Already processed"})
    wire.say(f"GET {AT}", 200, checkout("FAILED", attempt("FAILED")))
    assert sumup.fetch(CHECKOUT_ID).state == "open"
    closed = sumup.close(CHECKOUT_ID, "close-1")
    assert closed.state == "failed" and closed.reason and closed.url is None


def test_somebody_who_is_paying_is_not_closed(sumup: SumUpProvider, wire: Wire) -> None:
    wire.say(
        f"DELETE {AT}", 409, {"title": "Session can't be deactivated", "type": "https://x/y", "status": 409}
    )
    wire.say(f"GET {AT}", 200, checkout("PENDING", attempt("PENDING")))
    assert sumup.close(CHECKOUT_ID, "close-1").state == "open"


# --- Create ---------------------------------------------------------------------------------------------


def duplicate() -> dict[str, str]:
    return {"error_code": "DUPLICATED_CHECKOUT", "message": "Checkout with this reference already exists"}


def test_a_duplicate_is_adopted(sumup: SumUpProvider, wire: Wire) -> None:
    other = checkout(checkout_reference="P-10", id="other")
    wire.say("POST /v0.1/checkouts", 409, duplicate())
    wire.say("GET /v0.1/checkouts", 200, [other, checkout()])
    wire.say(f"GET {AT}", 200, checkout())
    report = sumup.create(sumup.params(purchase()), "key-1")
    assert (report.provider_id, report.state) == (CHECKOUT_ID, "open")
    assert [request.path for request in wire.requests][1] == "/v0.1/checkouts?checkout_reference=P-1"


def test_a_duplicate_that_cannot_be_seen_is_no_last_word(sumup: SumUpProvider, wire: Wire) -> None:
    wire.say("POST /v0.1/checkouts", 409, duplicate()).say("GET /v0.1/checkouts", 200, [])
    with pytest.raises(ProviderError) as unknown:
        sumup.create(sumup.params(purchase()), "key-1")
    assert not unknown.value.permanent


@pytest.mark.parametrize("status", [200, 202, 204, 302])
def test_only_the_declared_status_says_that_it_was_opened(
    sumup: SumUpProvider, wire: Wire, status: int
) -> None:
    """Then it is not known what was done; whoever can wait looks for it, and nobody asks twice."""
    wire.say("POST /v0.1/checkouts", status, checkout())
    with pytest.raises(ProviderError) as unknown:
        sumup.create(sumup.params(purchase()), "key-1")
    assert (unknown.value.permanent, unknown.value.code) == (False, "unreadable")
    wire.say("GET /v0.1/checkouts", 200, []).say("GET /v0.1/checkouts", 200, [checkout()])
    wire.say(f"GET {AT}", 200, checkout())
    assert sumup.create(sumup.params(purchase()), "key-1", patient=True).provider_id == CHECKOUT_ID
    assert wire.count("POST /v0.1/checkouts") == 2


def test_the_worker_looks_before_it_asks_again(sumup: SumUpProvider, wire: Wire) -> None:
    wire.say("GET /v0.1/checkouts", 200, [checkout()]).say(f"GET {AT}", 200, checkout())
    assert sumup.create(sumup.params(purchase()), "key-1", patient=True).provider_id == CHECKOUT_ID
    assert wire.count("POST /v0.1/checkouts") == 0


@pytest.mark.parametrize(
    ("status", "body", "words", "code"),
    [
        (
            400,
            {"error_code": "MISSING", "message": "Validation error", "param": "amount"},
            "(amount)",
            "MISSING",
        ),
        (
            400,
            [{"error_code": "INVALID", "message": "a"}, {"message": "b", "param": "c"}],
            "a; b (c)",
            "INVALID",
        ),
        (
            403,
            {"error_message": "not_allowed", "error_code": "FORBIDDEN", "status_code": "403"},
            "not_allowed",
            "",
        ),
        (
            422,
            {"type": "https://d.sumup.com/problem/odd-thing/", "title": "Odd", "status": 422},
            "Odd",
            "odd-thing",
        ),
        (418, "short and stout", "418", "http_418"),
    ],
)
def test_errors_of_every_form_are_put_into_words(
    sumup: SumUpProvider, wire: Wire, status: int, body: Any, words: str, code: str
) -> None:
    wire.say("POST /v0.1/checkouts", status, body)
    with pytest.raises(ProviderError) as refused:
        sumup.create(sumup.params(purchase()), "key-1")
    assert refused.value.permanent
    assert words in str(refused.value)
    assert refused.value.code == (code or "forbidden")


_FORMS: dict[str, Any] = {
    "one": {"error_code": "ODD", "message": "The amount is odd.", "param": "amount"},
    "several": [{"error_code": "ODD", "message": "The amount is odd."}, {"message": "And late."}],
    "extended": {"error_message": "The amount is odd.", "error_code": "ODD", "status_code": "400"},
    "problem": {"type": "https://d.sumup.com/problem/odd", "title": "Odd", "detail": "The amount is odd."},
    "wrapped": {"errors": {"detail": "The amount is odd.", "type": "ODD"}},
}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 429, 500])
@pytest.mark.parametrize("form", _FORMS)
def test_no_form_of_an_error_loses_its_reason(
    sumup: SumUpProvider, wire: Wire, form: str, status: int
) -> None:
    """Whichever the SDK expects at a call: of another form it keeps nothing but the number."""
    wire.say("POST /v0.1/checkouts", status, _FORMS[form]).say(f"GET {AT}", status, _FORMS[form])
    with pytest.raises(ProviderError, match="The amount is odd"):
        sumup.create(sumup.params(purchase()), "key-1")
    with pytest.raises(ProviderError, match="The amount is odd"):
        sumup.fetch(CHECKOUT_ID)


def test_what_may_not_be_read_may_still_be_true(sumup: SumUpProvider, wire: Wire) -> None:
    wire.say(f"GET {AT}", 403, {"error_message": "missing scope", "error_code": "FORBIDDEN"})
    with pytest.raises(ProviderError) as refused:
        sumup.fetch(CHECKOUT_ID, patient=True)
    assert not refused.value.permanent and refused.value.code == "forbidden"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_no_answer_sends_our_key_elsewhere(sumup: SumUpProvider, wire: Wire, status: int) -> None:
    wire.say(f"GET {AT}", status)
    with pytest.raises(ProviderError) as unknown:
        sumup.fetch(CHECKOUT_ID)
    assert unknown.value.code == "unreadable" and len(wire.requests) == 1


@pytest.mark.parametrize("body", [b"<html>", b"", b"null", b"[]", b'"x"', b"[" * 100_000, b"\xff\xfe"])
def test_an_answer_that_cannot_be_read_says_so(sumup: SumUpProvider, wire: Wire, body: bytes) -> None:
    wire.say(f"GET {AT}", 200, body)
    with pytest.raises(ProviderError) as unknown:
        sumup.fetch(CHECKOUT_ID)
    assert (unknown.value.permanent, unknown.value.code) == (False, "unreadable")


def test_errors_quote_no_key_and_no_buyer(sumup: SumUpProvider, wire: Wire) -> None:
    wire.say(f"GET {AT}", 200, checkout() | {"transactions": [{"amount": "Ada Lovelace"}]})
    with pytest.raises(ProviderError) as unknown:
        sumup.fetch(CHECKOUT_ID)
    assert "Lovelace" not in str(unknown.value) and "sup_sk_wire" not in str(unknown.value)


def test_a_cookie_is_not_kept(sumup: SumUpProvider, wire: Wire) -> None:
    wire.say(f"GET {AT}", 200, checkout())
    sumup.fetch(CHECKOUT_ID)
    sumup.fetch(CHECKOUT_ID)
    assert [request.headers.get("cookie") for request in wire.requests] == [None, None]


# --- Refunds and chargebacks ----------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "body"), [(201, {}), (201, {"any": "thing"}), (204, b"")])
def test_both_forms_of_a_refund_are_a_success(
    sumup: SumUpProvider, wire: Wire, status: int, body: Any
) -> None:
    paid(wire)
    wire.say(f"POST {REFUNDS}", status, body)
    refund = sumup.refund(CHECKOUT_ID, 1010, "refund-1")
    assert (refund.provider_id, refund.amount_minor, refund.currency, refund.state) == (
        "",
        1010,
        "EUR",
        "succeeded",
    )
    assert json.loads(wire.requests[-1].body) == {"amount": 10.1}


@pytest.mark.parametrize(
    ("status", "permanent"), [(200, False), (202, False), (400, True), (403, True), (409, True), (422, True)]
)
def test_what_a_refused_refund_means(sumup: SumUpProvider, wire: Wire, status: int, permanent: bool) -> None:
    paid(wire)
    wire.say(f"POST {REFUNDS}", status, {"title": "No", "type": "https://x/not-refundable", "status": status})
    with pytest.raises(ProviderError) as refused:
        sumup.refund(CHECKOUT_ID, 1000, "refund-1", patient=True)
    assert refused.value.permanent is permanent
    assert wire.count(f"POST {REFUNDS}") == 1


def test_the_events_of_a_transaction_are_its_refunds(sumup: SumUpProvider, wire: Wire) -> None:
    """The checkout and its transaction stay SUCCESSFUL when all is given back: only the events tell."""
    payout = went(9, 25.0, "PAID_OUT", "PAYOUT")
    paid(wire, went(1, 5.1), payout, went(2, 0.30000000000000004, "PENDING"), went(3, 1.0, "FAILED"))
    report = sumup.fetch(CHECKOUT_ID)
    assert [(r.provider_id, r.amount_minor, r.state) for r in report.refunds] == [
        (f"{CHARGE_ID}:1", 510, "succeeded"),
        (f"{CHARGE_ID}:2", 30, "pending"),
        (f"{CHARGE_ID}:3", 100, "failed"),
    ]
    assert sumup.refunded_minor(CHECKOUT_ID) == 540
    assert (report.state, report.amount_minor, report.disputes) == ("paid", 2500, ())


def test_the_compact_list_of_events_is_read_too(sumup: SumUpProvider, wire: Wire) -> None:
    wire.say(f"GET {AT}", 200, checkout("PAID", attempt()))
    event = {"id": 1, "type": "REFUND", "status": "REFUNDED", "amount": 25.0}
    wire.say(f"GET {HISTORY}", 200, transaction(events=[event]))
    assert sumup.refunded_minor(CHECKOUT_ID) == 2500


def test_a_chargeback_is_a_dispute(sumup: SumUpProvider, wire: Wire) -> None:
    paid(wire, went(4, 25.0, "SUCCESSFUL", "CHARGE_BACK"))
    (dispute,) = sumup.fetch(CHECKOUT_ID).disputes
    assert (dispute.provider_id, dispute.amount_minor, dispute.state) == (f"{CHARGE_ID}:4", 2500, "lost")


def test_that_it_was_paid_does_not_wait_for_its_refunds(sumup: SumUpProvider, wire: Wire) -> None:
    wire.say(f"GET {AT}", 200, checkout("PAID", attempt())).say(f"GET {HISTORY}", 500)
    assert sumup.fetch(CHECKOUT_ID).state == "paid"
    assert sumup.fetch(CHECKOUT_ID, patient=True).charge_id == CHARGE_ID
    for asks in (lambda: sumup.fetch(CHECKOUT_ID, thorough=True), lambda: sumup.refunded_minor(CHECKOUT_ID)):
        with pytest.raises(ProviderError) as unknown:
            asks()
        assert not unknown.value.permanent


@pytest.mark.parametrize(
    "full",
    [
        transaction(status="REFUNDED"),
        transaction(went(1, 5.0, "BOUNCED")),
        transaction({"id": 1, "event_type": "REFUND", "status": "REFUNDED"}),
        transaction(id="another"),
    ],
)
def test_a_sum_that_is_not_told_is_not_guessed(
    sumup: SumUpProvider, wire: Wire, full: dict[str, Any]
) -> None:
    wire.say(f"GET {AT}", 200, checkout("PAID", attempt())).say(f"GET {HISTORY}", 200, full)
    with pytest.raises(ProviderError) as unknown:
        sumup.refunded_minor(CHECKOUT_ID)
    assert (unknown.value.permanent, unknown.value.code) == (False, "unreadable")


def test_a_transaction_that_is_not_to_be_seen_is_not_missing(sumup: SumUpProvider, wire: Wire) -> None:
    wire.say(f"GET {AT}", 200, checkout("PAID", attempt()))
    with pytest.raises(ProviderError) as unknown:
        sumup.refunded_minor(CHECKOUT_ID)
    assert not unknown.value.permanent and not isinstance(unknown.value, Missing)


def test_health_is_about_the_account_and_shows_no_key(sumup: SumUpProvider, wire: Wire) -> None:
    stamps = {"created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z"}
    merchant = {"merchant_code": "MC1", "country": "DE", "default_currency": "EUR", "default_locale": "de-DE"}
    wire.say("GET /v1/merchants/MC1", 200, merchant | stamps | {"sandbox": True})
    told = sumup.health()
    assert (told["account"], told["mode"], told["test_account"]) == ("MC1", "test", True)
    assert "sup_sk_wire" not in json.dumps(dict(told)) and "whsec_wire" not in json.dumps(dict(told))


def test_times_are_aware(sumup: SumUpProvider, wire: Wire) -> None:
    wire.say(f"GET {AT}", 200, checkout(date="2026-11-21T10:00:00", valid_until="2026-11-21T12:00:00+02:00"))
    report = sumup.fetch(CHECKOUT_ID)
    assert report.created_at == datetime(2026, 11, 21, 10, tzinfo=UTC) == report.expires_at
