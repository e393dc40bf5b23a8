"""Money going back: never twice, never from the wrong pocket, and never forgotten when it returns."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import func, select, update

import config
from domain.errors import DomainError
from domain.ledger import transfers
from domain.office import invariants
from domain.payments import incident_decisions, refunds, settling
from domain.providers.contract import DisputeReport, Missing, ProviderError, RefundReport
from domain.providers.stripe import StripeProvider
from extensions import db
from models import (
    Event,
    Incident,
    Order,
    OrderState,
    Payment,
    Refund,
    RefundState,
    Ticket,
    TicketState,
    TicketType,
)
from tests.support.shop import make_event, make_user, place, report_on


class Desk:
    """Stands for the provider's refunds: `answers` are given in turn, an error is raised."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.answers: list[RefundReport | ProviderError] = []
        self.found: RefundReport | ProviderError | None = None
        self.keys: list[str] = []
        patch.setattr(StripeProvider, "refund", self._refund)
        patch.setattr(StripeProvider, "find_refund", self._find)

    def _refund(self, provider_id: str, minor: int, key: str, *, patient: bool = False) -> RefundReport:
        self.keys.append(key)
        return self._say(self.answers.pop(0))

    def _find(self, provider_id: str, key: str) -> RefundReport | None:
        return self._say(self.found) if self.found is not None else None

    @staticmethod
    def _say(answer: RefundReport | ProviderError) -> RefundReport:
        if isinstance(answer, ProviderError):
            raise answer
        return answer


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(monkeypatch)


def settle(payment: Payment, state: str, **changes: Any) -> None:
    payment = db.session.get_one(Payment, payment.id, populate_existing=True)
    settling.settle(payment.id, report_on(payment, state, **changes), door="test")


def paid(event: Event, **more: Any) -> Payment:
    payment = place(event, **more).payments[0]
    settle(payment, "open")
    settle(payment, "paid")
    return db.session.get_one(Payment, payment.id, populate_existing=True)


def late(**more: Any) -> Payment:
    """Money that came when the only place was sold to somebody else."""
    event = make_event(capacity=1)
    payment = place(event, **more).payments[0]
    settle(payment, "open")
    settle(payment, "expired")
    paid(event, email="faster@example.org")
    settle(payment, "paid")
    return db.session.get_one(Payment, payment.id, populate_existing=True)


def waiting() -> list[Incident]:
    query = select(Incident).where(Incident.resolved_at.is_(None)).execution_options(populate_existing=True)
    return list(db.session.scalars(query))


INQUIRY = DisputeReport("dp_1", 2500, "EUR", "open", "warning_needs_response", inquiry=True)


def succeeded(key: str, minor: int = 2500, state: str = "succeeded") -> RefundReport:
    return RefundReport(f"re_{key}", minor, "EUR", state, our_key=key)


def test_what_an_unheard_call_may_have_done_is_looked_for(app: Flask, desk: Desk) -> None:
    """The first call was heard there and not here: neither a second refund nor a failed one."""
    payment = paid(make_event())
    desk.answers = [ProviderError("timeout", permanent=False)]
    refund = refunds.request(payment.id, 2500, actor_id=None, reason="ill")
    desk.found = Missing("The session is not there at this moment.")
    refunds.follow_up(refund.id, patient=True)
    assert db.session.get_one(Refund, refund.id, populate_existing=True).state is RefundState.CREATED
    desk.found = succeeded(refund.idempotency_key)
    refunds.follow_up(refund.id, patient=True)
    assert db.session.get_one(Refund, refund.id, populate_existing=True).state is RefundState.SUCCEEDED
    assert len(desk.keys) == 1


def test_money_credited_to_a_wallet_goes_back_from_there(app: Flask, desk: Desk) -> None:
    """By a person's decision it was in the wallet; sent to the card as well, it would be given twice."""
    user = make_user()
    payment = late(user=user, email=user.email)
    incident_decisions.resolve(waiting()[0].id, how="wallet", reason="They asked", actor_id=None)
    assert transfers.wallet_of(user.id, "EUR").balance_minor == 2500
    desk.answers = [succeeded(f"refund-{payment.reference}-1")]
    refunds.request(payment.id, 2500, actor_id=None, reason="To the card after all")
    assert transfers.wallet_of(user.id, "EUR").balance_minor == 0
    assert transfers.balance(transfers.SUSPENSE, "EUR") == 0
    assert invariants.look() == []


