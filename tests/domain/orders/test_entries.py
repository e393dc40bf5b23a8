"""Entering athletes and withdrawing them: places, money, consent, and the last place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date, timedelta

import pytest
from flask import Flask
from sqlalchemy import func, select

import config
from domain import clock, locks, site_texts
from domain.catalogue import events
from domain.door import check_in, staff
from domain.errors import DomainError, NotFound
from domain.office import invariants, retention
from domain.orders import entries, event_cancellation, managing
from domain.payments import reconciling, refund_outcomes, refunds, starting
from domain.people import athletes
from domain.post import mail_kinds, outbox
from domain.tickets import issuing
from extensions import db
from models import (
    Athlete,
    Consent,
    Incident,
    Order,
    OrderState,
    Participant,
    ParticipantState,
    PaymentState,
    TicketState,
    TicketType,
    User,
    Withdrawal,
)
from tests.support.people import mails
from tests.support.sandbox import Sandbox
from tests.support.shop import make_user, settled
from tests.support.tournaments import add_category, enter, make_athlete, make_tournament

pytestmark = pytest.mark.usefixtures("app")
CHILD = date(2016, 3, 1)


@pytest.fixture(autouse=True)
def _all_holds(app: Flask) -> Iterator[None]:
    """Whatever a test did, money and goods agree afterwards."""
    yield
    db.session.rollback()
    assert invariants.look() == []


@pytest.fixture
def ann(app: Flask) -> User:
    return make_user("ann@example.org")


def counts(kind: TicketType) -> tuple[int, int]:
    db.session.refresh(kind)
    return kind.held, kind.sold


def fresh(participant: Participant) -> Participant:
    return entries.find(participant.order.user or User(), participant.public_id)


def paid_at_stripe(participant: Participant, sandbox: Sandbox) -> Participant:
    """Paid on the provider's page, and read from it."""
    payment = starting.open_at_provider(participant.order)
    assert payment is not None
    sandbox.do(payment.provider_id or "", "pay")
    reconciling.reconcile(payment.id, door="test")
    return fresh(participant)


# --- Entering -------------------------------------------------------------------------------------------


def test_a_place_is_held_then_paid_for_then_checked_in(ann: User, sandbox: Sandbox) -> None:
    event = make_tournament()
    kind = event.ticket_types[0]
    made = enter(kind, make_athlete(ann), provider="stripe")
    assert made.state is ParticipantState.PENDING and counts(kind) == (1, 0)
    assert (made.order.total_minor, made.order.currency, made.order.name) == (2500, "EUR", "Mel Member")
    made = paid_at_stripe(made, sandbox)
    assert made.state is ParticipantState.PAID and counts(kind) == (0, 1)
    [ticket] = made.order.tickets
    assert ticket.holder == "Aiko Adult"
    assert len(mails("tickets")) == 1

    keeper = staff.doorkeeper(event, "test", "Dora")
    seen = check_in.scan(keeper, "a" * 12, issuing.qr_text(ticket, made.order.code))
    assert (seen.verdict, seen.holder, seen.type) == ("valid", "Aiko Adult", "Kumite")


def test_the_mails_of_an_entry_speak_of_the_athlete(ann: User, sandbox: Sandbox) -> None:
    made = enter(make_tournament().ticket_types[0], make_athlete(ann), provider="stripe")
    made = paid_at_stripe(made, sandbox)
    [mail] = mails("tickets")
    letter = mail_kinds.compose(mail)
    assert letter.subject == f"Your entry in Open ({made.order.code})"
    for text in (letter.text, letter.html):
        assert "is entered in Kumite" in text and "Aiko Adult" in text
        assert "ticket" not in text.replace("cid:ticket-1", "").lower()
    codes = [file for file in letter.attachments if file.content_type == "image/png"]
    assert len(codes) == 1 and codes[0].content_id
    entries.withdraw(made, actor_id=ann.id, door="order_page")
    refunded = mail_kinds.compose(mails("refund")[-1])
    assert "Aiko Adult: Kumite" in refunded.text
    withdrawn = mail_kinds.compose(mails("entry_withdrawn")[-1])
    assert "€25.00 goes back" in withdrawn.text and "admits nobody" in withdrawn.html
    about = {"amount_minor": 2500, "currency": "EUR", "refund_id": made.order.payments[0].refunds[0].id}
    for kind in (
        *("order_expired", "order_cancelled", "order_received", "payment_failed", "payment_unclear"),
        *("refund", "refund_failed", "dispute_lost", "money_arrived", "event_cancelled", "entry_withdrawn"),
    ):
        for why in ("event_cancelled", "event_over", "late_money") if kind == "money_arrived" else ("",):
            key = f"test:{kind}:{why}"
            outbox.stage(kind, key=key, to="ann@example.org", order=made.order, context=about | {"kind": why})
            letter = mail_kinds.compose(mails(kind)[-1])
            for text in (letter.text, re.sub(r"<[^>]+>", " ", letter.html)):
                assert "Aiko Adult: Kumite" in text, kind
                assert not re.search(r"\b(tickets?|events?)\b", text.lower()), (kind, text)


