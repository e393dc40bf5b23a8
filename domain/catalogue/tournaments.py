"""Tournaments and their categories: writing them by the rules, and whom a category is for.

A tournament is an event and a category one of its ticket types: `events` makes and changes those. What
stands here is what only athletes need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import select
from sqlalchemy.orm import joinedload, selectinload

from domain import clock
from domain.catalogue import availability, events, grades
from domain.errors import DomainError, NotFound
from extensions import db
from models import (
    Category,
    Event,
    EventKind,
    EventState,
    OrderLine,
    Sex,
    TicketType,
    Tournament,
    Withdrawal,
)

# More upcoming tournaments than this need pages; until then the list is simply bounded.
_LIST_LIMIT = 200
_MOST_RULES = 50_000
_OLDEST = 120
_HEAVIEST_G = 500_000
OWN_FIELDS = frozenset(("rules", "withdraw_until", "withdrawal", "public_list"))
LIMITS = frozenset(
    ("min_age", "max_age", "min_weight_g", "max_weight_g", "sex", "min_grade", "max_grade"),
)


# --- Reading --------------------------------------------------------------------------------------------


def upcoming() -> list[Event]:
    """Published tournaments that are not over, the next one first."""
    query = (
        select(Event)
        .where(Event.kind == EventKind.TOURNAMENT, Event.state == EventState.PUBLISHED)
        .where(Event.ends_at > clock.now())
        .order_by(Event.starts_at, Event.id)
        .limit(_LIST_LIMIT)
        .options(joinedload(Event.picture), joinedload(Event.organiser), joinedload(Event.tournament))
        .options(selectinload(Event.ticket_types))
    )
    return list(db.session.scalars(query))


def find(slug: str, *, drafts: bool = False) -> Event:
    """The tournament at this address, with its categories. NotFound; so is a draft unless `drafts`."""
    query = (
        select(Event)
        .where(Event.slug == slug, Event.kind == EventKind.TOURNAMENT)
        .options(joinedload(Event.picture), joinedload(Event.organiser), joinedload(Event.tournament))
        .options(joinedload(Event.ticket_types).joinedload(TicketType.category))
    )
    found = db.session.scalars(query).unique().one_or_none()
    if found is None or (found.state is EventState.DRAFT and not drafts):
        raise NotFound("no_tournament", "There is no tournament at this address. It may have been renamed.")
    return found


def category(event: Event, type_id: int) -> TicketType:
    """One of a tournament's categories. NotFound for any other."""
    found = next((kind for kind in event.ticket_types if kind.id == type_id), None)
    if found is None or found.category is None:
        raise NotFound("no_category", "This tournament has no such category.")
    return found


def by_public_id(public_id: str) -> TicketType:
    """The category that programs know by this id, of a tournament that everybody may see. NotFound."""
    found = db.session.scalar(
        select(TicketType)
        .join(Category, Category.ticket_type_id == TicketType.id)
        .where(Category.public_id == public_id)
        .options(joinedload(TicketType.category))
    )
    if found is None:
        raise NotFound("no_category", "There is no such category.")
    event = find(found.event.slug)
    return category(event, found.id)


def first_day(event: Event) -> date:
    """The day on which ages are reckoned, by the tournament's own clock."""
    return event.starts_at.astimezone(ZoneInfo(event.timezone)).date()


def withdrawable_until(event: Event) -> datetime:
    """Until when whoever entered an athlete may withdraw them."""
    until = event.tournament.withdraw_until if event.tournament is not None else None
    return min(until, event.starts_at) if until is not None else event.starts_at


def say_withdrawal(event: Event, *, costs: bool = True) -> str:
    """Until when an entry can be taken back and what of its fee goes back, for whoever is about to enter."""
    until = withdrawable_until(event)
    if until <= clock.now():
        return "An entry cannot be withdrawn any more."
    words = f"An entry can be withdrawn until {availability.say_when(until, event.timezone)}"
    if not costs:
        return f"{words}."
    own = event.tournament
    back = own is None or own.withdrawal is Withdrawal.ALL
    return f"{words}. {'The whole fee goes back then.' if back else 'The fee does not go back.'}"


