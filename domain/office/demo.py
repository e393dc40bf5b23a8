"""A small believable box office, for development only: accounts, events with pictures, and a few guests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

import httpx
import structlog
from sqlalchemy import select

import config
from domain import clock, money, site_texts
from domain.catalogue import events, house_account, payees, tournaments
from domain.connections import linked_accounts
from domain.errors import DomainError
from domain.ledger import agents
from domain.office import posters
from domain.orders import entries, placing
from domain.people import accounts, athletes, organisers
from domain.providers import registry
from extensions import db
from models import ConnectionState, Event, EventState, Order, Role, TicketType, User

log = structlog.get_logger(__name__)

# Printed by bin/run; these accounts exist in development only.
PASSWORD = "kassa-demo"
_PEOPLE = (
    ("admin", Role.ADMIN, "Ada Admin"),
    ("organiser", Role.ORGANISER, "Otto Organiser"),
    ("door", Role.DOOR, "Dora Doorkeeper"),
    ("buyer", Role.BUYER, "Bea Buyer"),
)
NAMES = tuple(name for name, _, _ in _PEOPLE)


@dataclass(frozen=True)
class _Kind:
    name: str
    price: str
    capacity: int
    description: str = ""
    opens_in_days: int | None = None


@dataclass(frozen=True)
class _Show:
    slug: str
    title: str
    poster: str
    venue: str
    address: str
    timezone: str
    currency: str
    in_days: int
    starts: tuple[int, int]
    hours: float
    description: str
    kinds: tuple[_Kind, ...]
    # Guests who have booked the first kind already, which is free: name, address, number of tickets.
    guests: tuple[tuple[str, str, int], ...] = ()
    # Whether it is the demo organiser's own, and the one provider that it sells by.
    organised: bool = False
    sells_by: str = ""


_SHOWS = (
    _Show(
        slug="lantern-night",
        title="Lantern Night: Strings by Candlelight",
        poster="lanterns",
        venue="The Old Ropeworks",
        address="4 Harbour Lane, St Helier, Jersey",
        timezone="Europe/Jersey",
        currency="GBP",
        in_days=12,
        starts=(19, 30),
        hours=2,
        description=(
            "Four players, two hundred lanterns, and no other light. The Tidewater Quartet plays "
            "Ravel, Caroline Shaw and a set of sea songs they collected on the island's piers.\n\n"
            "Doors at 18:45. Hot cider in the interval. The hall is heated, if only just: bring a "
            "coat you like."
        ),
        kinds=(
            _Kind("Front rows", "34", 40, "Rows A to D, numbered at the door"),
            _Kind("Seat", "22", 160),
            _Kind("Under 16", "9", 40, "With a grown-up"),
        ),
    ),
    _Show(
        slug="desert-jazz",
        title="Desert Jazz under the Stars",
        poster="dunes",
        venue="Al Marmoom Dune Stage",
        address="Gate 2, Al Qudra Road, Dubai",
        timezone="Asia/Dubai",
        currency="AED",
        in_days=19,
        starts=(20, 0),
        hours=3.5,
        description=(
            "The Leila Haddad Trio on a stage of sand, an hour after sunset. Rugs, lanterns, and "
            "the band close enough to hear the bass player count.\n\nBuses leave from Gate 2 every "
            "twenty minutes. Trainers beat heels."
        ),
        kinds=(
            _Kind("Rug", "120", 200, "A place on the carpets in front"),
            _Kind("Table seat", "260", 60, "With dinner"),
        ),
    ),
    _Show(
        slug="lighthouse-walk",
        title="An Evening with the Lighthouse Keeper",
        poster="lighthouse",
        venue="Farol do Cabo",
        address="Estrada do Farol, Cascais",
        timezone="Europe/Lisbon",
        currency="EUR",
        in_days=9,
        starts=(18, 0),
        hours=1.5,
        description=(
            "Ninety-six steps, one lamp, and Senhor Tomé, who has kept it lit for thirty-one "
            "years. Twelve visitors, once a month, free of charge."
        ),
        kinds=(_Kind("Visitor", "0", 12),),
        guests=(
            ("Mara Lindqvist", "mara@example.net", 5),
            ("João Pires", "joao@example.net", 4),
            ("Amara Okafor", "amara@example.net", 3),
        ),
    ),
    _Show(
        slug="open-rehearsal",
        title="Open Rehearsal: Brass and Bread",
        poster="brass",
        venue="Mercado Velho",
        address="Largo do Mercado 1, Lisbon",
        timezone="Europe/Lisbon",
        currency="EUR",
        in_days=26,
        starts=(11, 0),
        hours=2,
        description=(
            "The City Brass rehearse where people shop, between the bakers and the fish. Standing "
            "costs nothing. A seat comes with coffee and a roll, and feeds the band."
        ),
        kinds=(_Kind("Standing", "0", 300), _Kind("Seat with breakfast", "7.50", 48)),
        guests=(("Rui Tavares", "rui@example.net", 2),),
    ),
    _Show(
        slug="night-train",
        title="Night Train: Twelve Hours of Film",
        poster="night-train",
        venue="Depot 9",
        address="88 Yard Street, Brooklyn, New York",
        timezone="America/New_York",
        currency="USD",
        in_days=33,
        starts=(20, 0),
        hours=12,
        description=(
            "Seven films about people who cannot sleep, shown in a carriage shed from dusk to "
            "breakfast. The programme is secret; the pancakes at 6 are not.\n\nIn and out all "
            "night with your wristband."
        ),
        kinds=(
            _Kind("All night", "42", 220),
            _Kind("Sleeper berth", "95", 8, "A bunk at the back, with curtains"),
            _Kind("Late ticket", "18", 100, "From 2 in the morning", opens_in_days=20),
        ),
    ),
    _Show(
        slug="paper-theatre",
        title="The Paper Theatre: A Sea in One Sheet",
        poster="paper",
        venue="Kawa Hall",
        address="2-14 Sumida, Tokyo",
        timezone="Asia/Tokyo",
        currency="JPY",
        in_days=45,
        starts=(15, 0),
        hours=1.25,
        description=(
            "One puppeteer, one sheet of paper, and a storm. For everyone over four, and for "
            "those who are not and can sit still."
        ),
        kinds=(_Kind("Adult", "3500", 80), _Kind("Child", "1500", 40)),
    ),
    _Show(
        slug="pier-session",
        title="Pier Session: Two Harps and a Foghorn",
        poster="pier",
        venue="Pier Nine",
        address="North Wall Quay, Dublin",
        timezone="Europe/Dublin",
        currency="EUR",
        in_days=16,
        starts=(20, 30),
        hours=1.5,
        description=(
            "Two harps, one foghorn, and the tide, which comes in during the second piece. Bring a "
            "blanket; the benches are the pier’s own."
        ),
        # Not 11: an amount that SumUp's test accounts and the sandbox refuse by any card.
        kinds=(_Kind("Bench", "18", 90), _Kind("Standing", "12", 60)),
        organised=True,
        sells_by="sumup",
    ),
)


_TOURNAMENT = "harbour-open"
# The house's tournament: a free category, one that is nearly full, and one in tenge. Name, fee, currency,
# places, ages, and who is entered already.
_CATEGORIES = (
    ("Kata, 8 to 12", "0", None, 24, (8, 12), ("Lena Sato", "Max Buyer", "Nia Buyer")),
    ("Kumite, adults", "25", None, 4, (18, None), ("Bea Buyer", "Ivo Marsh", "Sanne Bakker")),
    ("Kumite, under 18", "9000", "KZT", 32, (13, 17), ()),
)


_PROFILE = {
    "name": "Pier Nine Sessions",
    "description": "Small concerts on a working pier, every other Thursday from May to October.",
    "website": "https://pier-nine.example.org",
    "phone": "+353 1 555 0123",
    "contact_email": "hello@pier-nine.example.org",
}


def seed() -> None:
    """Make the demo's accounts, events, agents and pages, as far as they are missing. Commits."""
    _refuse_production()
    for name, role, full_name in _PEOPLE:
        if accounts.find(f"{name}@example.org") is None:
            accounts.create(f"{name}@example.org", PASSWORD, role, full_name, confirmed=True)
    organiser = accounts.find("organiser@example.org")
    if organiser is not None and organisers.of(organiser) is None:
        organisers.edit(organiser, _PROFILE)
    if organiser is not None:
        _connect(organiser)
    for show in _SHOWS:
        if _find(show.slug) is None:
            _stage(show)
        if show.guests:
            _invite(show)
    site_texts.ensure()
    if tournament() is None:
        _stage_tournament()
    agents.seed()
    db.session.commit()


