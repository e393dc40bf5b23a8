"""Entering an athlete in a tournament's category, and withdrawing them again.

An entry is an order of one line, so that whatever settles its payment hands over its place, and whatever
takes the money back gives the place back. The participant says whose place it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TypeGuard

from sqlalchemy import Select, select
from sqlalchemy.orm import contains_eager, joinedload

from domain import clock, locks
from domain.catalogue import tournaments
from domain.errors import DomainError, NotFound
from domain.orders import managing, placing
from domain.payments import refundable, refunds
from domain.people import athletes
from domain.tickets import issuing
from extensions import db, queue
from models import (
    PAYMENT_ACTIVE,
    Athlete,
    Event,
    EventState,
    Order,
    Participant,
    ParticipantState,
    Payment,
    PaymentState,
    RefundState,
    TicketState,
    TicketType,
    Tournament,
    User,
    Withdrawal,
)

_MOST_LISTED = 500


# --- Reading --------------------------------------------------------------------------------------------


def _whole() -> Select[Participant]:
    """Participants with all that their pages show, in a number of queries that does not grow with them."""
    return (
        select(Participant)
        .join(Order, Order.id == Participant.order_id)
        .options(
            contains_eager(Participant.order).selectinload(Order.tickets),
            contains_eager(Participant.order).selectinload(Order.payments),
            contains_eager(Participant.order).joinedload(Order.event).joinedload(Event.tournament),
            joinedload(Participant.athlete),
            joinedload(Participant.ticket_type).joinedload(TicketType.category),
        )
    )


def of(user: User) -> list[Participant]:
    """The entries that a member made, the newest first."""
    query = _whole().where(Order.user_id == user.id).order_by(Participant.id.desc()).limit(_MOST_LISTED)
    return list(db.session.scalars(query).unique())


def find(user: User, public_id: str) -> Participant:
    """One of the member's own entries. NotFound alike for another's and for one that there is not."""
    return _own(_whole(), user, public_id)


def find_with_payments(user: User, public_id: str) -> Participant:
    """The same, with no more read than what became of its payments: programs ask that again and again."""
    ended = (joinedload(Payment.refunds), joinedload(Payment.disputes))
    payments = contains_eager(Participant.order).selectinload(Order.payments).options(*ended)
    return _own(select(Participant).join(Order).options(payments), user, public_id)


def _own(query: Select[Participant], user: User, public_id: str) -> Participant:
    own = query.where(Participant.public_id == public_id, Order.user_id == user.id)
    found = db.session.scalars(own).unique().one_or_none()
    if found is None:
        raise NotFound("no_participant", "There is no such entry.")
    return found


def waiting(user: User, kind: TicketType, athlete: Athlete) -> bool:
    """Whether the athlete has an entry of this member's there that waits for its payment."""
    query = placing.entered(kind, [athlete.id]).where(Order.user_id == user.id).limit(1)
    found = db.session.scalars(query).first()
    return found is not None and found.state is ParticipantState.PENDING


def of_order(order: Order) -> Participant | None:
    """Whose place an order pays for; None where it is about something else."""
    return db.session.scalars(_whole().where(Participant.order_id == order.id)).unique().one_or_none()


def without_consent(found: list[Participant]) -> list[Athlete]:
    """The minors among entries that stand whose guardians have not agreed to the consent as it is now."""
    minors = {
        one.athlete_id: one.athlete
        for one in found
        if one.state is not ParticipantState.WITHDRAWN
        and one.athlete.removed_at is None
        and _is_ahead(one.order.event)
        and athletes.is_minor(one.athlete, one.order.event)
    }
    agreed = athletes.consented(minors) if minors else set()
    return [athlete for id_, athlete in minors.items() if id_ not in agreed]


def _is_ahead(event: Event | None) -> TypeGuard[Event]:
    return event is not None and event.state is not EventState.CANCELLED and event.ends_at > clock.now()


