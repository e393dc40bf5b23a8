"""Paying for entries as programs do: which payment one gets, and what stands in the way."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import func, select

from domain import clock, site_texts
from domain.errors import DomainError, NotFound
from domain.office import invariants
from domain.orders import entries, entry_payments, managing
from domain.payments import reconciling, refunds, status_words
from domain.payments.status_words import PaymentStatus
from domain.people import athletes
from extensions import db
from models import Order, OrderState, Participant, ParticipantState, Payment, TicketType, User
from tests.support.sandbox import Sandbox
from tests.support.shop import make_user
from tests.support.tournaments import add_category, enter, make_athlete, make_tournament

pytestmark = pytest.mark.usefixtures("app")


@pytest.fixture(autouse=True)
def _all_holds(app: Flask) -> Iterator[None]:
    """Whatever a test did, money and goods agree afterwards."""
    yield
    db.session.rollback()
    assert invariants.look() == []


@pytest.fixture
def ann(app: Flask) -> User:
    return make_user("ann@example.org")


def waiting(ann: User, **more: Any) -> Participant:
    """An entry as the API makes one: its payment is still to be begun."""
    kind = make_tournament(**more).ticket_types[0]
    return enter(kind, make_athlete(ann), begun=False)


def begin(participant: Participant, method: str = "card", **more: Any) -> Payment:
    # As another request sees it.
    db.session.expire_all()
    asked: dict[str, Any] = {"amount_minor": 2500, "currency": "EUR"} | more
    payer = participant.order.user or User()
    found = entries.find(payer, participant.public_id)
    return entry_payments.initiate(found, method, payer=payer, **asked).payment


def counts(kind: TicketType) -> tuple[int, int]:
    db.session.refresh(kind)
    return kind.held, kind.sold


def test_an_entry_keeps_no_place_before_its_payment_is_begun(ann: User, sandbox: Sandbox) -> None:
    participant = waiting(ann, places=1)
    assert participant.state is ParticipantState.PENDING
    assert counts(participant.ticket_type) == (0, 0)
    with pytest.raises(NotFound):
        entry_payments.told_of(participant)
    payment = begin(participant)
    assert (payment.state, payment.method) == ("open", "card")
    assert counts(participant.ticket_type) == (1, 0)


def test_the_same_way_is_the_same_payment_and_another_closes_it(ann: User, sandbox: Sandbox) -> None:
    participant = waiting(ann)
    first = begin(participant)
    again = entry_payments.initiate(
        entries.find(ann, participant.public_id), "card", amount_minor=2500, currency="EUR", payer=ann
    )
    assert again.again and again.payment.id == first.id
    other = begin(participant, "sumup")
    assert (other.provider, other.state) == ("sumup", "open")
    db.session.refresh(first)
    assert status_words.status(first) in (PaymentStatus.CANCELLED, PaymentStatus.EXPIRED)


@pytest.mark.parametrize(
    "asked", [{"amount_minor": 2499}, {"amount_minor": 250000}, {"currency": "USD"}, {"amount_minor": 0}]
)
def test_another_amount_than_the_fee_is_refused(ann: User, asked: dict[str, Any]) -> None:
    with pytest.raises(DomainError, match="^Payment amount must match tournament entry fee$"):
        begin(waiting(ann), **asked)
    assert db.session.scalar(select(func.count(Payment.id))) == 0


def test_what_is_paid_free_or_withdrawn_is_not_paid_again(ann: User, sandbox: Sandbox) -> None:
    participant = waiting(ann)
    payment = begin(participant)
    sandbox.do(payment.provider_id or "", "pay")
    assert status_words.status(entry_payments.told_of(participant)) is PaymentStatus.COMPLETED
    assert entries.find(ann, participant.public_id).state is ParticipantState.PAID
    for method in ("card", "sumup"):
        with pytest.raises(entry_payments.AlreadyPaid):
            begin(participant, method)

    free_kind = add_category(participant.ticket_type.event, "Kata", fee_minor=0)
    free = enter(free_kind, make_athlete(ann), begun=False)
    assert free.state is ParticipantState.PAID
    with pytest.raises(DomainError) as refused:
        begin(free, amount_minor=0)
    assert refused.value.code == "free"

    gone = waiting(ann, slug="gone")
    entries.withdraw(gone, actor_id=ann.id, door="test")
    with pytest.raises(entry_payments.AlreadyPaid) as refused:
        begin(gone)
    assert refused.value.code == "withdrawn"


def test_paid_in_another_way_meanwhile_wins(ann: User, sandbox: Sandbox) -> None:
    participant = waiting(ann)
    payment = begin(participant)
    sandbox.do(payment.provider_id or "", "pay")
    with pytest.raises(entry_payments.AlreadyPaid):
        begin(participant, "sumup")
    assert [p.provider for p in fresh(participant).order.payments] == ["stripe"]


def test_what_cannot_be_closed_stays_the_only_one(ann: User, sandbox: Sandbox) -> None:
    participant = waiting(ann)
    payment = begin(participant)
    sandbox.do(payment.provider_id or "", "pay_later")
    with pytest.raises(entry_payments.PaymentInProgress):
        begin(participant, "sumup")
    with pytest.raises(entry_payments.PaymentInProgress):
        entry_payments.cancel(payment, actor_id=ann.id)
    assert [p.provider for p in fresh(participant).order.payments] == ["stripe"]


def test_a_silent_provider_has_the_payment_begun(ann: User, sandbox: Sandbox) -> None:
    participant = waiting(ann)
    sandbox.faults("timeout_before", rate=1)
    with pytest.raises(entry_payments.Unanswered) as silent:
        begin(participant)
    assert silent.value.payment.public_id.startswith("payment_")
    sandbox.faults()
    assert reconciling.reconcile(silent.value.payment.id, door="test").state == "open"


def test_a_payment_is_cancelled_and_begun_anew(ann: User, sandbox: Sandbox) -> None:
    participant = waiting(ann, places=1)
    payment = begin(participant)
    ended = entry_payments.cancel(payment, actor_id=ann.id)
    assert status_words.status(ended) is PaymentStatus.CANCELLED
    assert counts(participant.ticket_type) == (0, 0)
    with pytest.raises(DomainError) as refused:
        entry_payments.cancel(ended, actor_id=ann.id)
    assert refused.value.code == "not_cancellable"
    assert begin(participant).id != payment.id


def test_a_refund_is_told_and_frees_the_place(ann: User, sandbox: Sandbox) -> None:
    participant = waiting(ann, places=1)
    payment = begin(participant)
    sandbox.do(payment.provider_id or "", "pay")
    entry_payments.told_of(fresh(participant))
    refunds.request(payment.id, 1000, actor_id=None, reason="Part")
    assert status_words.status(payment) is PaymentStatus.COMPLETED
    refunds.request(payment.id, 1500, actor_id=None, reason="Rest")
    told = entry_payments.told_of(fresh(participant))
    assert status_words.status(told) is PaymentStatus.REFUNDED
    assert status_words.updated_at(told) >= told.state_since
    assert fresh(participant).state is ParticipantState.WITHDRAWN
    assert counts(participant.ticket_type) == (0, 0)
    for wanted in PaymentStatus:
        found = db.session.scalars(select(Payment).where(status_words.in_status(wanted))).all()
        assert found == ([told] if wanted is PaymentStatus.REFUNDED else [])


def test_a_minor_is_not_paid_for_without_the_consent_of_today(ann: User, sandbox: Sandbox) -> None:
    kind = make_tournament().ticket_types[0]
    child = make_athlete(ann, "Ben Minor", birth_date=date(2016, 3, 1))
    with pytest.raises(DomainError) as refused:
        enter(kind, child, begun=False)
    assert refused.value.code == "consent_needed"
    participant = enter(kind, child, begun=False, consent=athletes.consent_hash())
    site_texts.write("consent", title="Consent", body="Another text.")
    with pytest.raises(DomainError) as refused:
        begin(participant)
    assert refused.value.code == "consent_needed"
    assert entries.without_consent([fresh(participant)]) == [child]
    athletes.agree(child, ann, athletes.consent_hash())
    assert begin(participant).state == "open"


def test_a_hundred_at_once_make_one_active_payment(app: Flask, ann: User, sandbox: Sandbox) -> None:
    participant = waiting(ann)
    public_id, user_id = participant.public_id, ann.id
    db.session.remove()

    def one(number: int) -> str:
        with app.app_context():
            payer = db.session.get_one(User, user_id)
            found = entries.find(payer, public_id)
            method = "card" if number % 2 else "sumup"
            try:
                begun = entry_payments.initiate(found, method, amount_minor=2500, currency="EUR", payer=payer)
                return begun.payment.public_id
            except DomainError as error:
                return error.code
            finally:
                db.session.remove()

    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(one, range(24)))
    rows = db.session.scalars(select(Payment)).all()
    assert sum(payment.is_active for payment in rows) == 1
    assert {code for code in told if not code.startswith("payment_")} <= {"payment_in_progress"}
    order = db.session.scalars(select(Order)).one()
    assert order.state is OrderState.PENDING_VERIFICATION


def test_a_lapsed_hold_frees_the_place_for_the_next(ann: User, sandbox: Sandbox) -> None:
    first = waiting(ann, places=1)
    bob = make_user("bob@example.org")
    second = enter(first.ticket_type, make_athlete(bob), begun=False)
    payment = begin(first)
    with pytest.raises(DomainError):
        begin(second)
    payment.closes_at = clock.now() - timedelta(seconds=1)
    db.session.commit()
    reconciling.reconcile(payment.id, door="test")
    assert begin(second).state == "open"
    with pytest.raises(DomainError):
        begin(first)
    managing.cancel(fresh(second).order, door="test")


def fresh(participant: Participant) -> Participant:
    return entries.find(participant.order.user or User(), participant.public_id)