def test_a_free_category_is_entered_at_once(ann: User) -> None:
    kind = make_tournament(fee_minor=0).ticket_types[0]
    made = enter(kind, make_athlete(ann))
    assert made.state is ParticipantState.PAID and counts(kind) == (0, 1)
    assert made.order.payments == []


def test_an_athlete_has_one_place_in_a_category(ann: User) -> None:
    event = make_tournament()
    kind, other = event.ticket_types[0], add_category(event, "Kata", fee_minor=0)
    athlete = make_athlete(ann)
    first = enter(kind, athlete, provider="stripe")
    assert enter(kind, athlete, provider="sumup").id == first.id, "the one that waits for its payment"
    enter(other, athlete)
    with pytest.raises(DomainError, match="entered in Kata already"):
        enter(other, athlete)
    assert counts(kind) == (1, 0) and counts(other) == (0, 1)


def test_whose_athlete_it_is_not_enters_nobody(ann: User) -> None:
    kind, theirs = make_tournament().ticket_types[0], make_athlete(make_user("bob@example.org"))
    with pytest.raises(NotFound):
        entries.enter(kind, theirs, ann)
    bob = theirs.user
    enter(add_category(kind.event, "Kata", fee_minor=0), theirs)
    athletes.remove(theirs)
    with pytest.raises(NotFound):
        entries.enter(kind, theirs, bob)


def test_whom_a_category_is_not_for_is_not_entered(ann: User) -> None:
    kind = add_category(make_tournament(), "Veterans", min_age=60)
    with pytest.raises(DomainError, match="60 years and up"):
        enter(kind, make_athlete(ann))
    assert counts(kind) == (0, 0)


def test_a_fee_in_another_currency_is_paid_in_it(ann: User, sandbox: Sandbox) -> None:
    event = make_tournament()
    kind = add_category(event, "Almaty", fee_minor=900_000, currency="KZT")
    assert "sumup" not in [way.name for way in events.ways_to_pay(event, ann, kind=kind)]
    with pytest.raises(DomainError, match="cannot take KZT"):
        enter(kind, make_athlete(ann), provider="sumup")
    made = paid_at_stripe(enter(kind, ann_s(ann), provider="stripe"), sandbox)
    assert made.state is ParticipantState.PAID
    assert made.order.payments[0].currency == "KZT" and made.order.payments[0].received_minor == 900_000


def ann_s(ann: User) -> Athlete:
    return athletes.of(ann)[0]


def test_an_order_that_expired_is_pending_and_its_place_is_free(ann: User) -> None:
    kind = make_tournament(places=1).ticket_types[0]
    made = enter(kind, make_athlete(ann), provider="stripe")
    settled(made.order, "open", "expired")
    made = fresh(made)
    assert made.state is ParticipantState.PENDING and made.order.state is OrderState.EXPIRED
    assert counts(kind) == (0, 0)


# --- Minors ---------------------------------------------------------------------------------------------


def test_a_minor_is_entered_with_a_guardian_s_consent_to_the_text_of_today(ann: User) -> None:
    event = make_tournament(fee_minor=0)
    kind, child = event.ticket_types[0], make_athlete(ann, "Cho Child", birth_date=CHILD)
    with pytest.raises(DomainError, match="parent or guardian"):
        enter(kind, child)
    with pytest.raises(DomainError, match="text of the consent has changed"):
        enter(kind, child, consent="another")
    assert db.session.query(Participant).count() == 0
    enter(kind, child, consent=athletes.consent_hash())
    kept = db.session.scalars(select(Consent)).one()
    assert (kept.user_id, kept.athlete_id, kept.text) == (ann.id, child.id, athletes.consent_text())
    again = add_category(event, "Kata", fee_minor=0)
    enter(again, child)
    site_texts.write("consent", title="Consent", body="Another text.")
    with pytest.raises(DomainError, match="parent or guardian"):
        enter(add_category(event, "Team", fee_minor=0), child)
    assert db.session.scalar(select(func.count()).select_from(Consent)) == 1


