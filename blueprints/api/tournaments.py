"""Tournaments and their categories, as anybody may see them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from pydantic import Field

import config
from blueprints.api.athletes import Kilograms
from blueprints.api.endpoint import PUBLIC, Area
from blueprints.api.errors import Problem
from blueprints.api.shapes import Answer, Currency, Id, Moment, Money, example, sums
from domain import urls
from domain.catalogue import availability, events, tournaments
from domain.orders import entry_payments
from models import Category, Event, Sex, Withdrawal

area = Area("tournaments", "Tournaments", "What one can enter. Needs no token.")


_EXAMPLE = {
    "slug": "harbour-open",
    "name": "Harbour Open",
    "organiser": "Kassa",
    "venue": "Sports hall",
    "address": "York Street, St Helier",
    "timezone": "Europe/Jersey",
    "starts_at": "2026-03-14T09:00:00Z",
    "ends_at": "2026-03-14T18:00:00Z",
    "state": "open",
    "words": "",
    "withdraw_until": "2026-03-10T22:00:00Z",
    "withdrawal": "all",
    "url": "https://kassa.example.org/tournaments/harbour-open",
}


class TournamentShape(Answer):
    """A tournament. Its `slug` is what other paths know it by."""

    slug: str
    name: str
    organiser: str
    venue: str
    address: str
    timezone: str
    starts_at: Moment
    ends_at: Moment
    state: str = Field(description="`open` where athletes can be entered now, else why not.")
    words: str = Field(description="The same for a person; empty where it is open.")
    withdraw_until: Moment = Field(description="Until when an entry can be withdrawn.")
    withdrawal: Withdrawal = Field(description="What of the fee goes back then: `all` or `nothing`.")
    url: str

    model_config = example(_EXAMPLE)


class TournamentList(Answer):
    """The tournaments that are ahead, the next one first; at most 200."""

    items: list[TournamentShape]


class TournamentWhole(TournamentShape):
    """A tournament, with its texts."""

    description: str
    rules: str

    model_config = example(
        _EXAMPLE | {"description": "Karate for everyone.", "rules": "No kicks to the head."}
    )


class CategoryShape(Answer):
    """A category of a tournament. Limits are themselves allowed; null is no limit."""

    category_id: Id
    name: str
    amount: Money = Field(description="The entry fee; 0.00 where it is free.")
    amount_minor: int
    currency: Currency
    methods: list[str] = Field(description="By what an entry can be paid now.")
    state: str
    words: str
    places: int
    places_left: int
    opens_at: Moment | None
    closes_at: Moment | None
    min_age: int | None = Field(description="In years, on the tournament’s first day.")
    max_age: int | None
    min_weight_kg: Kilograms | None
    max_weight_kg: Kilograms | None
    sex: Sex | None
    min_grade: int | None = Field(description="-10 is the 10th kyu, -1 the 1st kyu, 1 the 1st dan.")
    max_grade: int | None
    limits: list[str] = Field(description="The limits for a person.")


class CategoryList(Answer):
    """A tournament’s categories, in its order."""

    items: list[CategoryShape]


NO_TOURNAMENT = Problem(
    404, "no_tournament", "There is no tournament at this address. It may have been renamed."
)


@area.get("/tournaments", scope=PUBLIC, answers=TournamentList)
def list_tournaments() -> TournamentList:
    """List the tournaments that are ahead."""
    return TournamentList(items=[TournamentShape(**_tournament(one)) for one in tournaments.upcoming()])


@area.get("/tournaments/<slug>", scope=PUBLIC, answers=TournamentWhole, problems=(NO_TOURNAMENT,))
def get_tournament(slug: str) -> TournamentWhole:
    """One tournament, with its texts."""
    found = _visible(slug)
    own = found.tournament
    rules = own.rules if own is not None else ""
    return TournamentWhole(**_tournament(found), description=found.description, rules=rules)


@area.get("/tournaments/<slug>/categories", scope=PUBLIC, answers=CategoryList, problems=(NO_TOURNAMENT,))
def list_categories(slug: str) -> CategoryList:
    """A tournament’s categories: fees, places, limits, and how each can be paid."""
    selling = tournaments.states(_visible(slug))
    return CategoryList(
        items=[_category(offer, own) for offer in selling.types if (own := offer.ticket_type.category)]
    )


def _visible(slug: str) -> Event:
    return events.published(tournaments.find(slug))


def _tournament(event: Event) -> dict[str, Any]:
    selling = tournaments.states(event)
    return {
        "slug": event.slug,
        "name": event.title,
        "organiser": event.organiser.name if event.organiser is not None else config.get().site_name,
        "venue": event.venue,
        "address": event.address,
        "timezone": event.timezone,
        "starts_at": event.starts_at,
        "ends_at": event.ends_at,
        "state": selling.state,
        "words": selling.words,
        "withdraw_until": tournaments.withdrawable_until(event),
        "withdrawal": event.tournament.withdrawal if event.tournament is not None else Withdrawal.ALL,
        "url": urls.event(event),
    }


def _category(offer: availability.TypeSelling, own: Category) -> CategoryShape:
    kind = offer.ticket_type
    return CategoryShape(
        category_id=own.public_id,
        name=kind.name,
        **sums(kind.price_minor, kind.priced_in),
        methods=entry_payments.methods(kind),
        state=offer.state,
        words=offer.words,
        places=kind.capacity,
        places_left=kind.available,
        opens_at=kind.sales_open_at,
        closes_at=kind.sales_close_at,
        min_age=own.min_age,
        max_age=own.max_age,
        min_weight_kg=_kilograms(own.min_weight_g),
        max_weight_kg=_kilograms(own.max_weight_g),
        sex=own.sex,
        min_grade=own.min_grade,
        max_grade=own.max_grade,
        limits=tournaments.say_limits(kind),
    )


def _kilograms(grams: int | None) -> Decimal | None:
    return Decimal(tournaments.say_kilograms(grams)) if grams is not None else None
