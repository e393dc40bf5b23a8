"""The provider contract as one suite for every adapter: Stripe over the sandbox, the guide's toy, the wallet.

A new adapter needs a bench in tests/support/benches.py and nothing here; docs/adding-a-provider.md tells how.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask

from domain import clock, providers
from domain.errors import DomainError
from domain.providers import (
    BadSignature,
    Doorbell,
    LineItem,
    Missing,
    Provider,
    ProviderError,
    Purchase,
    Report,
    Throttle,
    calls,
)
from domain.providers import wallet as wallet_adapter
from tests.support.benches import BENCHES, Bench, StripeBench, fresh
from tests.support.sandbox import Sandbox

# Words a report may say.
STATES = {"open", "processing", "paid", "failed", "cancelled", "expired"}
# What a buyer pays unless a test says otherwise, in EUR.
AMOUNT = 2500


@pytest.fixture(params=sorted(BENCHES))
def bench(
    request: pytest.FixtureRequest, app: Flask, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> Bench:
    """Each adapter in turn, over an empty provider in which nothing goes wrong."""
    return BENCHES[request.param](sandbox, monkeypatch)


@pytest.fixture
def provider(bench: Bench) -> Provider:
    """The adapter as the domain gets it."""
    return bench.provider()


@pytest.fixture(params=sorted({*BENCHES, "wallet"}))
def any_provider(
    request: pytest.FixtureRequest, app: Flask, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> Provider:
    """Each adapter in turn, those included whose money never leaves our own ledger."""
    if request.param in BENCHES:
        return BENCHES[request.param](sandbox, monkeypatch).provider()
    return providers.get(str(request.param))


def purchase(provider: Provider, reference: str = "P-1", amount_minor: int = AMOUNT) -> Purchase:
    """What somebody wants to pay for: one line, in EUR."""
    return Purchase(
        reference=reference,
        order_code="ORD-7KQ2MPXA",
        amount_minor=amount_minor,
        currency="EUR",
        lines=(LineItem("Concert – Seat", 1, amount_minor),),
        email="ada@example.org",
        success_url="http://localhost/pay/success/x/y?session_id={CHECKOUT_SESSION_ID}",
        cancel_url="http://localhost/pay/cancel/x/y",
        closes_at=clock.now() + timedelta(minutes=provider.open_minutes),
        account=provider.account,
        doorbell_url=f"http://localhost/{provider.name}/webhook/",
    )


def opened(provider: Provider, reference: str = "P-1", **more: Any) -> Report:
    """A payment that waits for its buyer."""
    wanted = purchase(provider, reference, **more)
    return provider.create(provider.params(wanted), f"key-{reference}")


def paid(bench: Bench, reference: str = "P-1") -> str:
    """The id of a payment that was paid."""
    made = opened(bench.provider(), reference)
    bench.do(made.provider_id, "pay")
    return made.provider_id


def assert_about(report: Report, provider: Provider, reference: str = "P-1") -> None:
    """The report names the payment as settle compares it: all of it, whatever the state."""
    assert report.provider == provider.name
    assert (report.amount_minor, report.currency) == (AMOUNT, "EUR")
    assert (report.reference, report.account) == (reference, provider.account)
    assert report.livemode is provider.livemode
    assert report.state in STATES
    assert report.created_at is None or report.created_at.tzinfo is not None
    json.dumps(dict(report.raw))


# --- What is said without asking ------------------------------------------------------------------------


def test_every_adapter_is_tested_here() -> None:
    assert set(providers.names()) - {"wallet"} <= set(BENCHES), "Add a bench to tests/support/benches.py."


def test_an_adapter_has_all_of_the_contract(any_provider: Provider) -> None:
    wanted = {name for name in (*dir(Provider), *Provider.__annotations__) if not name.startswith("_")}
    lacking = {name for name in wanted if not hasattr(any_provider, name)}
    assert lacking == set(), "docs/adding-a-provider.md tells what each of them is."


def test_an_adapter_says_what_it_can(any_provider: Provider) -> None:
    for name in ("immediate", "connects", "pending_alert", "keeps_refund_keys", "ready", "livemode"):
        assert isinstance(getattr(any_provider, name), bool), name
    assert any_provider.open_minutes > 0
    assert any_provider.grace_minutes >= 0


def test_an_adapter_introduces_itself(any_provider: Provider) -> None:
    assert isinstance(any_provider, Provider)
    assert any_provider.ready and any_provider.label and any_provider.account
    assert any_provider is providers.get(any_provider.name)
    assert any_provider.livemode is False
    assert any_provider.supports("EUR")
    assert any_provider.minimum_minor("EUR") > 0


def test_parameters_survive_being_stored(any_provider: Provider) -> None:
    wanted, before = purchase(any_provider), calls.total
    params = any_provider.params(wanted)
    assert json.loads(json.dumps(params)) == params
    assert any_provider.params(wanted) == params
    assert calls.total == before


def test_without_settings_an_adapter_is_not_ready_and_asks_nobody(bench: Bench) -> None:
    unready = bench.unready()
    assert not unready.ready
    with pytest.raises(ProviderError) as refused:
        unready.fetch(bench.unknown_id)
    assert not refused.value.permanent and not isinstance(refused.value, Missing)
    assert bench.received() == 0


# --- Create ---------------------------------------------------------------------------------------------


def test_create_opens_a_payment(bench: Bench, provider: Provider) -> None:
    before = calls.total
    report = opened(provider)
    assert_about(report, provider)
    assert report.state == "open" and report.provider_id
    assert report.url is not None and report.url.startswith("http")
    assert report.charge_id is None and not report.refunds and not report.disputes
    assert bench.payments() == 1
    assert calls.total == before + bench.received()


def test_the_same_key_is_the_same_payment(bench: Bench, provider: Provider) -> None:
    params = provider.params(purchase(provider))
    first = provider.create(params, "key-1")
    again = provider.create(json.loads(json.dumps(params)), "key-1", patient=True)
    assert again.provider_id == first.provider_id
    assert bench.payments() == 1


def test_another_attempt_is_another_payment(bench: Bench, provider: Provider) -> None:
    assert opened(provider, "P-1").provider_id != opened(provider, "P-2").provider_id
    assert bench.payments() == 2


def test_parameters_that_are_refused_are_refused_for_good(bench: Bench, provider: Provider) -> None:
    with pytest.raises(ProviderError) as refused:
        provider.create(bench.spoil(provider.params(purchase(provider))), "key-1")
    assert refused.value.permanent and not isinstance(refused.value, Missing)
    assert bench.payments() == 0


def test_the_smallest_amount_can_be_taken(provider: Provider) -> None:
    least = provider.minimum_minor("EUR")
    assert opened(provider, amount_minor=least).amount_minor == least


def test_a_lost_answer_is_found_again_both_ways(bench: Bench, provider: Provider) -> None:
    began = clock.now()
    params = provider.params(purchase(provider))
    bench.trouble("timeout_after", times=1)
    with pytest.raises(ProviderError) as lost:
        provider.create(params, "key-1")
    assert not lost.value.permanent
    assert bench.payments() == 1
    by_reference = provider.find("P-1", began)
    repeated = provider.create(params, "key-1", patient=True)
    assert by_reference is not None and by_reference.provider_id == repeated.provider_id
    assert_about(by_reference, provider)
    assert bench.payments() == 1


# --- Find, fetch, pages ---------------------------------------------------------------------------------


def test_find_tells_absent_from_unknown(bench: Bench, provider: Provider) -> None:
    began = clock.now()
    opened(provider, "P-1")
    assert provider.find("P-2", began) is None
    bench.trouble("http_500")
    with pytest.raises(ProviderError):
        provider.find("P-2", began)


def test_find_has_the_last_word_on_its_state(bench: Bench, provider: Provider) -> None:
    began = clock.now()
    made = paid(bench)
    opened(provider, "P-2")
    found = provider.find("P-1", began)
    assert found is not None and (found.provider_id, found.state) == (made, "paid")
    assert found.charge_id


@pytest.mark.parametrize("state", sorted(STATES))
def test_fetch_in_each_state(bench: Bench, provider: Provider, state: str) -> None:
    if state not in bench.states:
        # Not a skip: the provider has no such state, and the bench says so.
        assert bench.states.keys() < STATES
        return
    made = opened(provider)
    for action in bench.states[state]:
        bench.do(made.provider_id, action)
    for patient in (False, True):
        report = provider.fetch(made.provider_id, patient=patient, thorough=patient)
        assert report.state == state
        assert_about(report, provider)
        assert report.provider_id == made.provider_id
        assert (report.charge_id is not None) == (state == "paid")
        assert (report.url is not None) == (state == "open")
        assert bool(report.reason) == (state == "failed")


def test_every_bench_reaches_the_states_that_decide() -> None:
    for bench in BENCHES.values():
        assert {"open", "paid", "expired"} <= bench.states.keys() <= STATES


def test_a_refused_card_leaves_it_open_with_the_reason(bench: Bench, provider: Provider) -> None:
    made = opened(provider)
    bench.do(made.provider_id, "decline")
    report = provider.fetch(made.provider_id)
    assert report.state == "open" and report.reason and report.url
    bench.do(made.provider_id, "pay")
    assert provider.fetch(made.provider_id).state == "paid"


def test_a_charge_keeps_its_name(bench: Bench, provider: Provider) -> None:
    made = paid(bench)
    assert provider.fetch(made).charge_id == provider.fetch(made, thorough=True).charge_id
    other = paid(bench, "P-2")
    assert provider.fetch(other).charge_id != provider.fetch(made).charge_id


def test_what_is_not_there_is_missing(bench: Bench, provider: Provider) -> None:
    for unknown in (bench.unknown_id, "", "..", "../refunds", "x" * 300, "a b"):
        with pytest.raises(Missing) as missing:
            provider.fetch(unknown)
        assert missing.value.permanent


def test_pages_have_every_payment_of_their_time(bench: Bench, provider: Provider) -> None:
    began = datetime.fromtimestamp(int(time.time()), UTC)
    made = {opened(provider, f"P-{number}").provider_id for number in range(105)}
    now = clock.now()
    pages = provider.pages(began, now)
    if pages is None:
        assert not bench.lists
        return
    before = bench.received()
    listed = [report for page in pages for report in page]
    assert [report.provider_id for report in listed if report.provider_id not in made] == []
    assert len(listed) == len(made) == len({report.provider_id for report in listed})
    assert bench.received() - before <= 2 + len(made) // 100
    assert {report.reference for report in listed} == {f"P-{number}" for number in range(105)}
    earlier = provider.pages(began - timedelta(hours=2), began - timedelta(hours=1))
    assert earlier is not None and [report for page in earlier for report in page] == []


def test_pages_tell_what_fetch_tells(bench: Bench, provider: Provider) -> None:
    began = clock.now() - timedelta(minutes=1)
    made = [opened(provider, f"P-{state}").provider_id for state in sorted(bench.states)]
    for provider_id, state in zip(made, sorted(bench.states), strict=True):
        for action in bench.states[state]:
            bench.do(provider_id, action)
    pages = provider.pages(began, clock.now())
    told = {report.provider_id: report for page in pages or () for report in page}
    assert set(told) == (set(made) if bench.lists else set())
    for provider_id, report in told.items():
        fetched = provider.fetch(provider_id)
        assert (report.state, report.charge_id, report.reference) == (
            fetched.state,
            fetched.charge_id,
            fetched.reference,
        )


# --- Close ----------------------------------------------------------------------------------------------


def test_what_was_closed_cannot_be_paid(bench: Bench, provider: Provider) -> None:
    made = opened(provider).provider_id
    closed = provider.close(made, "close-1")
    assert closed.state in ("expired", "cancelled", "failed") and closed.url is None
    assert_about(closed, provider)
    assert provider.fetch(made).state == closed.state
    assert provider.close(made, "close-2").state == closed.state


def test_closing_what_was_paid_leaves_it_paid(bench: Bench, provider: Provider) -> None:
    made = paid(bench)
    assert provider.close(made, "close-1").state == "paid"
    assert provider.fetch(made).state == "paid"


def test_a_close_that_gets_no_answer_says_so(bench: Bench, provider: Provider) -> None:
    made = opened(provider).provider_id
    bench.trouble("http_500")
    with pytest.raises(ProviderError) as unknown:
        provider.close(made, "close-1")
    assert not unknown.value.permanent
    bench.trouble()
    assert provider.fetch(made).state == "open"
    with pytest.raises(Missing):
        provider.close(bench.unknown_id, "close-2")


# --- Refunds and disputes -------------------------------------------------------------------------------


def test_money_goes_back(bench: Bench, provider: Provider) -> None:
    made = paid(bench)
    assert provider.refunded_minor(made) == 0
    refund = provider.refund(made, 1000, "refund-1")
    assert (refund.amount_minor, refund.currency, refund.state) == (1000, "EUR", "succeeded")
    report = provider.fetch(made)
    (told,) = report.refunds
    assert (told.amount_minor, told.currency, told.state) == (1000, "EUR", "succeeded")
    assert told.provider_id and refund.provider_id in ("", told.provider_id)
    assert provider.refunded_minor(made, patient=True) == 1000
    # What was given back is told by its refunds; the payment itself stays paid in full.
    assert report.state == "paid"
    assert_about(report, provider)


def test_a_refund_is_made_once_under_its_key(bench: Bench, provider: Provider) -> None:
    made = paid(bench)
    refund = provider.refund(made, 1000, "refund-1")
    if not provider.keeps_refund_keys:
        # Each call is another refund: only the sum tells what became of one.
        provider.refund(made, 1000, "refund-1")
        assert refund.our_key == "" and provider.refunded_minor(made) == 2000
        return
    assert refund.our_key == "refund-1"
    assert provider.refund(made, 1000, "refund-1", patient=True).provider_id == refund.provider_id
    assert provider.find_refund(made, "refund-1") == refund
    assert provider.find_refund(made, "refund-2") is None
    assert provider.fetch(made).refunds == (refund,)


def test_never_more_is_given_back_than_was_paid(bench: Bench, provider: Provider) -> None:
    made = paid(bench)
    provider.refund(made, 1000, "refund-1")
    with pytest.raises(ProviderError) as refused:
        provider.refund(made, AMOUNT - 1000 + 1, "refund-2")
    assert refused.value.permanent
    provider.refund(made, AMOUNT - 1000, "refund-3")
    assert sum(refund.amount_minor for refund in provider.fetch(made).refunds) == AMOUNT
    assert provider.refunded_minor(made) == AMOUNT


def test_what_was_not_paid_cannot_be_given_back(bench: Bench, provider: Provider) -> None:
    made = opened(provider).provider_id
    with pytest.raises(ProviderError) as refused:
        provider.refund(made, 1000, "refund-1")
    assert refused.value.permanent
    with pytest.raises(Missing):
        provider.refund(bench.unknown_id, 1000, "refund-1")
    with pytest.raises(Missing):
        provider.refunded_minor(bench.unknown_id)


def test_a_refund_whose_answer_was_lost_is_found(bench: Bench, provider: Provider) -> None:
    made = paid(bench)
    bench.trouble("timeout_after", method="POST", times=1)
    with pytest.raises(ProviderError) as lost:
        # Without keys nothing is tried twice, not even where the caller can wait.
        provider.refund(made, 1000, "refund-1", patient=not provider.keeps_refund_keys)
    assert not lost.value.permanent
    assert provider.refunded_minor(made) == 1000
    if provider.keeps_refund_keys:
        found = provider.find_refund(made, "refund-1")
        repeated = provider.refund(made, 1000, "refund-1", patient=True)
        assert found is not None and found.provider_id == repeated.provider_id
    assert len(provider.fetch(made).refunds) == 1


def test_a_refund_in_the_dashboard_is_seen_without_asking_for_it(bench: Bench, provider: Provider) -> None:
    made = paid(bench)
    bench.do(made, "refund", amount_minor=700)
    (refund,) = provider.fetch(made).refunds
    assert (refund.amount_minor, refund.currency, refund.our_key) == (700, "EUR", "")
    assert provider.refunded_minor(made) == 700


def test_refunds_have_names_of_their_own(bench: Bench, provider: Provider) -> None:
    for reference in ("P-1", "P-2"):
        made = paid(bench, reference)
        for number in (1, 2):
            provider.refund(made, 500, f"refund-{reference}-{number}")
    listed = [bench.provider().find(reference, clock.now()) for reference in ("P-1", "P-2")]
    fetched = [provider.fetch(report.provider_id) for report in listed if report is not None]
    assert len({refund.provider_id for report in fetched for refund in report.refunds}) == 4


def test_a_refund_that_fails_later_says_why(bench: Bench, provider: Provider) -> None:
    made = paid(bench)
    provider.refund(made, 1000, "refund-1")
    if not bench.refunds_fail:
        return
    bench.do(made, "refund_fail")
    (refund,) = provider.fetch(made, thorough=True).refunds
    assert (refund.state, refund.our_key) == ("failed", "refund-1" if provider.keeps_refund_keys else "")
    assert refund.reason and provider.refunded_minor(made) == 0


@pytest.mark.parametrize("end", ["won", "lost"])
def test_a_dispute_and_its_end(bench: Bench, provider: Provider, end: str) -> None:
    made = paid(bench)
    assert provider.fetch(made, thorough=True).disputes == ()
    if not bench.disputes:
        return
    bench.do(made, "dispute")
    (dispute,) = provider.fetch(made).disputes
    assert (dispute.state, dispute.amount_minor, dispute.currency) == ("open", AMOUNT, "EUR")
    bench.do(made, f"dispute_{end}")
    (after,) = provider.fetch(made, thorough=True).disputes
    assert (after.provider_id, after.state) == (dispute.provider_id, end)


# --- When it goes wrong ---------------------------------------------------------------------------------

Call = Callable[[Provider, str], object]
CALLS: dict[str, Call] = {
    "create": lambda provider, made: opened(provider, "P-2"),
    "find": lambda provider, made: provider.find("P-9", clock.now()),
    "fetch": lambda provider, made: provider.fetch(made),
    "close": lambda provider, made: provider.close(made, "close-1"),
    "refund": lambda provider, made: provider.refund(made, 1000, "refund-1"),
    "find_refund": lambda provider, made: (
        provider.find_refund(made, "refund-1") if provider.keeps_refund_keys else provider.fetch(made)
    ),
    "refunded_minor": lambda provider, made: provider.refunded_minor(made),
    "health": lambda provider, made: provider.health(),
}


@pytest.mark.parametrize("kind", ["timeout_before", "http_500", "http_429", "garbage"])
@pytest.mark.parametrize("name", sorted(CALLS))
def test_no_usable_answer_is_a_passing_error(bench: Bench, provider: Provider, name: str, kind: str) -> None:
    made = paid(bench)
    bench.trouble(kind)
    with pytest.raises(ProviderError) as unknown:
        CALLS[name](provider, made)
    assert not unknown.value.permanent and not isinstance(unknown.value, Missing)
    assert unknown.value.code and not any(secret in str(unknown.value) for secret in bench.secrets)
    bench.trouble()
    # Unknown is not unpaid: what was paid is paid still.
    assert provider.fetch(made).state == "paid"


def test_in_a_web_request_there_is_one_attempt(bench: Bench, provider: Provider) -> None:
    made = paid(bench)
    bench.trouble("http_500", times=1)
    before = bench.received()
    with pytest.raises(ProviderError):
        provider.fetch(made)
    assert bench.received() == before + 1


def test_in_the_background_a_stumble_is_got_over(bench: Bench, provider: Provider) -> None:
    made = paid(bench)
    bench.trouble("http_500", times=1)
    assert provider.fetch(made, patient=True).state == "paid"


def test_in_the_background_attempts_are_bounded(bench: Bench, provider: Provider) -> None:
    made = paid(bench)
    bench.trouble("http_500")
    before = bench.received()
    with pytest.raises(ProviderError):
        provider.fetch(made, patient=True)
    assert 1 < bench.received() - before <= 4


def test_nobody_waits_longer_than_five_seconds_for_an_answer(bench: Bench, provider: Provider) -> None:
    made = paid(bench)
    bench.trouble("timeout_before", times=1, seconds=30)
    began = time.monotonic()
    with pytest.raises(ProviderError):
        provider.fetch(made)
    assert time.monotonic() - began < 6


def test_calls_keep_to_the_limit(bench: Bench) -> None:
    """Two a second: of twelve at once, seven have their turn within the three seconds that a person waits."""
    limited = bench.limited(2)
    # An open one: of one that was paid some ask twice, where its refunds are kept elsewhere.
    made = opened(bench.provider()).provider_id
    before, began = bench.received(), time.monotonic()

    def one(_: int) -> str:
        try:
            return limited.fetch(made).state
        except ProviderError as error:
            assert not error.permanent
            return error.code

    with ThreadPoolExecutor(12) as pool:
        told = list(pool.map(one, range(12)))
    took = time.monotonic() - began
    assert sorted(told) == ["open"] * 7 + ["throttled"] * 5
    assert bench.received() - before == 7
    assert 2.9 < took < 6


def test_health_proves_the_connection_and_shows_no_secret(bench: Bench, provider: Provider) -> None:
    told = provider.health()
    assert told["account"] and bench.received() == 1
    assert not any(secret in json.dumps(dict(told)) for secret in bench.secrets)


# --- Accounts that are connected ------------------------------------------------------------------------


def test_one_account_serves_all_where_none_is_connected(bench: Bench, provider: Provider) -> None:
    assert providers.get(bench.name, provider.account) is provider
    if not provider.connects:
        assert providers.get(bench.name, "somebody else's") is provider


def test_an_adapter_speaks_for_its_account(bench: Bench, provider: Provider) -> None:
    if not provider.connects:
        return
    account, _ = bench.connect()
    other, _ = bench.connect()
    theirs = providers.get(bench.name, account)
    assert theirs is providers.get(bench.name, account) and theirs.ready
    assert {provider.account, account, other} > {account} and theirs.account == account
    made = opened(theirs)
    assert_about(made, theirs)
    bench.do(made.provider_id, "pay")
    assert_about(theirs.fetch(made.provider_id), theirs)
    assert theirs.fetch(made.provider_id).state == "paid"
    found = theirs.find("P-1", clock.now() - timedelta(minutes=1))
    assert found is not None and found.provider_id == made.provider_id
    # The same reference at another account is another payment.
    assert opened(providers.get(bench.name, other)).provider_id != made.provider_id


def test_a_refused_token_is_renewed_once(bench: Bench, provider: Provider) -> None:
    if not provider.connects:
        return
    account, tokens = bench.connect()
    theirs = providers.get(bench.name, account)
    made = opened(theirs).provider_id
    tokens.now = "stale"
    before = bench.received()
    assert theirs.fetch(made).state == "open"
    assert tokens.rejected == ["stale"]
    assert bench.received() == before + 2


def test_a_token_that_stays_refused_is_no_last_word(bench: Bench, provider: Provider) -> None:
    if not provider.connects:
        return
    account, tokens = bench.connect()
    theirs = providers.get(bench.name, account)
    made = opened(theirs).provider_id
    tokens.now = tokens.right = "never right"
    before = bench.received()
    with pytest.raises(ProviderError) as refused:
        theirs.fetch(made)
    assert not refused.value.permanent and not isinstance(refused.value, Missing)
    assert len(tokens.rejected) == 1 and bench.received() == before + 2
    assert "never right" not in str(refused.value)


def test_a_broken_connection_asks_nobody(bench: Bench, provider: Provider) -> None:
    if not provider.connects:
        return
    account, tokens = bench.connect()
    theirs = providers.get(bench.name, account)
    made = opened(theirs).provider_id
    tokens.broken = True
    before = bench.received()
    for name, call in CALLS.items():
        with pytest.raises(ProviderError) as refused:
            call(theirs, made)
        assert refused.value.code == "not_connected" and not refused.value.permanent, name
    unknown = providers.get(bench.name, "nobody's account")
    with pytest.raises(ProviderError) as refused:
        unknown.fetch(made)
    assert refused.value.code == "not_connected" and bench.received() == before


# --- The doorbell ---------------------------------------------------------------------------------------


def test_a_ring_names_the_payment_and_nothing_more(bench: Bench, provider: Provider) -> None:
    if not isinstance(provider, Doorbell):
        return
    assert provider.rings
    made = opened(provider).provider_id
    before = bench.received()
    assert provider.ring(*bench.knock(made)).provider_id == made
    assert bench.received() == before


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"null", b"not json", b"\xff\xfe", b"[" * 100_000])
def test_a_ring_that_cannot_be_read_is_refused(bench: Bench, provider: Provider, body: bytes) -> None:
    if not isinstance(provider, Doorbell):
        return
    _, headers = bench.knock("any")
    with pytest.raises(BadSignature):
        provider.ring(body, headers)


def test_only_a_signed_ring_is_remembered(bench: Bench, provider: Provider) -> None:
    if not isinstance(provider, Doorbell):
        return
    body, headers = bench.knock("any")
    try:
        unsigned = provider.ring(body, {})
    except BadSignature:
        assert provider.ring(body, headers).event_id
    else:
        assert unsigned.event_id == ""


@pytest.fixture
def doorbell(app: Flask, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[StripeBench]:
    """Stripe, whose rings are signed."""
    yield StripeBench(sandbox, monkeypatch)


def event(**changes: Any) -> bytes:
    """A webhook's body."""
    thing = {"object": "checkout.session", "id": "cs_test_1", "metadata": {"reference": "P-1"}} | changes
    return json.dumps(
        {"id": "evt_1", "type": "checkout.session.completed", "data": {"object": thing}}
    ).encode()


