"""What is answered about another payment is no answer: nothing of it is kept, whichever door has asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select

import config
from domain.errors import DomainError
from domain.office import invariants
from domain.payments import reconciling, refunds, settling, starting, webhooks
from domain.providers import contract, registry
from domain.providers.contract import Anothers, Ring
from domain.sweep import reading, sweeping
from extensions import db
from models import (
    Incident,
    OrderState,
    OutboxMail,
    Payment,
    PaymentState,
    RefundState,
    Transfer,
)
from tests.support.merchants import use_sumup
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, place, report_on

Pair = tuple[Payment, Payment]


def opened(number: int, provider: str) -> Payment:
    event = make_event(f"concert-{number}", providers=[provider])
    payment = starting.open_at_provider(place(event, form_token=f"t{number}"))
    assert payment is not None and payment.provider_id is not None
    return payment


@pytest.fixture(params=["stripe", "sumup"])
def pair(app: Flask, environ: dict[str, str], sandbox: Sandbox, request: pytest.FixtureRequest) -> Pair:
    """Two payments of which only the second was paid, of which we have not heard yet."""
    use_sumup(environ, sandbox)
    ours, other = opened(0, request.param), opened(1, request.param)
    sandbox.do(other.provider_id or "", "pay")
    sandbox.advance(3)
    return ours, other


def mix_up(sandbox: Sandbox, other: Payment, **rule: Any) -> None:
    """From now on what is asked about a payment is answered with `other`."""
    registry.get(other.provider).fetch(other.provider_id or "")
    sandbox.faults("mixed_up", **rule)


def nothing_kept(payment: Payment, state: PaymentState = PaymentState.OPEN) -> None:
    db.session.rollback()
    assert payment.state is state
    assert (payment.received_minor, payment.charge_id, payment.order.tickets) == (None, None, [])
    assert payment.last_error.startswith("unreadable: ") and payment.next_check_at is not None
    assert db.session.scalars(select(Incident)).all() == []
    assert db.session.scalars(select(Transfer)).all() == []
    assert invariants.look() == []


def told(payment: Payment) -> list[str]:
    mails = db.session.scalars(select(OutboxMail).filter_by(key=f"anothers:{payment.id}")).all()
    return [mail.context["subject"] for mail in mails]


def by_success(payment: Payment) -> None:
    reconciling.returned(payment.order, payment.provider_id or payment.reference)


def by_ring(payment: Payment) -> None:
    rung = Ring("", "test", payment.provider_id or "", provider_id=payment.provider_id)
    assert webhooks._unsigned(payment.provider, rung, "192.0.2.1") == 503


def by_recheck(payment: Payment) -> None:
    outcome = reconciling.reconcile(payment.id, door="recheck", patient=True)
    assert outcome.verdict == "error" and isinstance(outcome.error, Anothers)


def by_sweep(payment: Payment) -> None:
    assert sweeping.run("test", everything=True).verified == 0


DOORS = [by_success, by_ring, by_recheck, by_sweep]


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_an_answer_about_another_payment_is_none(
    pair: Pair, sandbox: Sandbox, door: Callable[[Payment], None]
) -> None:
    ours, other = pair
    mix_up(sandbox, other)
    door(ours)
    nothing_kept(ours)
    assert told(ours) == [f"[Kassa CRITICAL] Wrong Answer - Order {ours.order.code}"]
    assert (other.state, other.received_minor, other.charge_id) == (PaymentState.OPEN, None, None)
    # It goes on for a while, and is told once; then the provider is asked again, and each gets its own.
    sandbox.advance(400)
    sweeping.run("test")
    assert len(told(ours)) == 1 and ours.state is PaymentState.OPEN
    sandbox.faults()
    sandbox.do(ours.provider_id or "", "pay")
    sandbox.advance(400)
    sweeping.run("test")
    assert {ours.state, other.state} == {PaymentState.PAID}
    assert ours.charge_id != other.charge_id
    assert len(ours.order.tickets) == len(other.order.tickets) == 1
    assert {ours.order.state, other.order.state} == {OrderState.COMPLETED}
    assert db.session.scalars(select(Incident)).all() == [] and invariants.look() == []


def test_after_the_other_was_settled_it_stays_as_it_is(pair: Pair, sandbox: Sandbox) -> None:
    ours, other = pair
    reconciling.reconcile(other.id, door="test")
    before = (other.received_minor, other.charge_id, other.order.state)
    mix_up(sandbox, other)
    by_recheck(ours)
    sandbox.faults()
    db.session.rollback()
    assert (ours.state, ours.received_minor, ours.charge_id) == (PaymentState.OPEN, None, None)
    assert (other.received_minor, other.charge_id, other.order.state) == before
    assert db.session.scalars(select(Incident)).all() == [] and invariants.look() == []


def test_the_answer_to_another_s_create_is_none(
    app: Flask, environ: dict[str, str], sandbox: Sandbox, pair: Pair
) -> None:
    """Its page would have taken the money for somebody else."""
    _, other = pair
    sandbox.faults("mixed_up", match={"method": "POST"})
    order = place(make_event("concert-2", providers=[other.provider]), form_token="t2")
    ours = starting.open_at_provider(order)
    assert ours is not None
    nothing_kept(ours, PaymentState.CREATED)
    assert (ours.provider_id, ours.url, len(told(ours))) == (None, None, 1)
    sandbox.faults()
    sandbox.advance(60)
    sweeping.run("test")
    assert ours.state is PaymentState.OPEN and ours.url
    report = registry.get(ours.provider).fetch(ours.provider_id or "")
    assert report.reference == ours.reference


def test_the_answer_to_another_s_close_is_none(pair: Pair, sandbox: Sandbox) -> None:
    """At its end ours is read, closed and read again: the last reading is another's."""
    ours, other = pair
    reconciling.reconcile(other.id, door="test")
    sandbox.advance(3 * 3600)
    fetch, seen = registry.get(ours.provider).fetch, []
    adapter = type(registry.get(ours.provider))

    def close(self: Any, provider_id: str, key: str, **more: Any) -> Any:
        seen.append(provider_id)
        return fetch(other.provider_id or "")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adapter, "close", close)
        patch.setattr(adapter, "fetch", lambda self, provider_id, **more: report_on(ours, "open"))
        reconciling.reconcile(ours.id, door="sweep")
    assert len(seen) == 1 and ours.state is PaymentState.OPEN
    assert (ours.received_minor, ours.charge_id, len(told(ours))) == (None, None, 1)


