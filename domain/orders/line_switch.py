"""Switching an event's waiting line on and off: by hand, or by itself when too much is held unpaid."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select, update

import config
from domain import addresses, clock
from domain.errors import DomainError
from domain.orders import line_turns
from domain.post import alerts, outbox
from extensions import db, queue
from models import Event, LineMode, TicketType

SWITCHED = {
    LineMode.OFF: "The waiting line is off: everybody can order at once.",
    LineMode.AUTO: "The waiting line goes on by itself when too much is held unpaid.",
    LineMode.ON: "The waiting line is on.",
}


def set_mode(event: Event, mode: str) -> None:
    """Switch the line by hand. Commits. DomainError for what is no mode, and for a tournament."""
    if event.is_tournament:
        raise DomainError(
            "tournament", "A place in a tournament is entered by a member, and has no waiting line."
        )
    if mode not in set(LineMode):
        raise DomainError("line_mode", "Choose off, by itself, or on.")
    event.line, event.line_since = LineMode(mode), None
    db.session.commit()


@dataclass(frozen=True)
class Standing:
    """A line as its organiser sees it: whether it is on, how many wait, and the share by which it goes on."""

    on: bool
    waiting: int
    share: int


def standing(event: Event) -> Standing:
    """How an event's line stands."""
    waiting = (
        db.session.scalar(select(func.count()).where(*line_turns.waiting(event.id))) if event.has_line else 0
    )
    return Standing(event.has_line, waiting or 0, config.get().waiting_line_share)


def is_watched(event: Event) -> bool:
    """Whether the line may have to be switched on by itself."""
    return event.line is LineMode.AUTO and event.line_since is None and not event.is_tournament


def watch(event: Event) -> bool:
    """Switch the line on by itself where what is unpaid has passed its share of a type's stock. Commits.

    Called after an order; tells the operators and the organiser at once. Whether it was switched on.
    """
    share = config.get().waiting_line_share
    passed = select(TicketType).where(
        TicketType.event_id == event.id, TicketType.held * 100 > TicketType.capacity * share
    )
    kind = db.session.scalar(passed.limit(1))
    if kind is None:
        db.session.rollback()
        return False
    now = clock.now()
    switched = db.session.scalar(
        update(Event)
        .where(Event.id == event.id, Event.line == LineMode.AUTO, Event.line_since.is_(None))
        .values(line_since=now)
        .returning(Event.id)
        .execution_options(synchronize_session=False)
    )
    if switched is not None:
        key = f"line-on:{event.id}:{now:%Y-%m-%dT%H:%M:%S}"
        outbox.alert(*alerts.line_on(event, kind), key=key)
        organiser = event.organiser
        if organiser is not None:
            context = {"title": event.title, "held": kind.held, "capacity": kind.capacity, "type": kind.name}
            context["link"] = f"{config.get().public_url}/organiser/events/{event.slug}"
            to = organiser.contact_email
            # They typed it into their profile, and it may be anybody's.
            typed = addresses.settled(to) != addresses.settled(organiser.user.email)
            outbox.stage("line_on", key=f"{key}:mail", to=to, context=context, unproven=typed)
    db.session.commit()
    db.session.expire(event, ["line_since"])
    queue.soon("deliver_mail")
    return switched is not None