def _connect(organiser: User) -> None:
    """Connect the organiser's account at each provider that a sandbox stands for, as they would by its page.

    A sandbox that is silent, or an organiser who was suspended, connects nothing: the next start tries again.
    Commits.
    """
    for provider, (address, merchant) in _sandboxes().items():
        known = linked_accounts.of(organiser.id, provider)
        if known is not None and known.state is not ConnectionState.BROKEN:
            continue
        try:
            url = linked_accounts.authorize_url(organiser, provider)[0]
            # This machine itself is meant, whatever proxy leads out of it.
            asked = httpx.post(url, data={"merchant": merchant, "do": "allow"}, timeout=5, trust_env=False)
            code = parse_qs(urlsplit(asked.headers.get("Location", "")).query)["code"][0]
            linked_accounts.connect(organiser.id, provider, code, linked_accounts.redirect_uri(provider))
        except (httpx.HTTPError, KeyError, DomainError) as error:
            log.warning("demo_not_connected", provider=provider, address=address, error=type(error).__name__)


def _sandboxes() -> dict[str, tuple[str, str]]:
    """The connecting providers that a sandbox on this machine stands for: its address, a merchant of its."""
    settings = config.get()
    local = urlsplit(settings.sumup_api_base).hostname in ("127.0.0.1", "localhost")
    if not local or not settings.sumup_connects:
        return {}
    return {"sumup": (settings.sumup_api_base, "MPIERNIN")}