def test_what_the_bank_takes_of_credited_money_is_taken_from_the_wallet(app: Flask) -> None:
    user = make_user()
    payment = late(user=user, email=user.email)
    incident_decisions.resolve(waiting()[0].id, how="wallet", reason="They asked", actor_id=None)
    claim = DisputeReport("dp_1", 2500, "EUR", "open", "needs_response")
    settle(payment, "paid", disputes=(claim,))
    assert transfers.wallet_of(user.id, "EUR").balance_minor == 0
    assert transfers.balance(transfers.SUSPENSE, "EUR") == 0
    assert invariants.look() == []


def test_a_spent_wallet_refuses_the_refund_and_changes_nothing(app: Flask, desk: Desk) -> None:
    user = make_user()
    payment = late(user=user, email=user.email)
    incident_decisions.resolve(waiting()[0].id, how="wallet", reason="They asked", actor_id=None)
    transfers.post(
        key="spent",
        debit=transfers.wallet_account(user.id),
        credit=transfers.PLATFORM,
        amount_minor=1,
        currency="EUR",
        kind="agent_usage",
    )
    db.session.commit()
    with pytest.raises(transfers.InsufficientFunds):
        refunds.request(payment.id, 2500, actor_id=None, reason="To the card")
    assert desk.keys == []
    assert db.session.scalar(select(func.count()).select_from(Refund)) == 0


def test_money_whose_refund_fails_in_the_end_waits_in_the_inbox_again(app: Flask, desk: Desk) -> None:
    payment = late()
    key = f"refund-{payment.reference}-1"
    desk.answers = [succeeded(key, state="pending")]
    incident_decisions.resolve(waiting()[0].id, how="refund", reason="Sold out", actor_id=None)
    order = db.session.get_one(Order, payment.order_id, populate_existing=True)
    assert (order.state, waiting()) == (OrderState.REFUNDED, [])
    settle(payment, "paid", refunds=(replace(succeeded(key), state="failed"),))
    again = waiting()
    assert [incident.kind for incident in again] == ["refund_returned"]
    order = db.session.get_one(Order, payment.order_id, populate_existing=True)
    assert order.state is OrderState.REVIEW
    assert transfers.balance(transfers.SUSPENSE, "EUR") == 2500
    assert invariants.look() == []
    desk.answers = [succeeded(f"refund-{payment.reference}-2")]
    incident_decisions.resolve(again[0].id, how="refund", reason="Their new account", actor_id=None)
    assert (waiting(), transfers.balance(transfers.SUSPENSE, "EUR")) == ([], 0)


def test_disputed_money_is_not_sent_back_as_well(app: Flask, desk: Desk) -> None:
    payment = paid(make_event())
    settle(payment, "paid", disputes=(DisputeReport("dp_1", 2500, "EUR", "open", "needs_response"),))
    with pytest.raises(DomainError) as refused:
        refunds.request(payment.id, 2500, actor_id=None, reason="Angry buyer")
    assert refused.value.code == "too_much"


@pytest.mark.parametrize(
    ("then", "ends"), [("lost", TicketState.VOID), ("won", TicketState.VALID), ("", TicketState.SUSPENDED)]
)
def test_a_refund_that_fails_while_the_bank_disputes_lets_nobody_in(
    app: Flask, desk: Desk, then: str, ends: TicketState
) -> None:
    event = make_event(capacity=1)
    payment = paid(event)
    key = f"refund-{payment.reference}-1"
    desk.answers = [succeeded(key, state="pending")]
    refunds.request(payment.id, 2500, actor_id=None, reason="Ill")
    claim = DisputeReport("dp_1", 2500, "EUR", "open", "needs_response")
    settle(payment, "paid", refunds=(succeeded(key, state="pending"),), disputes=(claim,))
    settle(payment, "paid", refunds=(succeeded(key, state="failed"),), disputes=(claim,))
    if then:
        settle(payment, "paid", disputes=(replace(claim, state=then, status=then),))
    ticket = db.session.scalars(select(Ticket).execution_options(populate_existing=True)).one()
    sold = db.session.scalars(select(TicketType.sold)).one()
    assert (ticket.state, sold) == (ends, 0 if ends is TicketState.VOID else 1)
    assert invariants.look() == []