# --- Whom a category is for -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Entrant:
    """What a category asks of an athlete; None is not known. Weight in grams."""

    birth_date: date
    sex: Sex | None
    weight_g: int | None
    grade: int | None


def age_on(birth_date: date, day: date) -> int:
    """Whole years; who is born on 29 February is a year older on 1 March of a common year."""
    return day.year - birth_date.year - ((day.month, day.day) < (birth_date.month, birth_date.day))


def check_eligible(kind: TicketType, entrant: Entrant) -> None:
    """Refuse whom a category is not for. DomainError `not_eligible` says which limit, in words."""
    problem = why_not(kind, entrant)
    if problem:
        raise DomainError("not_eligible", f"{kind.name}: {problem}")


def why_not(kind: TicketType, entrant: Entrant) -> str:
    """Why a category is not for this athlete; "" where it is."""
    limits = kind.category
    if limits is None:
        return ""
    if limits.sex is not None and entrant.sex is not limits.sex:
        known = "the athlete’s sex is not filled in" if entrant.sex is None else "this athlete is not"
        return f"it is for {_SEXES[limits.sex]}, and {known}."
    age = age_on(entrant.birth_date, first_day(kind.event))
    parts = (
        ("age", say_ages, limits.min_age, limits.max_age, age),
        ("weight", say_weights, limits.min_weight_g, limits.max_weight_g, entrant.weight_g),
        ("grade", say_grades, limits.min_grade, limits.max_grade, entrant.grade),
    )
    for name, say, least, most, has in parts:
        if least is None and most is None:
            continue
        if has is None:
            return f"it asks for {say(limits)}, and the athlete’s {name} is not filled in."
        if (least is not None and has < least) or (most is not None and has > most):
            on = " on the tournament’s first day" if name == "age" else ""
            return f"it asks for {say(limits)}{on}."
    return ""


_SEXES = {Sex.FEMALE: "girls and women", Sex.MALE: "boys and men"}


def say_limits(kind: TicketType) -> list[str]:
    """A category's limits, each in words."""
    limits = kind.category
    if limits is None:
        return []
    said = [_SEXES[limits.sex].capitalize()] if limits.sex is not None else []
    return said + [words for words in (say_ages(limits), say_weights(limits), say_grades(limits)) if words]


def say_ages(limits: Category) -> str:
    """`12 to 14 years`; the age class that lists show in place of a birth date."""
    if limits.min_age is not None and limits.min_age == limits.max_age:
        return f"{limits.min_age} years"
    return _span(limits.min_age, limits.max_age, " years", str)


def say_weights(limits: Category) -> str:
    return _span(limits.min_weight_g, limits.max_weight_g, " kg", say_kilograms)


def say_grades(limits: Category) -> str:
    return _span(limits.min_grade, limits.max_grade, "", grades.say)


def _span(least: int | None, most: int | None, unit: str, say: Any) -> str:
    if least is not None and most is not None:
        return f"{say(least)} to {say(most)}{unit}"
    if least is not None:
        return f"{say(least)}{unit} and up"
    return f"up to {say(most)}{unit}" if most is not None else ""