def event(slug: str, *, capacity: int, price_minor: int, currency: str, provider: str | None = None) -> Event:
    """A published event in 30 days with one ticket type like this; made, or changed to it. Commits."""
    _refuse_production()
    starts_at = (clock.now() + timedelta(days=30)).replace(minute=0, second=0, microsecond=0)
    values: dict[str, Any] = {
        "currency": currency.strip().upper(),
        "starts_at": starts_at,
        "ends_at": starts_at + timedelta(hours=3),
        "state": EventState.PUBLISHED,
        "providers": [provider] if provider else None,
    }
    kind = {"price_minor": price_minor, "capacity": capacity}
    found = _find(slug)
    if found is None:
        values |= {"title": slug.replace("-", " ").capitalize(), "slug": slug, "venue": "Demo Hall"}
        return events.create_event(**values, kinds=[{"name": "Admission", **kind}])
    if found.starts_at > clock.now():
        # Whoever holds a ticket for it would have to be told of another date.
        del values["starts_at"], values["ends_at"]
    return events.change_both(found, values, found.ticket_types[0], kind, moves=True)


def _refuse_production() -> None:
    if config.get().production:
        raise DomainError("development_only", "Demo data is for development only: set KASSA_ENV=development.")


def tournament() -> Event | None:
    """The demo's tournament, once it is made."""
    return _find(_TOURNAMENT)


def _find(slug: str) -> Event | None:
    return db.session.scalar(select(Event).filter_by(slug=slug))


def _stage(show: _Show) -> None:
    """One of the catalogue's events, with its poster. Commits."""
    starts_at = _moment(show)
    same = ("title", "slug", "description", "venue", "address", "timezone", "currency")
    values = {name: getattr(show, name) for name in same} | _seller(show)
    values |= {"starts_at": starts_at, "ends_at": starts_at + timedelta(hours=show.hours)}
    # In one piece, so that a start that dies half-way leaves nothing that the next one takes for done.
    events.create_event(
        **values,
        state=EventState.PUBLISHED,
        kinds=[_kind(show, kind) for kind in show.kinds],
        picture=posters.draw(show.poster),
    )


