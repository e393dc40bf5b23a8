"""The provider contract, continued: what happened at an account, as its list tells it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from domain import clock
from domain.providers.contract import Happening, Provider, ProviderError
from tests.support.benches import Bench
from tests.support.contract import AMOUNT, opened, paid, purchase
from tests.support.sandbox import Sandbox

FIRST = "ORD-7KQ2MPXA-1"


def told(provider: Provider, hours: float = 1) -> list[Happening]:
    """What happened in the last hours; empty where the provider cannot tell."""
    until = clock.now()
    pages = provider.happened(until - timedelta(hours=hours), until)
    if pages is None:
        return []
    found = list(pages)
    assert found[-1].through == until
    assert all(page.through is None or page.through <= until for page in found)
    return [happening for page in found for happening in page.happenings]


def tells(provider: Provider) -> bool:
    return provider.happened(clock.now(), clock.now()) is not None


def test_money_that_came_in_is_told_and_leads_to_its_payment(bench: Bench, provider: Provider) -> None:
    opened(provider, "ORD-7KQ2MPXA-2")
    made = paid(bench, FIRST)
    if not tells(provider):
        return
    (happening,) = told(provider)
    charge = provider.fetch(made).charge_id
    assert charge in happening.charges and happening.name in (FIRST, "ORD-7KQ2MPXA")
    assert happening.paid and not happening.unclear
    assert happening.refund is None and happening.dispute is None
    report = provider.behind(happening)
    assert report is not None and report.provider_id == made
    assert (report.state, report.amount_minor, report.reference) == ("paid", AMOUNT, FIRST)


def test_what_is_another_programs_is_not_told(bench: Bench, provider: Provider) -> None:
    params = bench.elsewhere(provider.params(purchase(provider, "X-1")))
    theirs = provider.create(params, "key-x").provider_id
    bench.do(theirs, "pay")
    bench.do(theirs, "refund", amount_minor=500)
    assert told(provider) == []


def test_what_was_before_is_not_told(bench: Bench, provider: Provider, sandbox: Sandbox) -> None:
    paid(bench, FIRST)
    sandbox.advance(2 * 3600)
    assert told(provider) == []
    assert not tells(provider) or len(told(provider, hours=3)) == 1


def test_a_refund_made_later_is_told(bench: Bench, provider: Provider, sandbox: Sandbox) -> None:
    made = paid(bench, FIRST)
    charge = provider.fetch(made).charge_id
    sandbox.advance(40 * 24 * 3600)
    bench.do(made, "refund", amount_minor=700)
    if not tells(provider):
        return
    (happening,) = told(provider)
    assert charge in happening.charges
    if happening.refund is not None:
        assert happening.refund in provider.fetch(made).refunds
    else:
        assert happening.unclear or happening.refunded_minor == 700


def test_a_dispute_made_later_is_told(bench: Bench, provider: Provider, sandbox: Sandbox) -> None:
    if not bench.disputes or not tells(provider):
        return
    made = paid(bench, FIRST)
    sandbox.advance(40 * 24 * 3600)
    bench.do(made, "dispute")
    (happening,) = told(provider)
    assert happening.dispute in provider.fetch(made).disputes
    assert provider.fetch(made).charge_id in happening.charges


def test_who_may_not_ask_is_told_so(bench: Bench, provider: Provider) -> None:
    if not tells(provider) or not hasattr(bench, "sandbox"):
        return
    bench.trouble("http_403")
    with pytest.raises(ProviderError) as refused:
        told(provider)
    assert (refused.value.permanent, refused.value.code) == (False, "forbidden")