def test_a_refund_that_fails_after_a_lost_dispute_brings_no_ticket_back(app: Flask, desk: Desk) -> None:
    payment = paid(make_event())
    key = f"refund-{payment.reference}-1"
    desk.answers = [succeeded(key, state="pending")]
    refunds.request(payment.id, 2500, actor_id=None, reason="Ill")
    claim = DisputeReport("dp_1", 2500, "EUR", "lost", "lost")
    settle(payment, "paid", refunds=(succeeded(key, state="pending"),), disputes=(claim,))
    settle(payment, "paid", refunds=(succeeded(key, state="failed"),), disputes=(claim,))
    assert db.session.scalars(select(Ticket.state)).one() is TicketState.VOID
    assert invariants.look() == []


def test_a_failed_refund_leaves_void_what_another_one_paid_back(app: Flask, desk: Desk) -> None:
    """Half is asked for here, for one ticket; the provider's dashboard gives the other half, for all."""
    payment = paid(make_event(), quantity=2)
    first = db.session.scalars(select(Ticket.id).order_by(Ticket.number)).first()
    key = f"refund-{payment.reference}-1"
    desk.answers = [ProviderError("timeout", permanent=False)]
    refunds.request(payment.id, 2500, actor_id=None, reason="Ill", void_ticket_ids=[first or 0])
    theirs = RefundReport("re_theirs", 2500, "EUR", "succeeded")
    settle(payment, "paid", refunds=(theirs, succeeded(key, state="pending")))
    settle(payment, "paid", refunds=(theirs, succeeded(key, state="failed")))
    states = db.session.scalars(select(Ticket.state).order_by(Ticket.number)).all()
    assert states == [TicketState.VOID, TicketState.VOID]
    assert invariants.look() == []


def test_one_of_two_disputes_that_is_won_lets_nobody_in_yet(app: Flask) -> None:
    payment = paid(make_event())
    one = DisputeReport("dp_1", 1000, "EUR", "open", "needs_response")
    other = replace(one, provider_id="dp_2", amount_minor=1500)
    settle(payment, "paid", disputes=(one, other))
    settle(payment, "paid", disputes=(replace(one, state="won", status="won"), other))
    assert db.session.scalars(select(Ticket.state)).one() is TicketState.SUSPENDED
    settle(payment, "paid", disputes=(replace(other, state="won", status="won"),))
    assert db.session.scalars(select(Ticket.state)).one() is TicketState.VALID
    assert invariants.look() == []


def test_a_refund_made_at_the_provider_is_watched_until_it_ends(app: Flask) -> None:
    """Its payment is at rest after two days, and a bank may take longer."""
    payment = paid(make_event())
    db.session.execute(update(Payment).values(state_since=Payment.state_since - timedelta(days=3)))
    db.session.commit()
    told = RefundReport("re_theirs", 2500, "EUR", "pending")
    for _ in range(2):
        settle(payment, "paid", refunds=(told,))
        assert db.session.get_one(Payment, payment.id, populate_existing=True).next_check_at is not None
    settle(payment, "paid", refunds=(replace(told, state="succeeded"),))
    settle(payment, "paid", refunds=(replace(told, state="succeeded"),))
    assert db.session.get_one(Payment, payment.id, populate_existing=True).next_check_at is None
    assert db.session.scalars(select(Refund.state)).one() is RefundState.SUCCEEDED


def test_an_inquiry_is_answered_by_a_refund(app: Flask, desk: Desk) -> None:
    payment = paid(make_event())
    settle(payment, "paid", disputes=(INQUIRY,))
    assert refunds.refundable_minor(db.session.get_one(Payment, payment.id, populate_existing=True)) == 2500


def test_a_refund_by_rule_that_was_refused_is_left_to_a_person(app: Flask, desk: Desk) -> None:
    """Tried in every sweep, it would be a new refund and a new alert each time."""
    late()
    config.use(replace(config.get(), late_money="refund"))
    desk.answers = [ProviderError("The card is closed.", permanent=True)]
    for _ in range(3):
        incident_decisions.decide_late_money()
    assert len(desk.keys) == 1
    assert len(waiting()) == 1