def _stage_tournament() -> None:
    """A tournament of the house's, in which some athletes are entered. Commits."""
    zone = ZoneInfo("Europe/Lisbon")
    day = (clock.now().astimezone(zone) + timedelta(days=40)).replace(minute=0, second=0, microsecond=0)
    starts_at = day.replace(hour=9)
    made = tournaments.create(
        {"rules": "WKF rules. Weigh-in from 8:00. Mitts and shin guards are your own.", "public_list": True},
        {
            "title": "Harbour Open: Karate for Everyone",
            "slug": _TOURNAMENT,
            "description": "One hall, four mats, and a prize that somebody’s grandmother has baked.",
            "venue": "Pavilhão do Porto",
            "address": "Rua da Alfândega 12, Porto",
            "timezone": "Europe/Lisbon",
            "starts_at": starts_at,
            "ends_at": starts_at + timedelta(hours=9),
            "currency": "EUR",
            "picture": posters.draw("mats"),
        },
    )
    for name, _, currency, places, (youngest, oldest), _ in _CATEGORIES:
        limits = {"min_age": youngest, "max_age": oldest}
        # Who is entered already came while it was free: the fee is set afterwards.
        values = {"name": name, "price_minor": 0, "currency": currency, "capacity": places}
        tournaments.add_category(made, limits, values)
    events.update_event(made, state=EventState.PUBLISHED)
    for kind, (_, price, currency, _, (youngest, _), names) in zip(
        list(made.ticket_types), _CATEGORIES, strict=True
    ):
        _enter(kind, names, starts_at.year - youngest - 2)
        tournaments.change_category(kind, {}, {"price_minor": money.parse(price, currency or "EUR")})


def _enter(kind: TicketType, names: Sequence[str], born: int) -> None:
    """Athletes of the demo's buyer in a category. Commits for each."""
    buyer = accounts.find("buyer@example.org")
    if buyer is None:
        return
    for name in names:
        values = {"name": name, "birth_date": date(born, 3, 1), "club": "Porto Dojo"}
        entries.enter(kind, athletes.add(buyer, values), buyer, consent=athletes.consent_hash())


def _invite(show: _Show) -> None:
    """The guests of one of the events, as far as they are missing. Commits for each."""
    event = _find(show.slug)
    if event is None or event.ends_at <= clock.now():
        return
    there = set(db.session.scalars(select(Order.email).filter_by(event_id=event.id)))
    for name, address, count in show.guests:
        if address in there:
            continue
        try:
            placing.place(event, {event.ticket_types[0].id: count}, name=name, email=address)
        except DomainError as error:
            # Somebody who plays with the demo has taken the places, or has cancelled it.
            log.info("demo_guest_not_invited", event=show.slug, why=error.code)


def _kind(show: _Show, kind: _Kind) -> dict[str, Any]:
    """The columns of one of its ticket types."""
    opens_in = kind.opens_in_days
    return {
        "name": kind.name,
        "description": kind.description,
        "price_minor": money.parse(kind.price, show.currency),
        "capacity": kind.capacity,
        "sales_open_at": _midnight(show, opens_in) if opens_in is not None else None,
    }


def _seller(show: _Show) -> dict[str, Any]:
    """Whose event it is, and how it is paid.

    A way to pay that is not set up here leaves all the others; and where there is an account of the house
    only, the event is the house's, so that it can be bought at once.
    """
    organiser = accounts.find("organiser@example.org") if show.organised else None
    owner = organiser.id if organiser is not None else None
    if show.sells_by not in registry.names() or not registry.get(show.sells_by).ready:
        return {"organiser_id": owner if house_account.serves_organiser(owner) else None}
    if payees.receiver(show.sells_by, owner) is None:
        owner = None
    return {"organiser_id": owner, "providers": [show.sells_by]}


def _moment(show: _Show) -> datetime:
    hour, minute = show.starts
    return _midnight(show, show.in_days) + timedelta(hours=hour, minutes=minute)


def _midnight(show: _Show, in_days: int) -> datetime:
    there = clock.now().astimezone(ZoneInfo(show.timezone)) + timedelta(days=in_days)
    return there.replace(hour=0, minute=0, second=0, microsecond=0)
