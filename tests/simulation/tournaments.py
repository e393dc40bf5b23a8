"""Tournaments of the house's, to be entered; most are small, and there are always a few."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from domain import clock
from extensions import db
from models import Category, Event, EventKind, EventState, TicketType, Tournament, Withdrawal

if TYPE_CHECKING:
    from tests.simulation.world import World

# In which currency they are entered, and how their fees are paid.
_SOLD = (("EUR", ("stripe", "sumup")), ("AED", ("stripe", "wallet")))


def pick(world: World) -> tuple[int, tuple[int, ...]]:
    """A tournament of the house's and its categories: one with a fee, one for the heavy, one free."""
    while len(world.tournaments) < 2:
        world.tournaments.append(_new(world))
    index = world.rng.randrange(len(world.tournaments))
    picked = world.tournaments[index]
    if world.rng.random() < 0.08:
        del world.tournaments[index]
    return picked


def _new(world: World) -> tuple[int, tuple[int, ...]]:
    world.events_made += 1
    currency, ways = _SOLD[world.events_made % len(_SOLD)]
    kinds = (("Kumite", 2500, None), ("Heavy", 3000, 70_000), ("Kata", 0, None))
    with world.app.app_context():
        now = clock.now()
        away = timedelta(hours=1) if world.rng.random() < world.habits.soon else timedelta(days=400)
        new = Event(
            slug=f"tournament-{world.events_made}",
            title=f"Tournament {world.events_made}",
            kind=EventKind.TOURNAMENT,
            starts_at=now + away,
            ends_at=now + away * 2,
            currency=currency,
            state=EventState.PUBLISHED,
            created_at=now,
            updated_at=now,
            tournament=Tournament(withdrawal=world.rng.choice(list(Withdrawal))),
            ticket_types=[
                TicketType(
                    name=name,
                    price_minor=price_minor,
                    capacity=world.rng.randint(*world.habits.places),
                    per_order_limit=1,
                    position=place,
                    category=Category(min_weight_g=lightest),
                )
                for place, (name, price_minor, lightest) in enumerate(kinds)
            ],
        )
        db.session.add(new)
        db.session.commit()
        world.ways[new.id] = ways
        return new.id, tuple(kind.id for kind in new.ticket_types)