def test_a_signed_ring_tells_every_name_of_the_payment(doorbell: StripeBench) -> None:
    bell = doorbell.provider()
    assert isinstance(bell, Doorbell) and bell.rings
    ring = bell.ring(event(), doorbell.sign(event()))
    assert (ring.event_id, ring.type) == ("evt_1", "checkout.session.completed")
    assert (ring.provider_id, ring.reference) == ("cs_test_1", "P-1")
    charge = event(object="charge", id="ch_1")
    assert bell.ring(charge, doorbell.sign(charge)).charge_id == "ch_1"
    assert doorbell.received() == 0


BODIES = [
    b"",
    b"[]",
    b"{}",
    b"null",
    b"not json",
    b'{"id": 1, "type": 2, "data": {"object": "x"}}',
    b"\xff\xfe",
]


@pytest.mark.parametrize("body", BODIES)
def test_a_signed_ring_that_cannot_be_read_is_refused(doorbell: StripeBench, body: bytes) -> None:
    bell = doorbell.provider()
    assert isinstance(bell, Doorbell)
    with pytest.raises(BadSignature):
        bell.ring(body, doorbell.sign(body))


@pytest.mark.parametrize("signature", ["", "t=1", "t=1,v1=00", "v1=" + "0" * 64, "\u2603"])
def test_a_ring_that_is_not_genuine_is_refused(doorbell: StripeBench, signature: str) -> None:
    bell = doorbell.provider()
    assert isinstance(bell, Doorbell)
    with pytest.raises(BadSignature):
        bell.ring(event(), {"stripe-signature": signature})
    with pytest.raises(BadSignature):
        bell.ring(event(id="cs_test_2"), doorbell.sign(event()))


