"""SumUp's own traps: what its answers may look like that no other provider's do.

The contract's suite runs SumUp over the sandbox. Here the wire says by hand what a provider should not.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from threading import Barrier
from typing import Any

import pytest

import config
from domain import clock
from domain.providers import BadSignature, LineItem, Missing, ProviderError, Purchase, connecting
from domain.providers import sumup as adapter
from domain.providers.connecting import Owner, Refused
from domain.providers.sumup import SumUpProvider
from domain.providers.sumup_oauth import SumUpConnector
from tests.support.benches import Tokens
from tests.support.wire import Wire, start_wire

CHECKOUT_ID = "4e425463-3e1b-431d-83fa-1e51c2925e99"
CHARGE_ID = "410fc44a-5956-44e1-b5cc-19c6f8d727a4"
AT = f"/v0.1/checkouts/{CHECKOUT_ID}"
HISTORY = "/v2.1/merchants/MC1/transactions"
REFUNDS = f"/v1.0/merchants/MC1/payments/{CHARGE_ID}/refunds"


@pytest.fixture(scope="module")
def _wire() -> Iterator[Wire]:
    wire = start_wire()
    yield wire
    wire.stop()


@pytest.fixture
def wire(_wire: Wire) -> Wire:
    """A wire that nobody has said anything on."""
    _wire.forget()
    return _wire


@pytest.fixture
def settings(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> config.Settings:
    """A Kassa whose SumUp is the wire. It needs no database: adapters have none."""
    least = {"SECRET_KEY": "x" * 32, "DATABASE_URL": "postgresql://h/n", "REDIS_URL": "redis://h"}
    found = replace(
        config.load({"KASSA_ENV": "development", **least}),
        sumup_api_key="sup_sk_wire",
        sumup_merchant_code="MC1",
        sumup_client_id="app-1",
        sumup_client_secret="app-secret",
        sumup_webhook_secret="whsec_wire",
        sumup_api_base=wire.url,
        sumup_rate_per_second=1000,
        sumup_test_account=True,
    )
    monkeypatch.setattr(config, "_current", found)
    return found


@pytest.fixture
def sumup(settings: config.Settings) -> SumUpProvider:
    """The adapter of the platform's account."""
    return adapter.build(settings)


def attempt(status: str = "SUCCESSFUL", **more: Any) -> dict[str, Any]:
    """One attempt to pay, as a checkout shows it."""
    return {
        "id": CHARGE_ID,
        "amount": 25.0,
        "currency": "EUR",
        "status": status,
        "merchant_code": "MC1",
    } | more


