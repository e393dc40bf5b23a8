"""What is on: the published events that are not over, each with its state and its price."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import joinedload, selectinload

from domain import clock
from domain.catalogue import payees
from domain.catalogue.availability import MARKS, MARKS_OF_TOURNAMENTS, Sale, states_of
from extensions import db
from models import Event, EventKind, EventState

# More upcoming events than this need pages; until then the list is simply bounded.
_LIST_LIMIT = 200


@dataclass(frozen=True)
class Listing:
    """An upcoming event on the front page. `from_minor` is None while it has no ticket types.

    It is in `currency`: where prices are in several, the least of those in the first one.
    """

    event: Event
    state: Sale
    words: str
    from_minor: int | None
    currency: str
    one_price: bool


def upcoming(now: datetime | None = None, *, kind: EventKind | None = None) -> list[Listing]:
    """Published events that are not over, the next one first; of one kind where asked."""
    now = now or clock.now()
    query = (
        select(Event)
        .where(Event.state == EventState.PUBLISHED, Event.ends_at > now)
        .order_by(Event.starts_at, Event.id)
        .limit(_LIST_LIMIT)
        .options(joinedload(Event.picture), joinedload(Event.organiser), selectinload(Event.ticket_types))
    )
    if kind is not None:
        query = query.where(Event.kind == kind)
    found = db.session.scalars(query).all()
    accounts = payees.accounts_of({e.organiser_id for e in found if e.organiser_id is not None})
    return [_listing(event, now, accounts) for event in found]


def _listing(event: Event, now: datetime, accounts: payees.Accounts) -> Listing:
    state, states = states_of(event, now, accounts)
    buyable = [t for t in event.ticket_types if states[t.id] is Sale.OPEN]
    kinds = buyable or event.ticket_types
    currency = kinds[0].currency or event.currency if kinds else event.currency
    prices = {t.price_minor for t in kinds if (t.currency or event.currency) == currency}
    one_price = len({(t.price_minor, t.currency) for t in kinds}) == 1
    words = (MARKS_OF_TOURNAMENTS if event.is_tournament else MARKS).get(state, "")
    if state is Sale.OPEN and sum(t.available for t in buyable) <= 10:
        words = "Last places" if event.is_tournament else "Last tickets"
    return Listing(event, state, words, min(prices) if prices else None, currency, one_price)