# --- The wallet: a provider whose money is in our own ledger ----------------------------------------------


def test_a_wallet_payment_is_settled_as_it_starts(app: Flask) -> None:
    wallet = providers.get("wallet")
    report = opened(wallet)
    assert wallet.immediate
    assert_about(report, wallet)
    assert report.state == "paid" and report.charge_id and report.url is None
    assert opened(wallet).provider_id == report.provider_id


def test_a_wallet_payment_has_no_trace_outside_the_ledger(app: Flask) -> None:
    wallet = providers.get("wallet")
    made = opened(wallet)
    assert wallet.find("P-1", clock.now()) is None
    assert wallet.pages(clock.now(), clock.now()) is None
    for look in (wallet.fetch, wallet.refunded_minor):
        with pytest.raises(Missing):
            look(made.provider_id)
    with pytest.raises(Missing):
        wallet.close(made.provider_id, "close-1")
    assert "account" in wallet.health()


def test_a_wallet_refund_has_succeeded(app: Flask) -> None:
    refund = wallet_adapter.WalletProvider(livemode=False).refund("key-P-1", 700, "refund-1")
    assert (refund.amount_minor, refund.state, refund.our_key) == (700, "succeeded", "refund-1")


# --- The tools of the contract --------------------------------------------------------------------------