def checkout(status: str = "PENDING", *attempts: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A checkout as SumUp shows it."""
    return {
        "id": CHECKOUT_ID,
        "checkout_reference": "P-1",
        "amount": 25.0,
        "currency": "EUR",
        "merchant_code": "MC1",
        "status": status,
        "date": "2026-11-21T10:00:00.000+00:00",
        "hosted_checkout_url": "https://checkout.sumup.com/pay/x",
        "transactions": list(attempts),
    } | more


def transaction(*events: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A transaction with all that became of it."""
    return attempt(simple_status="SUCCESSFUL", transaction_events=list(events), events=[]) | more


def went(number: int, amount: float, status: str = "REFUNDED", kind: str = "REFUND") -> dict[str, Any]:
    """An event of a transaction."""
    return {"id": number, "event_type": kind, "status": status, "amount": amount}


def paid(wire: Wire, *events: dict[str, Any], **more: Any) -> None:
    """Let the checkout be paid, with such events of its transaction."""
    wire.say(f"GET {AT}", 200, checkout("PAID", attempt(), transaction_id=CHARGE_ID, **more))
    wire.say(f"GET {HISTORY}", 200, transaction(*events))


def purchase(**more: Any) -> Purchase:
    """What somebody wants to pay for."""
    return replace(
        Purchase(
            reference="P-1",
            order_code="ORD-7KQ2MPXA",
            amount_minor=2500,
            currency="EUR",
            lines=(LineItem("Concert – Seat", 2, 1250),),
            email="ada@example.org",
            success_url="http://localhost/pay/success/x/y?session_id={CHECKOUT_SESSION_ID}",
            cancel_url="http://localhost/pay/cancel/x/y",
            closes_at=datetime(2026, 11, 21, 12, 0, 30, 5, timezone(timedelta(hours=2))),
            account="MC1",
            doorbell_url="http://localhost/sumup/webhook/",
        ),
        **more,
    )


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


# --- The right to speak ---------------------------------------------------------------------------------


def test_a_key_that_is_refused_fails_nothing(sumup: SumUpProvider, wire: Wire) -> None:
    wire.say(f"GET {AT}", 401, {"title": "Unauthorized", "status": 401, "type": "https://x/unauthorized"})
    with pytest.raises(ProviderError) as refused:
        sumup.fetch(CHECKOUT_ID, patient=True)
    assert (refused.value.permanent, refused.value.code) == (False, "unauthorised")
    assert len(wire.requests) == 1


def test_writes_are_repeated_with_a_renewed_token(settings: config.Settings, wire: Wire) -> None:
    """401 says that nothing was done, so that even a create may be asked for again."""
    tokens = Tokens("good")
    tokens.now = "stale"
    wire.say("POST /v0.1/checkouts", 401).say("POST /v0.1/checkouts", 201, checkout(merchant_code="MC2"))
    theirs = adapter.build(settings, "MC2", tokens)
    assert theirs.create(theirs.params(purchase()), "key-1").account == "MC2"
    assert [request.headers["authorization"] for request in wire.requests] == ["Bearer stale", "Bearer good"]


def test_many_threads_renew_what_they_were_refused(settings: config.Settings, wire: Wire) -> None:
    class Once(Tokens):
        """Credentials that the connection renews once, whoever asks."""

        def __init__(self) -> None:
            super().__init__("good")
            self.now = "stale"
            self.together = Barrier(8, timeout=10)

        def token(self) -> str:
            found = super().token()
            if found == "stale":
                self.together.wait()
            return found

        def renewed(self, rejected: str) -> str:
            self.rejected.append(rejected)
            self.now = self.right
            return self.right

    tokens = Once()
    wire.say(f"GET {AT}", 200, checkout(merchant_code="MC2"))
    wire.refused.add("Bearer stale")
    theirs = adapter.build(settings, "MC2", tokens)
    with ThreadPoolExecutor(8) as pool:
        reports = list(pool.map(lambda _: theirs.fetch(CHECKOUT_ID), range(8)))
    assert {report.state for report in reports} == {"open"}
    assert tokens.rejected == ["stale"] * 8 and wire.count(f"GET {AT}") == 16


# --- The doorbell ---------------------------------------------------------------------------------------


def status_changed(**more: Any) -> bytes:
    return json.dumps({"event_type": "CHECKOUT_STATUS_CHANGED", "id": CHECKOUT_ID} | more).encode()


def event(kind: str = "checkouts.paid") -> bytes:
    thing = {"id": CHECKOUT_ID, "type": kind.split(".")[0].rstrip("s"), "url": "https://api.sumup.com/x"}
    envelope = {"id": "evt_1", "type": kind, "created_at": "2026-11-21T10:00:00Z", "object": thing}
    return json.dumps(envelope).encode()


def signed(body: bytes, *, secret: str = "whsec_wire", when: float | None = None) -> dict[str, str]:
    moment = str(int(time.time() if when is None else when))
    mac = hmac.new(secret.encode(), b"v1:" + moment.encode() + b":" + body, hashlib.sha256).hexdigest()
    return {"x-sumup-webhook-signature": f"t={moment},v1={mac}"}


def test_an_unsigned_call_names_the_checkout(sumup: SumUpProvider) -> None:
    ring = sumup.ring(status_changed(), {})
    assert (ring.event_id, ring.provider_id, ring.only_of_paying) == ("", CHECKOUT_ID, False)
    assert sumup.ring(status_changed(event_type="SOMETHING_NEW"), {}).provider_id is None


def test_a_signed_event_is_remembered_by_its_id(sumup: SumUpProvider) -> None:
    ring = sumup.ring(event(), signed(event()))
    assert (ring.event_id, ring.type, ring.provider_id) == ("evt_1", "checkouts.paid", CHECKOUT_ID)
    assert ring.only_of_paying
    failed = event("checkouts.failed")
    assert not sumup.ring(failed, signed(failed)).only_of_paying
    unknown = event("members.created")
    assert sumup.ring(unknown, signed(unknown)).provider_id is None


@pytest.mark.parametrize(
    "headers",
    [
        signed(event(), secret="another"),
        signed(event("checkouts.failed")),
        signed(event(), when=time.time() - 3600),
        signed(event(), when=time.time() + 3600),
        {"x-sumup-webhook-signature": "t=1,v1=00"},
        {"x-sumup-webhook-signature": ""},
        {"x-sumup-webhook-signature": "\u2603"},
    ],
)
def test_a_forged_signature_is_refused(sumup: SumUpProvider, headers: dict[str, str]) -> None:
    with pytest.raises(BadSignature):
        sumup.ring(event(), headers)


def test_without_a_secret_a_signed_event_is_worth_as_much_as_any(settings: config.Settings) -> None:
    bell = adapter.build(replace(settings, sumup_webhook_secret=""))
    assert bell.rings
    ring = bell.ring(event(), signed(event()))
    assert (ring.event_id, ring.provider_id, ring.only_of_paying) == ("", CHECKOUT_ID, False)


@pytest.mark.parametrize(
    "body", [b'{"event_type": 1, "id": "x"}', b'{"event_type": "a", "id": {}}', b'{"id": ""}']
)
def test_a_call_without_names_is_refused(sumup: SumUpProvider, body: bytes) -> None:
    with pytest.raises(BadSignature):
        sumup.ring(body, {})


# --- Connecting accounts --------------------------------------------------------------------------------


@pytest.fixture
def connector(settings: config.Settings) -> SumUpConnector:
    found = connecting.get("sumup")
    assert isinstance(found, SumUpConnector)
    return found


def tokens(**more: Any) -> dict[str, Any]:
    return {"access_token": "at-1", "refresh_token": "rt-1", "expires_in": 3599, "scope": "payments"} | more


def test_the_address_to_send_an_organiser_to(connector: SumUpConnector, wire: Wire) -> None:
    url = connector.authorize_url("st at&e", "https://kassa.example/done")
    assert url.startswith(f"{wire.url}/authorize?response_type=code&client_id=app-1&")
    assert "redirect_uri=https%3A%2F%2Fkassa.example%2Fdone" in url and "state=st+at%26e" in url
    assert "scope=payments+transactions.history" in url and "app-secret" not in url
    assert not wire.requests


def test_a_code_and_a_refresh_token_become_tokens(connector: SumUpConnector, wire: Wire) -> None:
    wire.say("POST /token", 200, tokens()).say("POST /token", 200, tokens(refresh_token=None))
    first = connector.exchange("code-1", "https://kassa.example/done")
    assert (first.access, first.refresh, first.lives, first.scope) == (
        "at-1",
        "rt-1",
        timedelta(seconds=3599),
        "payments",
    )
    assert "at-1" not in repr(first) and "rt-1" not in repr(first)
    assert connector.refresh("rt-1").refresh == ""
    sent = [request.body.decode() for request in wire.requests]
    assert "grant_type=authorization_code" in sent[0] and "code=code-1" in sent[0]
    assert "redirect_uri=https%3A%2F%2Fkassa.example%2Fdone" in sent[0]
    assert "grant_type=refresh_token" in sent[1] and "refresh_token=rt-1" in sent[1]
    assert all("client_id=app-1" in body and "client_secret=app-secret" in body for body in sent)


@pytest.mark.parametrize(
    ("status", "body", "permanent", "code"),
    [
        (400, {"error": "invalid_grant"}, True, "invalid_grant"),
        (401, {"error": "invalid_grant"}, True, "invalid_grant"),
        (401, {"error": "invalid_client"}, True, "invalid_client"),
        (400, {"error": "invalid_scope"}, True, "invalid_scope"),
        (500, {"error": "invalid_grant"}, False, "invalid_grant"),
        (429, b"", False, "http_429"),
        (403, b"<html>", False, "http_403"),
        (302, b"", False, "http_302"),
        (200, b"<html>", False, "unreadable"),
        (200, {}, False, "unreadable"),
        (200, {"access_token": "", "expires_in": 3599}, False, "unreadable"),
        (200, {"access_token": "at", "expires_in": "soon"}, False, "unreadable"),
        (200, {"access_token": "at", "expires_in": 3599, "refresh_token": 7}, False, "unreadable"),
    ],
)
def test_only_invalid_grant_breaks_a_connection(
    connector: SumUpConnector, wire: Wire, status: int, body: Any, permanent: bool, code: str
) -> None:
    wire.say("POST /token", status, body)
    with pytest.raises(ProviderError) as refused:
        connector.refresh("rt-secret")
    assert (refused.value.permanent, refused.value.code) == (permanent, code)
    assert isinstance(refused.value, Refused) == (code == "invalid_grant" and status < 500)
    assert "rt-secret" not in str(refused.value) and "app-secret" not in str(refused.value)
    assert len(wire.requests) == 1


def test_silence_breaks_no_connection(settings: config.Settings) -> None:
    nobody = SumUpConnector(replace(settings, sumup_api_base="http://127.0.0.1:9"))
    for ask in (lambda: nobody.refresh("rt"), lambda: nobody.owner("at")):
        with pytest.raises(ProviderError) as silence:
            ask()
        assert (silence.value.permanent, silence.value.code) == (False, "unreachable")


def member(code: str, **more: Any) -> dict[str, Any]:
    stamps = {"created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z"}
    resource = {"id": code, "type": "merchant", "name": f"Shop {code}", **stamps}
    return {
        "id": f"mem-{code}",
        "resource_id": code,
        "type": "merchant",
        "roles": [],
        "permissions": [],
        "status": "accepted",
        "resource": resource,
        **stamps,
    } | more


def memberships(*members: dict[str, Any]) -> dict[str, Any]:
    return {"items": list(members), "total_count": len(members)}


def test_the_owner_of_a_token(connector: SumUpConnector, wire: Wire) -> None:
    other = member("ORG", type="organization"), member("MC3", status="pending")
    wire.say("GET /v0.1/memberships", 200, memberships(member("MC7"), *other))
    assert connector.owner("at-1") == Owner("MC7", "Shop MC7", "")
    assert wire.requests[0].headers["authorization"] == "Bearer at-1"
    stamps = {"created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z"}
    merchant = {"merchant_code": "MC7", "country": "DE", "default_currency": "EUR", "default_locale": "de-DE"}
    wire.say("GET /v1/merchants/MC7", 200, merchant | stamps)
    assert connector.owner("at-1") == Owner("MC7", "Shop MC7", "EUR")


@pytest.mark.parametrize(("members", "code"), [([], "no_account"), (["MC1", "MC2"], "several_accounts")])
def test_an_owner_that_cannot_be_told(
    connector: SumUpConnector, wire: Wire, members: list[str], code: str
) -> None:
    wire.say("GET /v0.1/memberships", 200, memberships(*map(member, members)))
    with pytest.raises(ProviderError) as refused:
        connector.owner("at-1")
    assert refused.value.permanent and refused.value.code == code


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