def test_a_page_of_the_list_brings_each_its_own(
    app: Flask, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that tells of one payment what was paid for another: the charge says whose it is."""
    monkeypatch.setattr(reading, "_WORTH_A_PAGE", 1)
    theirs = [opened(number, "stripe") for number in range(4)]
    ours, other = theirs[0], theirs[1]
    for payment in theirs[1:]:
        sandbox.do(payment.provider_id or "", "pay")
    sandbox.advance(400)
    adapter = type(registry.get("stripe"))
    # Pages are read in a thread, which touches no database.
    pages: Any = adapter.pages
    ours_there, other_there = ours.provider_id, other.provider_id
    wrong = report_on(ours, "paid", charge_for=other.reference)

    def mixed(self: Any, *when: Any) -> Any:
        for page in pages(self, *when):
            (paid,) = (report for report in page if report.provider_id == other_there)
            mine = replace(wrong, charge_id=paid.charge_id)
            yield [mine if report.provider_id == ours_there else report for report in page]

    monkeypatch.setattr(adapter, "pages", mixed)
    sweeping.run("test")
    assert (ours.state, ours.received_minor, ours.charge_id) == (PaymentState.OPEN, None, None)
    assert len(told(ours)) == 1 and ours.order.tickets == []
    assert [payment.state for payment in theirs[1:]] == [PaymentState.PAID] * 3
    assert db.session.scalars(select(Incident)).all() == [] and invariants.look() == []


@pytest.mark.parametrize("first", [True, False], ids=["the other one first", "the other one later"])
def test_one_charge_pays_once(app: Flask, first: bool) -> None:
    """Where all but the charge is right, and that is another's."""
    ours, other = (place(make_event(f"c{n}"), form_token=f"t{n}").payments[0] for n in range(2))
    for payment in (ours, other):
        settling.settle(payment.id, report_on(payment, "open"), door="test")
    if first:
        settling.settle(other.id, report_on(other, "paid", charge_id="ch_1"), door="test")
    wrong = report_on(ours, "paid", charge_id="ch_1", charge_for="" if first else other.reference)
    outcome = settling.settle(ours.id, wrong, door="test")
    assert isinstance(outcome.error, Anothers) and ours.state is PaymentState.OPEN
    assert (ours.received_minor, ours.charge_id, len(told(ours))) == (None, None, 1)
    settling.settle(other.id, report_on(other, "paid", charge_id="ch_1"), door="test")
    assert (other.state, len(other.order.tickets)) == (PaymentState.PAID, 1)
    assert db.session.scalars(select(Incident)).all() == [] and invariants.look() == []


@pytest.mark.parametrize("kind", ["refund", "dispute"])
def test_another_s_refunds_and_disputes_are_not_ours(app: Flask, kind: str) -> None:
    ours, other = (place(make_event(f"c{n}"), form_token=f"t{n}").payments[0] for n in range(2))
    back: dict[str, Any] = (
        {"refunds": (contract.RefundReport("re_1", 500, "EUR", "succeeded"),)}
        if kind == "refund"
        else {"disputes": (contract.DisputeReport("dp_1", 500, "EUR", "open", "needs_response"),)}
    )
    for payment in (ours, other):
        settling.settle(payment.id, report_on(payment, "open"), door="test")
        settling.settle(payment.id, report_on(payment, "paid"), door="test")
    settling.settle(other.id, report_on(other, "paid", **back), door="test")
    outcome = settling.settle(ours.id, report_on(ours, "paid", **back), door="test")
    assert isinstance(outcome.error, Anothers) and len(told(ours)) == 1
    assert (ours.state, ours.refunds, ours.disputes) == (PaymentState.PAID, [], [])
    assert len(other.refunds) + len(other.disputes) == 1 and invariants.look() == []


@pytest.mark.parametrize("changes", [{"amount_minor": 1}, {"currency": "USD"}, {"reference": "ORD-X-1"}])
def test_what_else_differs_is_for_a_person(app: Flask, changes: dict[str, Any]) -> None:
    """The id is right, so that it is about this payment: as before it waits in the money inbox."""
    payment = place(make_event()).payments[0]
    settling.settle(payment.id, report_on(payment, "open"), door="test")
    assert settling.settle(payment.id, report_on(payment, "paid", **changes), door="test").verdict == "review"
    assert len(db.session.scalars(select(Incident)).all()) == 1


def test_a_refund_whose_answer_was_another_s_is_followed_up(pair: Pair, sandbox: Sandbox) -> None:
    ours, other = pair
    sandbox.do(ours.provider_id or "", "pay")
    for payment in pair:
        reconciling.reconcile(payment.id, door="test")
    refunds.request(other.id, 700, actor_id=None, reason="Ill")
    sandbox.faults("mixed_up")
    if registry.get(ours.provider).keeps_refund_keys:
        refund = refunds.request(ours.id, 500, actor_id=None, reason="Ill")
        assert (refund.state, refund.provider_id) == (RefundState.CREATED, None)
        sandbox.faults()
        sandbox.advance(400)
        sweeping.run("test")
        assert refund.state is RefundState.SUCCEEDED
    else:
        # The sum that went back is read first, and where that is another's, nothing is asked for.
        with pytest.raises(DomainError):
            refunds.request(ours.id, 500, actor_id=None, reason="Ill")
        assert ours.refunds == []
    assert invariants.look() == []


def test_a_ring_about_nothing_we_know_is_not_answered_with_ours(
    app: Flask, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The money of a payment that we have is not told once more as money that nobody knows."""
    ours = opened(0, "stripe")
    sandbox.do(ours.provider_id or "", "pay")
    reconciling.reconcile(ours.id, door="test")
    provider = webhooks.doorbell("stripe")
    assert provider is not None
    told = replace(provider.fetch(ours.provider_id or ""), provider_id="cs_test_unknown")
    monkeypatch.setattr(type(provider), "fetch", lambda *_, **__: told)
    site = config.get().public_url
    rung = Ring("evt_1", "test", "cs_test_unknown", provider_id="cs_test_unknown", site=site)
    assert webhooks._signed("stripe", provider, rung) == 503
    assert db.session.scalars(select(Incident)).all() == []
    # What has another charge is money that nobody knows.
    told = replace(told, charge_id="ch_unknown")
    assert webhooks._signed("stripe", provider, rung) == 200
    assert [incident.kind for incident in db.session.scalars(select(Incident))] == ["unknown_payment"]
