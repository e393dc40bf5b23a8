"""The provider contract, continued: calls that go wrong, accounts that are connected, and the doorbell."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from domain import clock
from domain.providers import registry
from domain.providers.contract import Anothers, BadSignature, Doorbell, Missing, Provider, ProviderError
from tests.support.benches import Bench
from tests.support.contract import CALLS, assert_about, is_called, opened, paid

# --- When it goes wrong ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(CALLS))
def test_no_usable_answer_is_a_passing_error(bench: Bench, provider: Provider, name: str) -> None:
    if not is_called(provider, name):
        return
    made = paid(bench)
    for kind in ("timeout_before", "http_500", "http_429", "garbage"):
        bench.trouble(kind)
        try:
            told = CALLS[name](provider, made)
            pytest.fail(f"{kind}: {told}")
        except ProviderError as unknown:
            assert not unknown.permanent and not isinstance(unknown, Missing), kind
            assert unknown.code and not any(secret in str(unknown) for secret in bench.secrets), kind
        bench.trouble()
        # Unknown is not unpaid: what was paid is paid still.
        assert provider.fetch(made).state == "paid", kind


@pytest.mark.parametrize("name", ["fetch", "close", "refund", "refunded_minor"])
def test_an_answer_about_another_payment_is_none(bench: Bench, provider: Provider, name: str) -> None:
    """A cache or a gateway mixes things up: what it says of the one is not taken for the other."""
    if not provider.can.refund:
        # All that such a one answers is a status, which names no payment: nobody could notice.
        assert "reference" in provider.fetch(paid(bench)).untold
        return
    made, other = paid(bench), paid(bench, "P-2")
    # What the one said is still known to whatever mixes things up.
    provider.refund(other, 500, "refund-2")
    provider.fetch(other)
    bench.trouble("mixed_up")
    with pytest.raises(Anothers) as unknown:
        CALLS[name](provider, made)
    assert (unknown.value.permanent, unknown.value.code) == (False, "unreadable")
    bench.trouble()
    report = provider.fetch(made, thorough=True)
    assert_about(report, provider)
    assert (report.provider_id, report.state) == (made, "paid")
    assert report.back_minor == 0 and provider.refunded_minor(made) == 0


def test_the_answer_to_another_s_refund_is_none(bench: Bench, provider: Provider) -> None:
    """The money went, and the answer told of another's: it is looked for as after a lost answer."""
    if not provider.keeps_refund_keys:
        return
    made, other = paid(bench), paid(bench, "P-2")
    theirs = provider.refund(other, 1000, "refund-2")
    bench.trouble("mixed_up", method="POST")
    with pytest.raises(Anothers):
        provider.refund(made, 1000, "refund-1")
    bench.trouble()
    found = provider.find_refund(made, "refund-1")
    assert found is not None and found.provider_id != theirs.provider_id
    provider.find_refund(other, "refund-2")
    bench.trouble("mixed_up", method="GET")
    with pytest.raises(ProviderError):
        provider.find_refund(made, "refund-1")


def test_in_a_web_request_there_is_one_attempt(bench: Bench, provider: Provider) -> None:
    made = paid(bench)
    bench.trouble("http_500", times=1)
    before = bench.received()
    with pytest.raises(ProviderError):
        provider.fetch(made)
    assert bench.received() == before + 1


def test_somebody_who_waits_does_not_wait_for_a_second_look(bench: Bench, provider: Provider) -> None:
    bench.trouble("http_500", times=1)
    before = bench.received()
    with pytest.raises(ProviderError):
        provider.find("P-9", clock.now(), patient=False)
    assert bench.received() == before + provider.can.search


def test_in_the_background_a_stumble_is_got_over(bench: Bench, provider: Provider) -> None:
    if bench.told_by_another:
        return
    made = paid(bench)
    bench.trouble("http_500", times=1)
    assert provider.fetch(made, patient=True).state == "paid"


def test_in_the_background_attempts_are_bounded(bench: Bench, provider: Provider) -> None:
    if bench.told_by_another:
        return
    made = paid(bench)
    bench.trouble("http_500")
    before = bench.received()
    with pytest.raises(ProviderError):
        provider.fetch(made, patient=True)
    assert 1 < bench.received() - before <= 4


def test_nobody_waits_longer_than_five_seconds_for_an_answer(bench: Bench, provider: Provider) -> None:
    if bench.told_by_another:
        return
    made = paid(bench)
    bench.trouble("timeout_before", times=1, seconds=30)
    began = time.monotonic()
    with pytest.raises(ProviderError):
        provider.fetch(made)
    assert time.monotonic() - began < 6


@pytest.mark.usefixtures("patient_redis")
def test_calls_keep_to_the_limit(bench: Bench) -> None:
    """Two a second: of twelve at once, seven have their turn within the three seconds that a person waits."""
    if bench.told_by_another:
        return
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
    assert registry.get(bench.name, provider.account) is provider
    if not provider.connects:
        assert registry.get(bench.name, "somebody else's") is provider


def test_an_adapter_speaks_for_its_account(bench: Bench, provider: Provider) -> None:
    if not provider.connects:
        return
    account, _ = bench.connect()
    other, _ = bench.connect()
    theirs = registry.get(bench.name, account)
    assert theirs is registry.get(bench.name, account) and theirs.ready
    assert {provider.account, account, other} > {account} and theirs.account == account
    made = opened(theirs)
    assert_about(made, theirs)
    bench.do(made.provider_id, "pay")
    assert_about(theirs.fetch(made.provider_id), theirs)
    assert theirs.fetch(made.provider_id).state == "paid"
    found = theirs.find("P-1", clock.now() - timedelta(minutes=1))
    assert found is not None and found.provider_id == made.provider_id
    # The same reference at another account is another payment.
    assert opened(registry.get(bench.name, other)).provider_id != made.provider_id


def test_a_refused_token_is_renewed_once(bench: Bench, provider: Provider) -> None:
    if not provider.connects:
        return
    account, tokens = bench.connect()
    theirs = registry.get(bench.name, account)
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
    theirs = registry.get(bench.name, account)
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
    theirs = registry.get(bench.name, account)
    made = opened(theirs).provider_id
    tokens.broken = True
    before = bench.received()
    for name, call in CALLS.items():
        with pytest.raises(ProviderError) as refused:
            call(theirs, made)
        assert refused.value.code == "not_connected" and not refused.value.permanent, name
    unknown = registry.get(bench.name, "nobody's account")
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