def qr_texts(participant: Participant) -> list[str]:
    """What the door scans for an entry, as text; nothing until it has its place, or after it lost it."""
    order = participant.order
    return [issuing.qr_text(one, order.code) for one in order.tickets if one.state is TicketState.VALID]


# --- Entering -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """An athlete as a category's entry form offers them: `problem` says why they cannot be entered, or "".

    `unpaid` is the entry that they have there and that waits for its payment.
    """

    athlete: Athlete
    problem: str
    needs_consent: bool
    unpaid: Participant | None = None


def choices(user: User, kind: TicketType) -> list[Choice]:
    """The member's athletes, each with what is in the way of entering them here, in three queries."""
    own = athletes.of(user)
    ids = [athlete.id for athlete in own]
    entered = placing.entered(kind, ids).options(
        contains_eager(Participant.order).selectinload(Order.tickets)
    )
    there = {one.athlete_id: one for one in db.session.scalars(entered)}
    agreed = athletes.consented(ids)
    return [_choice(athlete, kind, there.get(athlete.id), athlete.id in agreed) for athlete in own]


def _choice(athlete: Athlete, kind: TicketType, there: Participant | None, agreed: bool) -> Choice:
    problem = tournaments.why_not(kind, athletes.entrant(athlete))
    unpaid = there if there is not None and there.state is ParticipantState.PENDING else None
    if there is not None:
        problem = "is entered here already" if unpaid is None else "is entered here, but not paid for yet"
    asks = athletes.is_minor(athlete, kind.event) and not agreed
    return Choice(athlete, problem, asks, unpaid)


def enter(
    kind: TicketType,
    athlete: Athlete,
    user: User,
    *,
    provider: str | None = None,
    consent: str | None = None,
    form_token: str | None = None,
    client_address: str = "",
    shown: str | None = None,
    begun: bool = True,
) -> Participant:
    """Enter an athlete: their place is held until it is paid for, or theirs at once where free. Commits.

    Where the payment is not `begun` with it, no place is held until it is: see entry_payments.py. `consent`
    is the hash of the text that a guardian has just agreed to, None where nobody did. An athlete whose entry
    there waits for its payment keeps that entry, and it is returned. DomainError in words.
    """
    if athlete.user_id != user.id or athlete.removed_at is not None:
        raise NotFound("no_athlete", "There is no such athlete.")
    if consent is not None and athletes.is_minor(athlete, kind.event):
        athletes.agree(athlete, user, consent)
    standing = db.session.scalars(placing.entered(kind, [athlete.id]).limit(1)).first()
    waits = standing is not None and standing.state is ParticipantState.PENDING
    if not waits:
        tournaments.check_eligible(kind, athletes.entrant(athlete))
    check_consent(athlete, kind.event)
    if standing is not None and waits:
        return standing
    order = placing.place_entry(
        kind,
        athlete,
        user,
        provider=provider,
        form_token=form_token,
        client_address=client_address,
        shown=shown,
        begun=begun,
    )
    found = of_order(order)
    if found is None:
        raise DomainError("unreadable", "That form was used for something else. Reload the page.")
    return found


def check_consent(athlete: Athlete, event: Event) -> None:
    """DomainError where an athlete is under age, and nobody has agreed for them."""
    if athletes.is_minor(athlete, event) and not athletes.consented([athlete.id]):
        raise DomainError(
            "consent_needed", f"{athlete.name} is under age: a parent or guardian has to agree first."
        )


def enter_anew(order: Order, *, provider: str | None, form_token: str, shown: str) -> Order:
    """Another entry in the place of one that ended unpaid, at the fee of today, as `shown`. Commits."""
    found = of_order(order)
    if found is None or order.user is None:
        raise DomainError("unreadable", "This order cannot be made again. Enter on the tournament’s page.")
    kind, athlete = found.ticket_type, found.athlete
    tournaments.check_eligible(kind, athletes.entrant(athlete))
    check_consent(athlete, kind.event)
    return placing.place_entry(
        kind,
        athlete,
        order.user,
        provider=provider,
        form_token=form_token,
        client_address=order.client_address,
        shown=shown,
        instead_of=order.id,
    )