def test_what_is_open_already_is_not_paid_by_an_earlier_text(ann: User, sandbox: Sandbox) -> None:
    kind, child = make_tournament().ticket_types[0], make_athlete(ann, "Cho Child", birth_date=CHILD)
    made = enter(kind, child, provider="stripe", consent=athletes.consent_hash())
    starting.open_at_provider(made.order)
    site_texts.write("consent", title="Consent", body="Another text.")
    for again in (
        lambda: managing.pay_again(made.order.id, "stripe", payer_id=ann.id),
        lambda: enter(kind, child, provider="stripe"),
    ):
        with pytest.raises(DomainError) as refused:
            again()
        assert refused.value.code == "consent_needed"
    assert entries.without_consent([fresh(made)]) == [child]
    assert enter(kind, child, provider="stripe", consent=athletes.consent_hash()).id == made.id
    payment = managing.pay_again(made.order.id, "stripe", payer_id=ann.id)
    assert payment is not None and payment.id == made.order.payments[0].id
    site_texts.write("consent", title="Consent", body="A third text.")
    paid = paid_at_stripe(fresh(made), sandbox)
    assert paid.state is ParticipantState.PAID, "money that came all the same is the place's"
    assert entries.without_consent([paid]) == [child], "and the guardian is asked anew"


def test_who_comes_of_age_by_the_first_day_needs_none(ann: User) -> None:
    kind = make_tournament(fee_minor=0).ticket_types[0]
    first = (clock.now() + timedelta(days=30)).date()
    grown = make_athlete(ann, birth_date=first.replace(year=first.year - 18))
    assert enter(kind, grown).state is ParticipantState.PAID
    config.use(replace(config.get(), age_of_majority=21))
    with pytest.raises(DomainError, match="under age"):
        enter(kind, make_athlete(ann, "Younger", birth_date=first.replace(year=first.year - 20)))


def test_weights_are_forgotten_a_month_after_the_tournament(ann: User) -> None:
    soon = make_tournament(fee_minor=0)
    later = make_tournament(
        "later",
        fee_minor=0,
        starts_at=clock.now() + timedelta(days=200),
        ends_at=clock.now() + timedelta(days=201),
    )
    light, heavy = make_athlete(ann, "Light", weight_g=50_000), make_athlete(ann, "Heavy", weight_g=90_000)
    first, second = enter(soon.ticket_types[0], light), enter(later.ticket_types[0], heavy)
    assert retention.forget() == 0
    soon.starts_at, soon.ends_at = clock.now() - timedelta(days=32), clock.now() - timedelta(days=31)
    light.weight_at = heavy.weight_at = clock.now() - timedelta(days=40)
    athletes.change(light, {"club": "Other", "weight_g": 50_000})
    assert retention.forget() == 2
    db.session.expire_all()
    assert (first.weight_g, light.weight_g) == (None, None)
    assert (second.weight_g, heavy.weight_g) == (90_000, 90_000)


# --- Withdrawing ----------------------------------------------------------------------------------------


def test_who_withdraws_in_time_gets_the_fee_back_and_the_place_is_free(ann: User, sandbox: Sandbox) -> None:
    kind = make_tournament(places=1).ticket_types[0]
    made = paid_at_stripe(enter(kind, make_athlete(ann), provider="stripe"), sandbox)
    entries.withdraw(made, actor_id=ann.id, door="order_page")
    made = fresh(made)
    assert made.state is ParticipantState.WITHDRAWN and counts(kind) == (0, 0)
    assert made.order.state is OrderState.REFUNDED
    assert [refund.amount_minor for refund in made.order.payments[0].refunds] == [2500]
    assert enter(kind, ann_s(ann), provider="stripe").id != made.id, "they may enter again"