def test_an_unknown_provider_is_refused_in_words(app: Flask) -> None:
    with pytest.raises(DomainError) as refused:
        providers.get("cowries")
    assert refused.value.code == "unknown_provider" and "cowries" in refused.value.message


def test_adapters_are_kept_but_not_all_of_them(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh(monkeypatch)
    monkeypatch.setitem(providers._BUILDERS, "pebble", "tests.support.pebble")
    first = providers.get("pebble", "shop-0")
    for number in range(1, 2 * providers._MOST_KEPT):
        providers.get("pebble", f"shop-{number}")
        # What is used again and again stays, with its place in line.
        assert providers.get("pebble", "shop-0") is first
    assert len(providers._kept) == providers._MOST_KEPT


def test_a_throttle_spaces_calls_and_refuses_to_wait_for_ever() -> None:
    throttle, began = Throttle(20), time.monotonic()
    for _ in range(5):
        throttle.wait(1)
    assert 0.19 < time.monotonic() - began < 0.6
    slow = Throttle(1)
    slow.wait(0)
    with pytest.raises(ProviderError) as refused:
        slow.wait(0.5)
    assert not refused.value.permanent and refused.value.code == "throttled"


def test_a_refused_caller_takes_no_place_in_the_line() -> None:
    slow = Throttle(2)
    slow.wait(0)
    for _ in range(10):
        with pytest.raises(ProviderError):
            slow.wait(0.1)
    began = time.monotonic()
    slow.wait(1)
    assert time.monotonic() - began < 0.7
