"""Disputes: an inquiry moves nothing, a dispute once; what is lost is told; goods and money agree after."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select

from domain.catalogue import takings
from domain.errors import DomainError
from domain.ledger import transfers
from domain.office import invariants
from domain.payments import incident_decisions, incidents, reconciling, refunds, settling, starting
from domain.providers.contract import DisputeReport, RefundReport
from domain.providers.stripe import StripeProvider
from extensions import db
from models import Incident, Order, OrderState, Payment, Ticket, TicketState
from tests.support.people import mails
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, make_user, place, report_on

ASKS = DisputeReport("dp_1", 5000, "EUR", "open", "warning_needs_response", "fraudulent", inquiry=True)
TAKES = replace(ASKS, status="needs_response", inquiry=False)
HALF = replace(TAKES, amount_minor=2500)


def settle(payment: Payment, **changes: Any) -> None:
    settling.settle(payment.id, report_on(fresh(payment), "paid", **changes), door="test")


def fresh(payment: Payment) -> Payment:
    return db.session.get_one(Payment, payment.id, populate_existing=True)


def paid() -> Payment:
    """Two tickets of 25.00, paid."""
    payment = place(make_event(), 2).payments[0]
    settling.settle(payment.id, report_on(payment, "open"), door="test")
    settle(payment)
    return fresh(payment)


def closed(claim: DisputeReport, state: str) -> DisputeReport:
    return replace(claim, state=state, status=state)


def tickets() -> list[TicketState]:
    query = select(Ticket.state).order_by(Ticket.number)
    return list(db.session.scalars(query))


def kept() -> int:
    """What the provider's account keeps by the ledger."""
    return -transfers.balance("provider:stripe:platform", "EUR")


def state_of(payment: Payment) -> OrderState:
    return db.session.get_one(Order, payment.order_id, populate_existing=True).state


def waiting() -> list[tuple[str, int]]:
    query = select(Incident.kind, Incident.amount_minor).where(Incident.resolved_at.is_(None))
    return [(kind, minor) for kind, minor in db.session.execute(query)]


VALID, WAITS, VOID = TicketState.VALID, TicketState.SUSPENDED, TicketState.VOID


def test_an_inquiry_moves_nothing_and_a_dispute_under_its_id_does_once(app: Flask) -> None:
    payment = paid()
    for _ in range(2):
        settle(payment, disputes=(ASKS,))
        assert (kept(), tickets(), refunds.refundable_minor(fresh(payment))) == (5000, [VALID] * 2, 5000)
    assert fresh(payment).next_check_at is not None
    for _ in range(2):
        settle(payment, disputes=(TAKES,))
        assert (kept(), tickets(), refunds.refundable_minor(fresh(payment))) == (0, [WAITS] * 2, 0)
    settle(payment, disputes=(closed(TAKES, "won"),))
    assert (kept(), tickets(), state_of(payment)) == (5000, [VALID] * 2, OrderState.COMPLETED)
    subjects = [mail.context["subject"] for mail in mails("alert")]
    assert [subject.split(" - ")[0] for subject in subjects] == [
        "[Kassa Alert] Bank Asks About a Payment",
        "[Kassa Alert] Payment Disputed",
    ]
    assert invariants.look() == []


@pytest.mark.parametrize("end", [replace(ASKS, state="won", status="warning_closed"), closed(TAKES, "lost")])
def test_an_inquiry_that_is_closed_leaves_all_as_it_was(app: Flask, end: DisputeReport) -> None:
    """And what was lost without our seeing it become a dispute is lost once."""
    payment = paid()
    settle(payment, disputes=(ASKS,))
    for _ in range(2):
        settle(payment, disputes=(end,))
    lost = end.state == "lost"
    assert (kept(), tickets()) == ((0, [VOID] * 2) if lost else (5000, [VALID] * 2))
    assert fresh(payment).disputes[0].closed_at is not None
    assert invariants.look() == []


def test_what_is_lost_shows_on_the_order_in_the_totals_and_in_a_mail(app: Flask) -> None:
    payment = paid()
    settle(payment, disputes=(TAKES,))
    assert state_of(payment) is OrderState.COMPLETED
    for _ in range(2):
        settle(payment, disputes=(closed(TAKES, "lost"),))
    assert (state_of(payment), tickets()) == (OrderState.REFUNDED, [VOID] * 2)
    event = payment.order.event
    assert event is not None
    (money,) = takings.of_event(event).money
    assert (money.taken_minor, money.disputed_minor, money.lost_minor, money.net_minor) == (5000, 0, 5000, 0)
    (mail,) = mails("dispute_lost")
    assert (mail.to, mail.context["amount_minor"]) == ("ada@example.org", 5000)
    assert waiting() == [] and invariants.look() == []