def test_where_the_fee_is_kept_only_the_place_goes_back(ann: User, sandbox: Sandbox) -> None:
    kind = make_tournament(own={"withdrawal": Withdrawal.NOTHING}).ticket_types[0]
    made = paid_at_stripe(enter(kind, make_athlete(ann), provider="stripe"), sandbox)
    entries.withdraw(made, actor_id=ann.id, door="order_page")
    made = fresh(made)
    assert made.state is ParticipantState.WITHDRAWN and counts(kind) == (0, 0)
    assert [ticket.state for ticket in made.order.tickets] == [TicketState.VOID]
    assert made.order.payments[0].refunds == []
    [mail] = mails("entry_withdrawn")
    assert "The fee of €25.00 does not go back" in mail_kinds.compose(mail).text


def test_an_unpaid_entry_is_withdrawn_by_closing_its_payment(ann: User, sandbox: Sandbox) -> None:
    kind = make_tournament().ticket_types[0]
    made = enter(kind, make_athlete(ann), provider="stripe")
    starting.open_at_provider(made.order)
    entries.withdraw(fresh(made), actor_id=ann.id, door="order_page")
    made = fresh(made)
    assert made.state is ParticipantState.WITHDRAWN and counts(kind) == (0, 0)
    assert made.order.payments[0].state is PaymentState.CANCELLED
    assert mails("order_cancelled") == [] and len(mails("entry_withdrawn")) == 1


def test_who_pays_as_they_withdraw_gets_the_fee_back(ann: User, sandbox: Sandbox) -> None:
    kind = make_tournament().ticket_types[0]
    made = enter(kind, make_athlete(ann), provider="stripe")
    payment = starting.open_at_provider(made.order)
    assert payment is not None
    sandbox.do(payment.provider_id or "", "pay")
    entries.withdraw(fresh(made), actor_id=ann.id, door="api")
    made = fresh(made)
    assert (made.state, made.order.state, counts(kind)) == ("WITHDRAWN", "refunded", (0, 0))


def test_a_place_is_free_at_once_though_the_refund_is_not_answered(ann: User, sandbox: Sandbox) -> None:
    kind = make_tournament().ticket_types[0]
    made = paid_at_stripe(enter(kind, make_athlete(ann), provider="stripe"), sandbox)
    sandbox.faults("http_500", rate=1, match={"path": "/v1/refunds"})
    entries.withdraw(made, actor_id=ann.id, door="order_page")
    made = fresh(made)
    assert [refund.state for refund in made.order.payments[0].refunds] == ["created"]
    assert (made.state, counts(kind)) == (ParticipantState.WITHDRAWN, (0, 0))
    sandbox.faults()
    refunds.follow_up(made.order.payments[0].refunds[0].id, patient=True)
    assert (fresh(made).order.state, counts(kind)) == ("refunded", (0, 0))


def test_a_fee_that_cannot_go_back_after_all_is_for_a_person(ann: User, sandbox: Sandbox) -> None:
    kind = make_tournament().ticket_types[0]
    made = paid_at_stripe(enter(kind, make_athlete(ann), provider="stripe"), sandbox)
    sandbox.faults("http_500", rate=1, match={"path": "/v1/refunds"})
    entries.withdraw(made, actor_id=ann.id, door="order_page")
    payment, order = locks.payment_and_order(fresh(made).order.payments[0].id)
    refund_outcomes.failed(payment.refunds[0], payment, order, "The account is closed.", door="refund")
    db.session.commit()
    [incident] = db.session.scalars(select(Incident).filter_by(order_id=order.id))
    assert (incident.kind, incident.amount_minor) == ("kept_without_goods", 2500)
    assert fresh(made).state is ParticipantState.WITHDRAWN


def test_where_the_fee_cannot_go_back_the_entry_stands(ann: User, sandbox: Sandbox) -> None:
    kind = make_tournament().ticket_types[0]
    made = enter(kind, make_athlete(ann), provider="stripe")
    settled(made.order, "open", "paid")
    with pytest.raises(DomainError, match="refused to send the fee back"):
        entries.withdraw(fresh(made), actor_id=ann.id, door="api")
    made = fresh(made)
    assert (made.state, made.withdrawn_at, counts(kind)) == (ParticipantState.PAID, None, (0, 1))
    assert mails("entry_withdrawn") == []


