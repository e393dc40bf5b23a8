"""Tournaments, athletes and entries for tests, made through the domain."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from domain import clock
from domain.catalogue import events, tournaments
from domain.orders import entries
from domain.people import athletes
from models import Athlete, Event, EventState, Participant, TicketType, User


def make_tournament(
    slug: str = "open",
    *,
    fee_minor: int = 2500,
    places: int = 10,
    own: dict[str, Any] | None = None,
    **more: Any,
) -> Event:
    """A published tournament of the house's in 30 days, with one category for everybody, committed."""
    now = clock.now()
    values = {
        "slug": slug,
        "title": slug.title(),
        "venue": "Town Hall",
        "timezone": "Europe/Jersey",
        "starts_at": now + timedelta(days=30),
        "ends_at": now + timedelta(days=31),
        "currency": "EUR",
    }
    made = tournaments.create(own or {}, values | more)
    add_category(made, fee_minor=fee_minor, places=places)
    return events.update_event(made, state=EventState.PUBLISHED)


def add_category(
    event: Event,
    name: str = "Kumite",
    *,
    fee_minor: int = 2500,
    places: int = 10,
    currency: str | None = None,
    **limits: Any,
) -> TicketType:
    values = {"name": name, "price_minor": fee_minor, "capacity": places, "currency": currency}
    return tournaments.add_category(event, limits, values)


def make_athlete(user: User, name: str = "Aiko Adult", **values: Any) -> Athlete:
    """An athlete of full age, unless `birth_date` says otherwise."""
    return athletes.add(user, {"name": name, "birth_date": date(1995, 5, 31), "club": "Dojo"} | values)


def enter(kind: TicketType, athlete: Athlete, **more: Any) -> Participant:
    return entries.enter(kind, athlete, athlete.user, **more)