def say_kilograms(grams: int) -> str:
    """`66` or `66.5`."""
    return f"{Decimal(grams) / 1000:f}".rstrip("0").rstrip(".") if grams % 1000 else str(grams // 1000)


def grams(typed: str) -> int | None:
    """A weight as it is typed in kilograms, in grams; None for nothing. DomainError `weight`."""
    text = typed.strip().replace(",", ".").removesuffix("kg").strip()
    if not text:
        return None
    try:
        plain = text.isascii() and not set(text.lower()) & {"e", "_"}
        found = Decimal(text) * 1000 if plain else Decimal("nan")
    except InvalidOperation:
        found = Decimal("nan")
    if not found.is_finite() or found != found.to_integral_value() or not 0 < found <= _HEAVIEST_G:
        raise DomainError("weight", "Type a weight in kilograms, such as 66 or 52.5.")
    return int(found)


# --- Writing --------------------------------------------------------------------------------------------


def create(own: Mapping[str, Any], values: Mapping[str, Any]) -> Event:
    """A new draft: `values` as `events.create_event` takes them, `own` of OWN_FIELDS. Commits."""
    made = Tournament(rules="", withdrawal=Withdrawal.ALL, public_list=False)
    _apply(made, own, OWN_FIELDS)
    _check_own(made, values["starts_at"])
    return events.create_event(**{**values, "kind": EventKind.TOURNAMENT, "tournament": made})


def change(event: Event, own: Mapping[str, Any], values: Mapping[str, Any], *, moves: bool = False) -> Event:
    """Change a tournament: `values` and `moves` as `events.update_event` takes them. Commits."""
    found = event.tournament
    if found is None:
        raise NotFound("no_tournament", "This event is not a tournament.")
    _try(lambda: _change_own(found, own, values.get("starts_at", event.starts_at)))
    return events.update_event(event, moves=moves, **values)


def _change_own(found: Tournament, own: Mapping[str, Any], starts_at: datetime) -> None:
    _apply(found, own, OWN_FIELDS)
    _check_own(found, starts_at)


def add_category(event: Event, limits: Mapping[str, Any], values: Mapping[str, Any]) -> TicketType:
    """A new category: `values` as `events.add_ticket_type` takes them, `limits` of LIMITS. Commits."""
    made = Category()
    _change_limits(made, limits)
    return events.add_ticket_type(event, **{**values, "per_order_limit": 1, "category": made})


def change_category(kind: TicketType, limits: Mapping[str, Any], values: Mapping[str, Any]) -> TicketType:
    """Change a category. Who is entered stays entered. Commits; DomainError in words, nothing changed."""
    found = kind.category
    if found is None:
        raise NotFound("no_category", "This ticket is not a category.")
    if values.get("currency", kind.currency) != kind.currency and _is_ordered(kind):
        raise DomainError("kind_currency", "The currency stays, because there are entries in it already.")
    _try(lambda: _change_limits(found, limits))
    return events.update_ticket_type(kind, **values)


def _change_limits(found: Category, limits: Mapping[str, Any]) -> None:
    _apply(found, limits, LIMITS)
    _check_limits(found)


def _try(work: Callable[[], None]) -> None:
    """Do it before anything is written; nothing is changed where a rule refuses it."""
    with db.session.no_autoflush:
        try:
            work()
        except DomainError:
            db.session.rollback()
            raise


def states(event: Event) -> availability.Selling:
    """Whether each category takes entries now, and why not, in words."""
    return availability.selling(event)


def _is_ordered(kind: TicketType) -> bool:
    return db.session.scalar(select(OrderLine.id).filter_by(ticket_type_id=kind.id).limit(1)) is not None


def _apply(row: Tournament | Category, values: Mapping[str, Any], allowed: frozenset[str]) -> None:
    unknown = sorted(values.keys() - allowed)
    if unknown:
        raise TypeError(f"{type(row).__name__} has no changeable {', '.join(unknown)}")
    for name, value in values.items():
        setattr(row, name, value)


def _check_own(found: Tournament, starts_at: datetime) -> None:
    if len(found.rules) > _MOST_RULES:
        raise DomainError("rules", f"The rules are too long: at most {_MOST_RULES:,} characters.")
    if found.withdraw_until is not None and found.withdraw_until > starts_at:
        raise DomainError(
            "withdraw_until", "Entries can be withdrawn until the tournament starts, no longer."
        )


def _check_limits(found: Category) -> None:
    ages = [age for age in (found.min_age, found.max_age) if age is not None]
    if any(not 0 <= age <= _OLDEST for age in ages):
        raise DomainError("min_age", f"Ages are between 0 and {_OLDEST}.")
    for grade in (found.min_grade, found.max_grade):
        grades.check(grade)
    pairs = (
        ("max_age", found.min_age, found.max_age),
        ("max_weight", found.min_weight_g, found.max_weight_g),
        ("max_grade", found.min_grade, found.max_grade),
    )
    for name, least, most in pairs:
        if least is not None and most is not None and most < least:
            raise DomainError(name, "The upper limit is below the lower one.")