@pytest.mark.parametrize("ends", ["won", "lost"])
def test_a_refund_in_the_dashboard_beside_a_partial_dispute(app: Flask, ends: str) -> None:
    """It leaves nothing to send back, and still says nothing of the money that the bank may return."""
    payment = paid()
    back = (RefundReport("re_1", 2500, "EUR", "succeeded"),)
    settle(payment, disputes=(HALF,))
    settle(payment, disputes=(HALF,), refunds=back)
    assert (tickets(), refunds.refundable_minor(fresh(payment))) == ([WAITS] * 2, 0)
    settle(payment, disputes=(closed(HALF, ends),), refunds=back)
    if ends == "won":
        assert (kept(), tickets(), state_of(payment)) == (2500, [VALID] * 2, OrderState.PARTIALLY_REFUNDED)
        assert waiting() == [("won_beside_refund", 2500)]
    else:
        assert (kept(), tickets(), state_of(payment)) == (0, [VOID] * 2, OrderState.REFUNDED)
        assert waiting() == []
    assert invariants.look() == []


def test_a_part_that_was_lost_leaves_a_decision_about_the_rest(app: Flask) -> None:
    payment = paid()
    settle(payment, disputes=(HALF,))
    settle(payment, disputes=(closed(HALF, "lost"),))
    assert (kept(), tickets()) == (2500, [VOID] * 2)
    assert waiting() == [("kept_without_goods", 2500)]
    incident = db.session.scalars(select(Incident)).one()
    incident_decisions.resolve(incident.id, how="dismiss", reason="They agreed to it.", actor_id=None)
    settle(payment, disputes=(closed(HALF, "lost"),))
    assert waiting() == [] and invariants.look() == []


def test_more_that_went_back_than_came_is_recorded_and_an_incident(app: Flask) -> None:
    """A refund of a part, and then the bank takes it all."""
    payment = paid()
    back = (RefundReport("re_1", 2500, "EUR", "succeeded"),)
    settle(payment, refunds=back)
    for _ in range(2):
        settle(payment, refunds=back, disputes=(TAKES,))
    assert (kept(), waiting()) == (-2500, [("given_back_too_much", 2500)])
    incident = db.session.scalars(select(Incident)).one()
    with pytest.raises(DomainError):
        incident_decisions.resolve(incident.id, how="refund", reason="No.", actor_id=None)
    incident_decisions.resolve(incident.id, how="dismiss", reason="The bank has it.", actor_id=None)
    settle(payment, refunds=back, disputes=(closed(TAKES, "lost"),))
    assert waiting() == [] and invariants.look() == []


def test_money_in_review_that_a_bank_took_is_placed_by_any_decision(app: Flask) -> None:
    """Nothing could be sent: the bank has given it back. The payment does not wait for ever."""
    payment = place(make_event(), 2).payments[0]
    settling.settle(payment.id, report_on(payment, "open"), door="test")
    settle(payment, reference="ORD-ANOTHER-1")
    settle(payment, reference="ORD-ANOTHER-1", disputes=(closed(TAKES, "lost"),))
    incident = db.session.scalars(select(Incident)).one()
    admin = make_user("admin@example.org")
    incident_decisions.resolve(incident.id, how="refund", reason="Give it back.", actor_id=admin.id)
    assert (fresh(payment).state, state_of(payment)) == ("paid", OrderState.REFUNDED)
    settle(payment, reference="ORD-ANOTHER-1", disputes=(closed(TAKES, "lost"),))
    assert (fresh(payment).state, waiting()) == ("paid", [])
    assert transfers.balance(transfers.SUSPENSE, "EUR") == 0 and invariants.look() == []


def test_an_inquiry_at_stripe_becomes_a_dispute_under_the_same_id(app: Flask, sandbox: Sandbox) -> None:
    payment = starting.open_at_provider(place(make_event(), 2))
    assert payment is not None and payment.provider_id is not None
    sandbox.do(payment.provider_id, "pay")
    reconciling.reconcile(payment.id, door="test")
    seen = []
    for do in ("inquiry", "dispute", "dispute_lost"):
        sandbox.do(payment.provider_id, do)
        reconciling.reconcile(payment.id, door="test")
        (dispute,) = fresh(payment).disputes
        seen.append((dispute.provider_id, dispute.provider_status, dispute.took_money, kept()))
    name = seen[0][0]
    assert seen == [
        (name, "warning_needs_response", False, 5000),
        (name, "needs_response", True, 0),
        (name, "lost", True, 0),
    ]
    assert invariants.look() == []