def test_who_is_in_or_whose_tournament_is_off_is_not_withdrawn(ann: User) -> None:
    event = make_tournament(fee_minor=0, own={"withdrawal": Withdrawal.NOTHING})
    made = enter(event.ticket_types[0], make_athlete(ann))
    ticket = made.order.tickets[0]
    keeper = staff.doorkeeper(event, "test", "Dora")
    check_in.scan(keeper, "a" * 12, ticket.code)
    assert not entries.may_withdraw(fresh(made))
    check_in.undo(keeper, "a" * 12)
    assert entries.may_withdraw(fresh(made))
    event_cancellation.cancel(event, refund=False, actor_id=ann.id)
    with pytest.raises(DomainError, match="cannot be withdrawn any more"):
        entries.withdraw(fresh(made), actor_id=ann.id, door="api")


def test_what_was_taken_back_meanwhile_is_not_paid(app: Flask, ann: User) -> None:
    made = enter(make_tournament().ticket_types[0], make_athlete(ann), begun=False)
    read, order_id, user_id = made.public_id, made.order.id, ann.id
    assert made.withdrawn_at is None

    def elsewhere(_: int) -> object:
        user = db.session.get_one(User, user_id)
        return entries.withdraw(entries.find(user, read), actor_id=user_id, door="api").public_id

    assert at_once(app, 1, elsewhere) == [read]
    with pytest.raises(DomainError, match="Enter again"):
        managing.pay_again(order_id, "stripe", payer_id=user_id)


def test_money_for_an_entry_that_was_withdrawn_unpaid_buys_its_place(ann: User) -> None:
    kind = make_tournament().ticket_types[0]
    made = enter(kind, make_athlete(ann), provider="stripe")
    settled(made.order, "open", "expired")
    entries.withdraw(fresh(made), actor_id=ann.id, door="order_page")
    made = fresh(made)
    with pytest.raises(DomainError, match="Enter again"):
        managing.pay_again(made.order.id, "stripe", payer_id=ann.id)
    settled(made.order, "paid")
    assert fresh(made).state is ParticipantState.PAID and counts(kind) == (0, 1)


def test_after_the_deadline_nobody_withdraws(ann: User) -> None:
    kind = make_tournament(
        fee_minor=0, own={"withdraw_until": clock.now() - timedelta(minutes=1)}
    ).ticket_types[0]
    made = enter(kind, make_athlete(ann))
    with pytest.raises(DomainError, match="cannot be withdrawn any more"):
        entries.withdraw(made, actor_id=ann.id, door="order_page")
    assert fresh(made).state is ParticipantState.PAID and counts(kind) == (0, 1)


# --- Races ----------------------------------------------------------------------------------------------


def at_once(app: Flask, number: int, do: object) -> list[object]:
    """So many callers at the same moment, each with a session of its own; what they got or were refused."""

    def one(n: int) -> object:
        with app.app_context():
            try:
                return do(n)  # type: ignore[operator]
            except DomainError as error:
                return error.code
            finally:
                db.session.remove()

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(one, range(number)))


def test_one_of_fifty_gets_the_last_place(app: Flask, ann: User) -> None:
    kind_id = make_tournament(places=1).ticket_types[0].id
    made = [make_athlete(ann, f"Athlete {n}").id for n in range(50)]
    db.session.commit()

    def do(n: int) -> object:
        athlete = db.session.get_one(Athlete, made[n])
        kind = db.session.get_one(TicketType, kind_id)
        return entries.enter(kind, athlete, athlete.user, provider="stripe").id

    got = at_once(app, 50, do)
    assert len([one for one in got if isinstance(one, int)]) == 1
    assert {one for one in got if isinstance(one, str)} <= {"sold_out", "all_held", "too_few_left"}
    db.session.rollback()
    assert counts(db.session.get_one(TicketType, kind_id)) == (1, 0)
    assert db.session.scalar(select(func.count()).select_from(Order)) == 1


def test_an_athlete_entered_twenty_times_at_once_has_one_place(app: Flask, ann: User) -> None:
    kind_id, athlete_id = make_tournament(fee_minor=0, places=50).ticket_types[0].id, make_athlete(ann).id
    db.session.commit()

    def do(n: int) -> object:
        athlete = db.session.get_one(Athlete, athlete_id)
        return entries.enter(db.session.get_one(TicketType, kind_id), athlete, athlete.user).id

    got = at_once(app, 20, do)
    assert len({one for one in got if isinstance(one, int)}) == 1
    assert {one for one in got if isinstance(one, str)} <= {"already_entered"}
    db.session.rollback()
    assert counts(db.session.get_one(TicketType, kind_id)) == (0, 1)