# --- Withdrawing ----------------------------------------------------------------------------------------


def may_withdraw(participant: Participant) -> bool:
    """Whether whoever made the entry may take it back now.

    Not of a tournament that was cancelled, whose money goes back by another rule, nor once they are let in.
    """
    event = participant.order.event
    if event is None or event.state is EventState.CANCELLED:
        return False
    if participant.state is ParticipantState.WITHDRAWN or any(
        ticket.checked_in_at is not None for ticket in participant.order.tickets
    ):
        return False
    return clock.now() < tournaments.withdrawable_until(event)


def gives_back(participant: Participant) -> bool:
    """Whether the fee goes back when the entry is withdrawn."""
    event = participant.order.event
    own: Tournament | None = event.tournament if event is not None else None
    return own is None or own.withdrawal is Withdrawal.ALL


def withdraw(participant: Participant, *, actor_id: int, door: str) -> Participant:
    """Take an entry back: its place is free again, and the fee goes back where that is the rule. Commits.

    Paid as it was being closed, it is given back as any paid one. DomainError when it is too late, when the
    provider does not confirm that an open payment is closed, or when it refuses to send the fee back.
    """
    for _ in range(_TRIES):
        if not may_withdraw(participant):
            raise DomainError("too_late", "This entry cannot be withdrawn any more.")
        order, participant_id = participant.order, participant.id
        _take_back(participant, actor_id, door)
        done = locks.in_one_transaction(partial(_mark, order.id, participant_id))
        participant = db.session.get_one(Participant, participant_id, populate_existing=True)
        if done:
            queue.soon("deliver_mail")
            return participant
    raise DomainError("in_between", "This entry is being paid just now. Look again in a minute.")


_REASON = "Withdrawn by whoever entered"
_TRIES = 3


def _take_back(participant: Participant, actor_id: int, door: str) -> None:
    """The money and the place of an entry, as far as there is either."""
    order = participant.order
    paid = next((p for p in order.payments if p.fulfilled and p.received_minor is not None), None)
    closing = paid is None and any(payment.state in PAYMENT_ACTIVE for payment in order.payments)
    if paid is not None and gives_back(participant):
        _refund(order, paid, actor_id, door)
    elif closing:
        managing.cancel(order, door=door, actor_id=actor_id, told=True)
    elif paid is None and any(payment.state is PaymentState.REVIEW for payment in order.payments):
        raise DomainError("in_review", "A person is looking at this payment. You will hear from us by mail.")
    db.session.expire(order)
    ids = [ticket.id for ticket in order.tickets if ticket.state is not TicketState.VOID]
    if ids and (not closing or not gives_back(participant)):
        # The place is free at once, whenever the money goes back: a call that was not answered is made again.
        managing.withdraw(order, ids, reason=_REASON, door=door, actor_id=actor_id, keeps_money=True)


def _refund(order: Order, paid: Payment, actor_id: int, door: str) -> None:
    left = refundable.refundable_minor(paid)
    if left <= 0:
        return
    ids = [ticket.id for ticket in order.tickets]
    made = refunds.request(paid.id, left, actor_id=actor_id, reason=_REASON, void_ticket_ids=ids, door=door)
    if made.state in (RefundState.FAILED, RefundState.CANCELLED):
        raise DomainError(
            "refund_refused",
            "The payment service refused to send the fee back, so nothing was changed. We know of it, and "
            "write to you.",
        )


def _mark(order_id: int, participant_id: int) -> bool:
    """Write down that an entry is withdrawn; False where it was paid, or its payment begun, meanwhile."""
    order = locks.order(order_id)
    db.session.expire(order, ["payments", "tickets"])
    standing = any(ticket.state is not TicketState.VOID for ticket in order.tickets)
    if standing or any(payment.state in PAYMENT_ACTIVE for payment in order.payments):
        return False
    found = db.session.get_one(Participant, participant_id, populate_existing=True)
    found.withdrawn_at = clock.now()
    managing.tell_withdrawn(order)
    return True