def test_an_inquiry_at_stripe_is_closed(app: Flask, sandbox: Sandbox) -> None:
    payment = starting.open_at_provider(place(make_event(), 2))
    assert payment is not None and payment.provider_id is not None
    sandbox.do(payment.provider_id, "pay")
    for do in ("inquiry", "dispute_won"):
        sandbox.do(payment.provider_id, do)
        reconciling.reconcile(payment.id, door="test")
    (dispute,) = fresh(payment).disputes
    assert (dispute.state, dispute.provider_status, kept()) == ("won", "warning_closed", 5000)
    assert tickets() == [VALID] * 2


def test_only_what_can_be_done_is_offered(app: Flask) -> None:
    """Money that went back already is neither sent nor used by a decision."""
    for kind in incidents.KINDS:
        offered = incident_decisions.resolutions(Incident(kind=kind))
        assert "dismiss" in offered and set(offered) <= set(incident_decisions.RESOLUTIONS)
    assert incident_decisions.resolutions(Incident(kind="given_back_too_much")) == ("dismiss",)
    assert incident_decisions.resolutions(Incident(kind="late_money")) == incident_decisions.RESOLUTIONS


def test_money_that_no_refund_could_send_back_waits_again(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was to be sent back by a decision, and that refund fails as the one before it did."""
    event = make_event(capacity=2)
    payment = place(event, 2).payments[0]
    settling.settle(payment.id, report_on(payment, "open"), door="test")
    settle(payment)
    first = RefundReport("re_1", 5000, "EUR", "pending")
    settle(payment, refunds=(first,))
    other = place(event, 2, email="bob@example.org").payments[0]
    settling.settle(other.id, report_on(other, "open"), door="test")
    settle(other)
    first = replace(first, state="failed")
    settle(payment, refunds=(first,))
    assert waiting() == [("kept_without_goods", 5000)]
    second = RefundReport("re_2", 5000, "EUR", "pending")
    monkeypatch.setattr(StripeProvider, "refund", lambda *args, **more: second)
    waits = db.session.scalars(select(Incident)).one()
    incident_decisions.resolve(waits.id, how="refund", reason="It is theirs.", actor_id=None)
    assert waiting() == []
    for _ in range(2):
        settle(payment, refunds=(first, replace(second, state="failed")))
        assert waiting() == [("kept_without_goods", 5000)]
    assert invariants.look() == []


@pytest.mark.parametrize("end", ["open", "won", "lost"])
def test_a_closed_inquiry_that_becomes_a_dispute_takes_the_money(app: Flask, end: str) -> None:
    """Under the same id, however far it has come when it is heard of; a further inquiry moves nothing."""
    payment = paid()
    settle(payment, disputes=(ASKS,))
    settle(payment, disputes=(replace(ASKS, state="won", status="warning_closed"),))
    fresh(payment).next_check_at = None
    db.session.commit()
    settle(payment, disputes=(ASKS,))
    assert (kept(), tickets()) == (5000, [VALID] * 2)
    for _ in range(2):
        settle(payment, disputes=(TAKES if end == "open" else closed(TAKES, end),))
    after = {"open": (0, [WAITS] * 2), "won": (5000, [VALID] * 2), "lost": (0, [VOID] * 2)}
    assert (kept(), tickets()) == after[end]
    (dispute,) = fresh(payment).disputes
    assert dispute.state == end and (dispute.closed_at is None) is (end == "open")
    assert fresh(payment).next_check_at is not None
    assert len([m for m in mails("alert") if "Payment Disputed" in m.context["subject"]]) == 1
    assert invariants.look() == []


def test_a_refund_that_fails_before_its_decision_is_written_leaves_the_money_waiting(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provider's word overtakes the decision, between the call and the lock."""
    payment = place(make_event()).payments[0]
    settling.settle(payment.id, report_on(payment, "open"), door="test")
    settle(payment, amount_minor=2400)
    told = RefundReport("re_1", 2400, "EUR", "pending")
    monkeypatch.setattr(StripeProvider, "refund", lambda *args, **more: told)
    send_back = incident_decisions._refund

    def overtaken(*what: Any) -> None:
        send_back(*what)
        settle(payment, amount_minor=2400, refunds=(replace(told, state="failed"),))

    monkeypatch.setattr(incident_decisions, "_refund", overtaken)
    waits = db.session.scalars(select(Incident)).one()
    with pytest.raises(DomainError) as refused:
        incident_decisions.resolve(waits.id, how="refund", reason="It is theirs.", actor_id=None)
    assert refused.value.code == "refund_refused" and waiting() == [("mismatch", 2400)]
    assert invariants.look() == []
