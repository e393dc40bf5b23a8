"""A member's entries: one athlete in one category of one tournament."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from blueprints.api.athletes import CONSENT_CHANGED
from blueprints.api.caller import caller
from blueprints.api.endpoint import Area
from blueprints.api.errors import ApiProblem, Problem
from blueprints.api.shapes import Answer, Body, Currency, Id, Moment, Money, example, sums
from domain import urls
from domain.catalogue import tournaments
from domain.errors import DomainError
from domain.orders import entries
from domain.payments.fulfilment import SoldOut
from domain.people import athletes
from domain.security.scopes import Scope
from models import Participant, ParticipantState

area = Area("participants", "Participants", "Entries: an athlete in a category. Paid for under Payments.")


class Enter(Body):
    """Who is entered, and where."""

    category_id: Id
    athlete_id: Id
    consent: str | None = Field(
        None,
        max_length=64,
        description="The `text_hash` of the consent, where a guardian agrees with this entry.",
    )

    model_config = example(
        {
            "category_id": "category_6f1d2c3b4a5968778695a4b3c2d1e0f9",
            "athlete_id": "athlete_9sX2bL0qW7tYv4mKc1Rd",
        }
    )


class ParticipantShape(Answer):
    """An entry of the caller’s."""

    participant_id: Id
    athlete_id: Id
    athlete: str
    category_id: Id
    category: str
    tournament: str = Field(description="Its slug.")
    status: ParticipantState
    amount: Money = Field(description="The entry fee: what a payment must be of.")
    amount_minor: int
    currency: Currency
    created_at: Moment
    may_withdraw: bool
    order_url: str = Field(
        description="Its page, with the code that the door scans. Who has it has the entry."
    )
    ticket_codes: list[str] = Field(description="What the door scans, as text; empty until it is paid.")

    model_config = example(
        {
            "participant_id": "participant_H2vGq0sJ1xkQ3mZpT8nB",
            "athlete_id": "athlete_9sX2bL0qW7tYv4mKc1Rd",
            "athlete": "Aliya Serik",
            "category_id": "category_6f1d2c3b4a5968778695a4b3c2d1e0f9",
            "category": "Girls under 46 kg",
            "tournament": "harbour-open",
            "status": "PENDING",
            "amount": 5000.00,
            "amount_minor": 500000,
            "currency": "KZT",
            "created_at": "2026-01-15T13:58:00Z",
            "may_withdraw": True,
            "order_url": "https://kassa.example.org/o/ORD-7K2M9XQP/secret",
            "ticket_codes": [],
        }
    )


class ParticipantList(Answer):
    """The caller’s entries, the newest first; at most 500."""

    items: list[ParticipantShape]


NO_PARTICIPANT = Problem(404, "no_participant", "There is no such entry.")


NO_PLACE = (
    Problem(409, "sold_out", "All places are taken.", lasting=False),
    Problem(409, "all_held", "Others are paying for the places that are left.", lasting=False),
)
NOT_ON_SALE = (
    Problem(409, "not_yet", "Entries open on 1 March.", lasting=False),
    Problem(409, "closed", "Entries have closed.", lasting=False),
    Problem(409, "past", "This tournament is over."),
    Problem(409, "cancelled", "This tournament was cancelled."),
    Problem(409, "payments_off", "Payments are not set up here yet.", lasting=False),
)
CONSENT_NEEDED = Problem(400, "consent_needed", "A parent or guardian has to agree first.", lasting=False)


def _order_url(answer: dict[str, Any]) -> str:
    """Of an answer that is given again: who has the address has the entry, so it is kept nowhere else."""
    return urls.order(entries.find(caller().user, str(answer["participant_id"])).order)


def _ticket_codes(answer: dict[str, Any]) -> list[str]:
    paid = answer["status"] == ParticipantState.PAID
    return entries.qr_texts(entries.find(caller().user, str(answer["participant_id"]))) if paid else []


_SECRETS = {"order_url": _order_url, "ticket_codes": _ticket_codes}


@area.get("/participants", scope=Scope.PARTICIPANTS_READ, answers=ParticipantList)
def list_participants() -> ParticipantList:
    """List one’s entries."""
    return ParticipantList(items=[_shape(one) for one in entries.of(caller().user)])


@area.post(
    "/participants",
    scope=Scope.PARTICIPANTS_WRITE,
    answers={201: ParticipantShape, 200: ParticipantShape},
    problems=(
        Problem(404, "no_category", "This tournament has no such category."),
        Problem(404, "no_athlete", "There is no such athlete."),
        # The athlete may be changed, the consent given, the other entry withdrawn.
        Problem(400, "not_eligible", "Girls under 46 kg: it asks for up to 46 kg.", lasting=False),
        CONSENT_NEEDED,
        CONSENT_CHANGED,
        Problem(409, "already_entered", "Aliya Serik is entered in this category already.", lasting=False),
        *NO_PLACE,
        *NOT_ON_SALE,
    ),
    secrets=_SECRETS,
    limit="60 per minute",
)
def enter(body: Enter) -> tuple[ParticipantShape, int]:
    """Enter an athlete in a category.

    A free category is entered with that. Elsewhere the entry waits for its payment, and no place is held
    until that is begun. An entry that waits is answered again with 200.
    """
    member = caller().user
    kind = tournaments.by_public_id(body.category_id)
    athlete = athletes.find(member, body.athlete_id)
    waiting = entries.waiting(member, kind, athlete)
    try:
        made = entries.enter(
            kind,
            athlete,
            member,
            consent=body.consent,
            client_address=caller().client_address,
            begun=False,
        )
    except DomainError as error:
        if isinstance(error, SoldOut) or error.code == "already_entered":
            raise ApiProblem(409, error.code, error.message) from error
        raise
    return _shape(made), 200 if waiting else 201


@area.get(
    "/participants/<participant_id>",
    scope=Scope.PARTICIPANTS_READ,
    answers=ParticipantShape,
    problems=(NO_PARTICIPANT,),
)
def get_participant(participant_id: str) -> ParticipantShape:
    """One of one’s entries."""
    return _shape(entries.find(caller().user, participant_id))


@area.post(
    "/participants/<participant_id>/withdraw",
    scope=Scope.PARTICIPANTS_WRITE,
    answers=ParticipantShape,
    problems=(
        NO_PARTICIPANT,
        Problem(409, "too_late", "This entry cannot be withdrawn any more."),
        Problem(409, "refund_refused", "The payment service refused to send the fee back.", lasting=False),
        Problem(
            409, "payment_in_progress", "The bank is confirming a payment for this entry.", lasting=False
        ),
    ),
    secrets=_SECRETS,
)
def withdraw_participant(participant_id: str) -> ParticipantShape:
    """Take an entry back. Its place is free again, and the fee goes back where the tournament says so."""
    member = caller().user
    found = entries.find(member, participant_id)
    try:
        gone = entries.withdraw(found, actor_id=member.id, door="api")
    except DomainError as error:
        code = error.code if error.code in ("too_late", "refund_refused") else "payment_in_progress"
        raise ApiProblem(409, code, error.message) from error
    return _shape(entries.find(member, gone.public_id))


def _shape(one: Participant) -> ParticipantShape:
    event, category = one.order.event, one.ticket_type.category
    return ParticipantShape(
        participant_id=one.public_id,
        athlete_id=one.athlete.public_id,
        athlete=one.athlete.name,
        category_id=category.public_id if category is not None else "",
        category=one.ticket_type.name,
        tournament=event.slug if event is not None else "",
        status=one.state,
        **sums(one.order.total_minor, one.order.currency),
        created_at=one.created_at,
        may_withdraw=entries.may_withdraw(one),
        order_url=urls.order(one.order),
        ticket_codes=entries.qr_texts(one),
    )
