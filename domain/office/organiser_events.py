"""An organiser's events: the overview, what is to be done next, and rules beyond the catalogue's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select

import config
from domain import clock
from domain.catalogue import availability, events, house_account, payees, takings, tournaments
from domain.connections import linked_accounts
from domain.errors import DomainError
from domain.people import organisers
from domain.providers import registry
from extensions import db
from models import Connection, Event, EventState, Organiser, Role, TicketType, User


@dataclass(frozen=True)
class Entry:
    """An event in the overview, with its sales so far in tickets and money."""

    event: Event
    state: availability.Sale
    sold: int
    capacity: int
    money: list[takings.Money]


@dataclass(frozen=True)
class Desk:
    """An organiser's first page. `profile` is None where nobody has filled one in."""

    profile: Organiser | None
    entries: list[Entry]
    links: list[Link]

    @property
    def ahead(self) -> list[Entry]:
        """What is not over or cancelled, the next one first."""
        return [
            e for e in self.entries if e.state not in (availability.Sale.PAST, availability.Sale.CANCELLED)
        ][::-1]

    @property
    def behind(self) -> list[Entry]:
        """What is over or cancelled, the latest first."""
        return [e for e in self.entries if e.state in (availability.Sale.PAST, availability.Sale.CANCELLED)]


@dataclass(frozen=True)
class Step:
    """Something that is to be done before an event sells, and whether it is done. `page` is its endpoint."""

    words: str
    done: bool
    page: str


@dataclass(frozen=True)
class Link:
    """A provider where organisers connect accounts of their own; `connection` is None before they have."""

    provider: str
    label: str
    connection: Connection | None


def desk(user: User) -> Desk:
    """The member's profile and events, in a number of queries that does not grow with either."""
    events = organisers.events_of(user)
    counts = {
        event_id: (int(sold), int(capacity))
        for event_id, sold, capacity in db.session.execute(
            select(TicketType.event_id, func.sum(TicketType.sold), func.sum(TicketType.capacity))
            .where(TicketType.event_id.in_([event.id for event in events]))
            .group_by(TicketType.event_id)
        )
    }
    money, now = takings.money_of(events), clock.now()
    entries = [
        Entry(
            event,
            availability.states_of(event, now)[0],
            *counts.get(event.id, (0, 0)),
            money.get(event.id, []),
        )
        for event in events
    ]
    return Desk(organisers.of(user), entries, links(user))


def steps(event: Event) -> list[Step]:
    """What is to be done before a draft sells, in order; empty for an event that was published."""
    if event.state is not EventState.DRAFT:
        return []
    return [
        Step(
            "Describe it: when, where, what", bool(event.description and event.venue), "organiser.edit_event"
        ),
        Step(
            "Add its categories" if event.is_tournament else "Add the tickets that are sold",
            bool(event.ticket_types),
            "organiser.new_type",
        ),
    ]


def provider_choices(organiser_id: int | None) -> list[tuple[str, str]]:
    """The outside providers that an organiser may choose to sell by, as (name, what the choice says).

    Their own accounts come first. One whose account is not connected may be chosen, but sells only once it
    is.
    """
    if organiser_id is None:
        owns = [registry.get(name) for name in registry.names()]
        return [(own.name, own.label) for own in owns if own.ready and not own.immediate]
    found: list[tuple[int, str, str]] = []
    connected, allowed = payees.accounts_of([organiser_id]), house_account.serves_organiser(organiser_id)
    for own in (registry.get(name) for name in registry.names()):
        account = payees.receiver(own.name, organiser_id, connected, house=allowed)
        if own.immediate or not (own.connects or (own.ready and account is not None)):
            continue
        if account is None:
            found.append((1, own.name, f"{own.label} (not connected yet)"))
        elif account != own.account:
            found.append((0, own.name, f"{own.label}: your own account, {account}"))
        else:
            found.append((2, own.name, f"{own.label}: the account of {config.get().site_name}"))
    return [(name, words) for _, name, words in sorted(found, key=lambda one: one[0])]


def preselected(organiser_id: int) -> list[str]:
    """The ways to pay that a new event begins with: the accounts of its organiser's own that work."""
    connected = payees.accounts_of([organiser_id])
    return [name for name in registry.names() if connected.get((organiser_id, name)) is not None]


def describe_choices(organiser_id: int | None) -> str:
    """What the choice of the ways to pay means, and whose account the money goes to."""
    words = "None ticked: all that are set up."
    if organiser_id is None:
        return words
    site, support = config.get().site_name, config.get().support_email
    if house_account.serves_organiser(organiser_id):
        return f"{words} What is paid into the account of {site} is owed to you, and shown as that."
    return (
        f"{words} The money goes to accounts of your own only: {site} has not opened its account to your "
        f"sales. Write to {support} if you need that."
    )


def links(user: User) -> list[Link]:
    """The providers where the member may connect an account of their own, and whether they have."""
    owns = (registry.get(name) for name in registry.names())
    return [Link(own.name, own.label, linked_accounts.of(user.id, own.name)) for own in owns if own.connects]


def create(user: User, values: Mapping[str, Any]) -> Event:
    """A draft of the member's own; an admin's is the house's. Commits; DomainError in words."""
    owner = None if user.role is Role.ADMIN else user.id
    return events.create_event(**values, organiser_id=owner, state=EventState.DRAFT)


def create_tournament(user: User, own: Mapping[str, Any], values: Mapping[str, Any]) -> Event:
    """The same for a tournament: `own` is what `tournaments.create` takes beside an event's values."""
    owner = None if user.role is Role.ADMIN else user.id
    return tournaments.create(own, {**values, "organiser_id": owner, "state": EventState.DRAFT})


def change(event: Event, values: Mapping[str, Any], *, moves: bool = False) -> Event:
    """Change an event's columns by the catalogue's rules. Commits. What was cancelled stays as it is.

    `moves` agrees that whoever holds a ticket is told of another date or place.
    """
    _check_on(event)
    return events.update_event(event, moves=moves, **values)


def change_tournament(
    event: Event, own: Mapping[str, Any], values: Mapping[str, Any], *, moves: bool = False
) -> Event:
    """The same for a tournament, with what `tournaments.change` takes beside."""
    _check_on(event)
    return tournaments.change(event, own, values, moves=moves)


def _check_on(event: Event) -> None:
    if event.state is EventState.CANCELLED:
        raise DomainError("cancelled", "This event was cancelled. Duplicate it to put it on again.")
