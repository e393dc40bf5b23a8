"""The provider contract as one suite for every adapter: what each says, and does, of a payment.

How calls go wrong, connected accounts and doorbells are in test_contract_calls.py. A new adapter
needs a bench in tests/support/benches.py and nothing here; docs/adding-a-provider.md tells how.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta

import pytest

from domain import clock
from domain.providers import registry
from domain.providers.contract import Missing, Presentation, Provider, ProviderError
from domain.providers.throttle import calls
from tests.support.benches import BENCHES, Bench
from tests.support.contract import (
    AMOUNT,
    BY_ID,
    STATES,
    assert_about,
    currency_of,
    is_called,
    opened,
    paid,
    purchase,
)

# --- What is said without asking ------------------------------------------------------------------------


def test_every_adapter_is_tested_here() -> None:
    tested = {bench.name for bench in BENCHES.values()}
    assert set(registry.names()) - {"wallet"} <= tested, "Add a bench to tests/support/benches.py."


def test_an_adapter_has_all_of_the_contract(any_provider: Provider) -> None:
    wanted = {name for name in (*dir(Provider), *Provider.__annotations__) if not name.startswith("_")}
    lacking = {name for name in wanted if not hasattr(any_provider, name)}
    assert lacking == set(), "docs/adding-a-provider.md tells what each of them is."


def test_an_adapter_says_what_it_can(any_provider: Provider) -> None:
    for name in ("immediate", "connects", "pending_alert", "keeps_refund_keys", "ready", "livemode"):
        assert isinstance(getattr(any_provider, name), bool), name
    assert any_provider.open_minutes > 0


def test_a_bench_says_of_its_adapter_what_that_declares(bench: Bench, provider: Provider) -> None:
    assert provider.can.close is bench.closes
    # How long one may linger matters where it has an end of its own.
    assert bool(provider.can.lingers) is not bench.closes


def test_an_adapter_introduces_itself(any_provider: Provider) -> None:
    assert isinstance(any_provider, Provider)
    assert any_provider.ready and any_provider.label and any_provider.account
    assert any_provider is registry.get(any_provider.name)
    assert any_provider.livemode is False
    assert any_provider.minimum_minor(currency_of(any_provider)) > 0


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


def test_the_mode_is_that_of_the_settings(bench: Bench, provider: Provider) -> None:
    assert provider.livemode is False
    assert bench.live().livemode is True


def test_a_report_says_whether_the_money_is_real(bench: Bench, provider: Provider) -> None:
    made = paid(bench)
    assert provider.fetch(made).livemode is False
    assert bench.live_report(made).livemode is True


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
    if not provider.can.search:
        # Nothing tells the second call from another payment: that is why nobody makes it.
        assert again.provider_id != first.provider_id and bench.payments() == 2
        return
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
    least = provider.minimum_minor(currency_of(provider))
    assert opened(provider, amount_minor=least).amount_minor == least


def test_a_lost_answer_is_found_again_both_ways(bench: Bench, provider: Provider) -> None:
    began = clock.now()
    params = provider.params(purchase(provider))
    bench.trouble("timeout_after", times=1)
    with pytest.raises(ProviderError) as lost:
        provider.create(params, "key-1")
    assert not lost.value.permanent and not lost.value.undone
    assert bench.payments() == 1
    if not provider.can.search:
        # It is there, and nobody can tell: the error must not say that it was not made.
        with pytest.raises(ProviderError) as unknown:
            provider.find("P-1", began)
        assert not unknown.value.permanent and not isinstance(unknown.value, Missing)
        return
    by_reference = provider.find("P-1", began)
    repeated = provider.create(params, "key-1", patient=True)
    assert by_reference is not None and by_reference.provider_id == repeated.provider_id
    assert_about(by_reference, provider)
    assert bench.payments() == 1


def test_a_payment_keeps_its_currency(bench: Bench, provider: Provider) -> None:
    """All the other tests are in euros, and would not notice an adapter that always says EUR."""
    other = next((code for code in ("CHF", "GBP", "USD") if provider.supports(code)), "")
    if not other:
        return
    wanted = purchase(provider, currency=other)
    made = provider.create(provider.params(wanted), "key-P-1")
    assert (made.amount_minor, made.currency) == (AMOUNT, other)
    bench.do(made.provider_id, "pay")
    report = provider.fetch(made.provider_id)
    assert (report.state, report.amount_minor, report.currency) == ("paid", AMOUNT, other)
    refund = provider.refund(made.provider_id, 1000, "refund-1")
    assert (refund.amount_minor, refund.currency) == (1000, other)
    (seen,) = provider.fetch(made.provider_id, thorough=True).refunds
    assert (seen.amount_minor, seen.currency) == (1000, other)


# --- Find, fetch, pages ---------------------------------------------------------------------------------


def test_find_tells_absent_from_unknown(bench: Bench, provider: Provider) -> None:
    began = clock.now()
    opened(provider, "P-1")
    if provider.can.search:
        assert provider.find("P-2", began) is None
    bench.trouble("http_500")
    with pytest.raises(ProviderError):
        provider.find("P-2", began)


def test_find_has_the_last_word_on_its_state(bench: Bench, provider: Provider) -> None:
    if not provider.can.search:
        return
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
        # What our own page shows was told when it was opened, and need not be repeated.
        leads = provider.presents(provider.methods[0]) is Presentation.PAGE
        assert report.url is None if state != "open" else report.url is not None or not leads
        assert bool(report.reason) == (state == "failed")


def test_every_bench_reaches_the_states_that_decide() -> None:
    for bench in BENCHES.values():
        assert {"open", "paid", "expired"} <= bench.states.keys() <= STATES


def test_a_refused_card_leaves_it_open_with_the_reason(bench: Bench, provider: Provider) -> None:
    made = opened(provider)
    bench.do(made.provider_id, "decline")
    report = provider.fetch(made.provider_id)
    if not bench.retries:
        assert report.state == "failed" and report.reason
        return
    assert report.state == "open" and report.reason and report.url
    bench.do(made.provider_id, "pay")
    assert provider.fetch(made.provider_id).state == "paid"


def test_a_charge_keeps_its_name(bench: Bench, provider: Provider) -> None:
    made = paid(bench)
    assert provider.fetch(made).charge_id == provider.fetch(made, thorough=True).charge_id
    other = paid(bench, "P-2")
    assert provider.fetch(other).charge_id != provider.fetch(made).charge_id


@pytest.mark.parametrize("name", sorted(BY_ID))
def test_what_is_not_there_is_missing(bench: Bench, provider: Provider, name: str) -> None:
    """Ids may be what somebody typed: strange ones are not made a part of a path."""
    if not is_called(provider, name):
        return
    for unknown in (bench.unknown_id, "", "..", "../refunds", "x" * 300, "a b"):
        with pytest.raises(Missing) as missing:
            BY_ID[name](provider, unknown)
        assert missing.value.permanent


def test_pages_have_every_payment_of_their_time(bench: Bench, provider: Provider) -> None:
    began = datetime.fromtimestamp(int(time.time()), UTC)
    assert (provider.pages(began, began) is not None) == bench.lists
    if not bench.lists:
        return
    made = {opened(provider, f"P-{number}").provider_id for number in range(105)}
    now = clock.now()
    pages = provider.pages(began, now)
    assert pages is not None
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
    if not provider.can.close:
        # It says what is, and has changed nothing.
        assert closed.state == provider.fetch(made).state == "open"
        return
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
    made, currency = paid(bench), currency_of(provider)
    if not provider.can.refund:
        with pytest.raises(ProviderError) as refused:
            provider.refund(made, 1000, "refund-1")
        assert refused.value.permanent and refused.value.undone
        return
    assert provider.refunded_minor(made) == 0
    refund = provider.refund(made, 1000, "refund-1")
    assert (refund.amount_minor, refund.currency, refund.state) == (1000, currency, "succeeded")
    report = provider.fetch(made)
    assert report.back_minor == 1000
    if report.refunded_minor is None:
        (told,) = report.refunds
        assert (told.amount_minor, told.currency, told.state) == (1000, currency, "succeeded")
        assert told.provider_id and refund.provider_id in ("", told.provider_id)
    assert provider.refunded_minor(made, patient=True) == 1000
    # What was given back is told by its refunds; the payment itself stays paid in full.
    assert report.state == "paid"
    assert_about(report, provider)


def test_a_refund_is_made_once_under_its_key(bench: Bench, provider: Provider) -> None:
    if not provider.can.refund:
        return
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
    if not provider.can.refund:
        return
    made = paid(bench)
    provider.refund(made, 1000, "refund-1")
    with pytest.raises(ProviderError) as refused:
        provider.refund(made, AMOUNT - 1000 + 100, "refund-2")
    assert refused.value.permanent
    provider.refund(made, AMOUNT - 1000, "refund-3")
    assert provider.fetch(made).back_minor == AMOUNT
    assert provider.refunded_minor(made) == AMOUNT


def test_what_was_not_paid_cannot_be_given_back(bench: Bench, provider: Provider) -> None:
    made = opened(provider).provider_id
    with pytest.raises(ProviderError) as refused:
        provider.refund(made, 1000, "refund-1")
    assert refused.value.permanent
    if not provider.can.refund:
        return
    with pytest.raises(Missing):
        provider.refund(bench.unknown_id, 1000, "refund-1")
    with pytest.raises(Missing):
        provider.refunded_minor(bench.unknown_id)


def test_a_refund_whose_answer_was_lost_is_found(bench: Bench, provider: Provider) -> None:
    if not provider.can.refund:
        return
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
    assert provider.fetch(made).back_minor == 1000


def test_a_refund_in_the_dashboard_is_seen_without_asking_for_it(bench: Bench, provider: Provider) -> None:
    if not provider.can.refund:
        return
    made = paid(bench)
    bench.do(made, "refund", amount_minor=700)
    report = provider.fetch(made)
    assert report.back_minor == 700
    if report.refunded_minor is None:
        (refund,) = report.refunds
        assert (refund.amount_minor, refund.currency, refund.our_key) == (700, currency_of(provider), "")
    assert provider.refunded_minor(made) == 700


def test_refunds_have_names_of_their_own(bench: Bench, provider: Provider) -> None:
    if not provider.can.refund:
        return
    names: list[str] = []
    for reference in ("P-1", "P-2"):
        made = paid(bench, reference)
        answers = [provider.refund(made, 500, f"refund-{reference}-{number}") for number in (1, 2)]
        report = provider.fetch(made)
        told = report.refunds if report.refunded_minor is None else answers
        names += [refund.provider_id for refund in told]
    assert len(names) == len(set(names)) == 4


def test_a_refund_that_fails_later_says_why(bench: Bench, provider: Provider) -> None:
    if not bench.refunds_fail:
        return
    made = paid(bench)
    provider.refund(made, 1000, "refund-1")
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
