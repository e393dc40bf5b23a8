"""Refunds where the provider keeps no key of ours: what became of one is told by its list.

SumUp, over HTTP and through its SDK, and the toy of docs/adding-a-provider.md.
"""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select

from domain import clock
from domain.errors import DomainError
from domain.ledger import transfers
from domain.office import invariants
from domain.payments import incident_decisions, reconciling, refund_matching, refunds
from domain.providers.contract import ProviderError, RefundReport
from extensions import db
from models import Incident, Order, OrderState, Payment, Refund, RefundState
from tests.domain.payments.test_second_provider import again, alerts, later, paid
from tests.support.benches import Bench, PebbleBench, SumUpBench
from tests.support.sandbox import Sandbox


@pytest.fixture(params=[SumUpBench, PebbleBench], ids=lambda bench: bench.name)
def bank(
    app: Flask, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Bench:
    """Each of them in turn."""
    made: Bench = request.param(sandbox, monkeypatch)
    assert not made.provider().keeps_refund_keys
    return made


def refund(payment: Payment, minor: int = 1000) -> Refund:
    return refunds.request(payment.id, minor, actor_id=None, reason="Asked for")


def given_back(bank: Bench, payment: Payment) -> int:
    """What went back by the provider's own books, in minor units."""
    return bank.given_back_minor(payment.provider_id or "")


def follow_up(made: Refund, monkeypatch: pytest.MonkeyPatch) -> Refund:
    """What the next sweep but some does with it."""
    later(monkeypatch, 10)
    assert refunds.due(clock.now(), 10) == [made.id]
    refunds.follow_up(made.id, patient=True)
    return db.session.get_one(Refund, made.id, populate_existing=True)


def mirrored(payment: Payment, monkeypatch: pytest.MonkeyPatch) -> list[Refund]:
    """The refunds after the payment was read again."""
    later(monkeypatch, 61)
    reconciling.reconcile(payment.id, door="test")
    return again(payment).refunds


def assert_all_holds() -> None:
    """Everything but the mail, which is sent by nobody here while the clock goes on."""
    assert {violation.code for violation in invariants.run().violations} <= {"mail_is_sent_or_failed"}


def test_a_refund_is_noted_called_for_and_found_again_as_ours(
    bank: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment = paid(bank)
    first, second = refund(payment), refund(payment, 700)
    assert (first.refunded_before_minor, second.refunded_before_minor) == (0, 1000)
    assert {first.state, second.state} == {RefundState.SUCCEEDED}
    assert given_back(bank, payment) == 1700
    known = mirrored(payment, monkeypatch)
    assert [(r.amount_minor, r.made_at_provider) for r in known] == [(1000, False), (700, False)]
    assert again(payment).order.state is OrderState.PARTIALLY_REFUNDED
    assert_all_holds()


def test_a_lost_answer_is_found_in_the_sum_at_once(bank: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    payment = paid(bank)
    bank.trouble("timeout_after", method="POST", times=1)
    made = refund(payment)
    assert made.state is RefundState.SUCCEEDED and given_back(bank, payment) == 1000
    (known,) = mirrored(payment, monkeypatch)
    assert known.id == made.id and known.provider_id and not known.made_at_provider
    assert_all_holds()


def test_a_lost_answer_is_found_in_the_sum_later(bank: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    payment = paid(bank)
    lose_the_line(bank, monkeypatch, "timeout_after")
    made = refund(payment)
    assert made.state is RefundState.CREATED and given_back(bank, payment) == 1000
    bank.trouble()
    assert follow_up(made, monkeypatch).state is RefundState.SUCCEEDED
    assert given_back(bank, payment) == 1000


def lose_the_line(bank: Bench, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """The next call for a refund goes wrong in this way, and nothing answers after it."""
    adapter = type(bank.provider())
    refund = adapter.refund

    def answer(self: Any, *what: Any, **more: Any) -> Any:
        bank.trouble(kind, method="POST")
        try:
            return refund(self, *what, **more)
        finally:
            bank.trouble("timeout_before")

    monkeypatch.setattr(adapter, "refund", answer)


def test_a_call_that_was_turned_away_is_made_again(bank: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    payment = paid(bank)
    bank.trouble("http_429", method="POST", times=1)
    made = refund(payment)
    assert (made.state, made.asked_at, given_back(bank, payment)) == (RefundState.CREATED, None, 0)
    assert follow_up(made, monkeypatch).state is RefundState.SUCCEEDED
    assert given_back(bank, payment) == 1000


def test_dead_after_the_call_is_not_paid_twice(bank: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    payment = paid(bank)
    with pytest.MonkeyPatch.context() as patch:

        def dead(*_: object) -> None:
            raise SystemExit

        patch.setattr(refunds, "_judge", dead)
        with pytest.raises(SystemExit):
            refund(payment)
    db.session.rollback()
    (made,) = again(payment).refunds
    assert made.state is RefundState.CREATED and given_back(bank, payment) == 1000
    assert follow_up(made, monkeypatch).state is RefundState.SUCCEEDED
    assert given_back(bank, payment) == 1000


def test_of_two_that_follow_up_at_once_one_calls(bank: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    payment = paid(bank)
    bank.trouble("http_429", method="POST", times=1)
    made = refund(payment)
    take = refunds._take_turn

    def both(refund_id: int) -> bool:
        # The other one was a moment faster.
        assert take(refund_id)
        return take(refund_id)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(refunds, "_take_turn", both)
        later(monkeypatch, 10)
        refunds.follow_up(made.id, patient=True)
    assert given_back(bank, payment) == 0


def test_a_refund_whose_answer_is_lost_is_not_called_for_again_but_is_for_a_person(
    bank: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment = paid(bank)
    bank.trouble("timeout_before", method="POST", times=1)
    made = refund(payment)
    for minutes in (1, 55):
        later(monkeypatch, minutes)
        made = follow_up(made, monkeypatch)
    assert made.state is RefundState.CREATED and len(alerts("refund_unclear")) == 1
    later(monkeypatch, 24 * 60)
    made = follow_up(made, monkeypatch)
    assert made.state is RefundState.REVIEW and made.next_check_at is None
    assert given_back(bank, payment) == 0 and len(alerts("refund_unclear")) == 1
    (incident,) = db.session.scalars(select(Incident)).all()
    incident_decisions.resolve(
        incident.id, how="dismiss", reason="It is not in the dashboard.", actor_id=None
    )
    assert db.session.get_one(Refund, made.id, populate_existing=True).state is RefundState.FAILED
    assert refund(payment).state is RefundState.SUCCEEDED
    assert given_back(bank, payment) == 1000
    assert_all_holds()


def lost(bank: Bench, patch: pytest.MonkeyPatch, kind: str) -> tuple[Payment, Refund]:
    """Our call for 10.00 was lost, on its way there or back, while the dashboard gave back 3.00."""
    payment = paid(bank)
    lose_the_line(bank, patch, kind)
    made = refund(payment)
    bank.trouble()
    bank.do(payment.provider_id or "", "refund", amount_minor=300)
    assert made.state is RefundState.CREATED
    return payment, made


def test_the_list_tells_ours_from_the_dashboard_s(bank: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    payment, made = lost(bank, monkeypatch, "timeout_after")
    assert follow_up(made, monkeypatch).state is RefundState.SUCCEEDED
    known = mirrored(payment, monkeypatch)
    assert [(r.id == made.id, r.amount_minor, r.state) for r in known] == [
        (True, 1000, RefundState.SUCCEEDED),
        (False, 300, RefundState.SUCCEEDED),
    ]
    assert given_back(bank, payment) == 1300 and refunds.refundable_minor(again(payment)) == 1200
    assert_all_holds()


@pytest.mark.parametrize("made_there", [False, True])
def test_what_the_list_lacks_for_a_day_is_for_a_person(
    bank: Bench, monkeypatch: pytest.MonkeyPatch, made_there: bool
) -> None:
    """The dashboard's refund is seen meanwhile; ours is not in the list, whatever the sum is."""
    payment, made = lost(bank, monkeypatch, "timeout_before")
    assert follow_up(made, monkeypatch).state is RefundState.CREATED
    assert [r.amount_minor for r in mirrored(payment, monkeypatch)] == [1000, 300]
    later(monkeypatch, 25 * 60)
    made = follow_up(made, monkeypatch)
    assert made.state is RefundState.REVIEW and len(alerts("incident:refund_ambiguous")) == 1
    (incident,) = db.session.scalars(select(Incident)).all()
    assert incident.amount_minor == 1000 and incident.evidence["refunded_now_minor"] == 300
    with pytest.raises(DomainError):
        incident_decisions.resolve(incident.id, how="issue", reason="No.", actor_id=None)
    if made_there:
        bank.do(payment.provider_id or "", "refund", amount_minor=1000)
    how = "refund" if made_there else "dismiss"
    incident_decisions.resolve(incident.id, how=how, reason="I looked it up.", actor_id=None)
    known = mirrored(payment, monkeypatch)
    state = RefundState.SUCCEEDED if made_there else RefundState.FAILED
    assert [(r.amount_minor, r.state, r.made_at_provider) for r in known] == [
        (1000, state, False),
        (300, RefundState.SUCCEEDED, True),
    ]
    assert given_back(bank, payment) == 300 + made_there * 1000
    assert_all_holds()


def test_what_is_in_review_may_have_gone_and_is_not_given_back_again(
    bank: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment, made = lost(bank, monkeypatch, "timeout_before")
    mirrored(payment, monkeypatch)
    later(monkeypatch, 25 * 60)
    assert follow_up(made, monkeypatch).state is RefundState.REVIEW
    left = payment.amount_minor - 300 - 1000
    with pytest.raises(DomainError) as refused:
        refund(payment, left + 1)
    assert refused.value.code == "too_much" and given_back(bank, payment) == 300
    assert refunds.refundable_minor(again(payment)) == left


def test_a_sum_that_comes_out_right_is_no_proof(bank: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of 10.00 was made, another lost on its way. Then the first failed there, and the dashboard gave
    back 20.00: as much as both together, and none of it is ours."""
    assert bank.refunds_fail
    payment = paid(bank)
    first = refund(payment)
    mirrored(payment, monkeypatch)
    lose_the_line(bank, monkeypatch, "timeout_before")
    second = refund(payment)
    bank.trouble()
    bank.do(payment.provider_id or "", "refund_fail")
    bank.do(payment.provider_id or "", "refund", amount_minor=2000)
    gone = bank.provider().refunded_minor(payment.provider_id or "")
    assert gone == second.refunded_before_minor + second.amount_minor == 2000
    assert follow_up(second, monkeypatch).state is RefundState.CREATED
    known = mirrored(payment, monkeypatch)
    assert [(r.id, r.amount_minor, r.state, r.made_at_provider) for r in known] == [
        (first.id, 1000, RefundState.FAILED, False),
        (second.id, 1000, RefundState.CREATED, False),
        (known[2].id, 2000, RefundState.SUCCEEDED, True),
    ]
    source = transfers.provider_account(payment.provider, payment.account)
    assert transfers.balance(source, payment.currency) == 2000 - payment.amount_minor
    assert_all_holds()


def test_a_refund_in_the_dashboard_is_mirrored(bank: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    payment = paid(bank)
    bank.do(payment.provider_id or "", "refund", amount_minor=700)
    with pytest.raises(DomainError) as refused:
        refund(payment)
    assert refused.value.code == "refunds_differ" and given_back(bank, payment) == 700
    (known,) = mirrored(payment, monkeypatch)
    assert (known.amount_minor, known.made_at_provider) == (700, True)
    assert refund(payment).state is RefundState.SUCCEEDED
    assert given_back(bank, payment) == 1700
    assert_all_holds()


def test_a_silent_provider_is_not_asked_to_pay(bank: Bench) -> None:
    payment = paid(bank)
    bank.trouble("timeout_before")
    with pytest.raises(DomainError) as refused:
        refund(payment)
    assert refused.value.code == "provider_silent" and again(payment).refunds == []


def test_a_refusal_is_the_end_of_it(bank: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    payment = paid(bank)

    def refuse(self: Any, *_: object, **__: object) -> None:
        raise ProviderError("Too old to be given back.", permanent=True, code="too_old")

    monkeypatch.setattr(type(bank.provider()), "refund", refuse)
    made = refund(payment)
    assert (made.state, made.failure_reason) == (RefundState.FAILED, "Too old to be given back.")
    assert again(payment).order.state is OrderState.COMPLETED
    assert db.session.scalars(select(Order.state)).all() == [OrderState.COMPLETED]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_what_was_accepted_is_not_taken_for_one_that_failed_beside_it(
    bank: Bench, order: tuple[int, int]
) -> None:
    """A first try in the dashboard that failed has the same amount as ours, of which no id was heard."""
    payment = paid(bank)
    made = refund(payment)
    made.provider_id = None
    db.session.commit()
    listed = (
        RefundReport("tx:1", 1000, payment.currency, "failed"),
        RefundReport("tx:2", 1000, payment.currency, "succeeded"),
    )
    told = [listed[place] for place in order]
    assert made.state is RefundState.SUCCEEDED
    found = {said.provider_id: ours for said, ours in refund_matching.assign(again(payment), told)}
    assert found == {"tx:1": None, "tx:2": made}
    # Where nothing else of its amount stands, it is ours that has failed.
    assert refund_matching.assign(again(payment), told[:1] if order == (0, 1) else told[1:])[0][1] is made
