"""Events and ticket types: what is on, how it can be paid for, and the rules of changing it.

Writing takes plain values, keeps the rules (capacity never below what is sold or held, currency fixed after
the first order, nothing deleted that has orders) and commits. Stock itself moves only in `orders/placing.py`;
whether an event sells at this moment is `domain/catalogue/availability.py`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import bindparam, delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import joinedload

from domain import audit, clock, money, zones
from domain.catalogue import event_moves, house_account, payees, pictures
from domain.catalogue.availability import Sale as Sale
from domain.catalogue.availability import Selling as Selling
from domain.catalogue.availability import check_minutes
from domain.catalogue.availability import selling as selling
from domain.errors import DomainError, NotFound
from domain.providers import contract, registry
from extensions import db
from models import (
    ADMISSIONS,
    AuditArea,
    Deed,
    DoorPass,
    Event,
    EventKind,
    EventState,
    Order,
    OrderLine,
    Picture,
    TicketType,
    User,
    Wallet,
)

_NO_EVENT = "There is no event at this address. It may have been renamed."
_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_WINDOW = frozenset(("sales_open_at", "sales_close_at"))
_EVENT_FIELDS = _WINDOW | frozenset(
    (
        "slug",
        "title",
        "description",
        "venue",
        "address",
        "starts_at",
        "ends_at",
        "timezone",
        "kind",
        "tournament",
    )
    + ("currency", "state", "providers", "organiser_id", "poll_minutes")
)
_TYPE_FIELDS = _WINDOW | frozenset(
    ("name", "description", "price_minor", "currency", "capacity", "per_order_limit", "position", "category")
)
# The lengths of the columns, so that too long a text is refused in words.
_LENGTHS = {"title": 200, "venue": 200, "address": 300, "description": 20_000}
_TYPE_LENGTHS = {"name": 100, "description": 300}
MAX_CAPACITY = 1_000_000


@dataclass(frozen=True)
class Way:
    """A way to pay. `balance_minor` is what the wallet holds, and None for every other way."""

    name: str
    label: str
    balance_minor: int | None = None


# --- Reading --------------------------------------------------------------------------------------------


# One query for all of it: the few repeated columns cost less than another round trip. Made once, because
# making it costs more than PostgreSQL's part.
_WHOLE_EVENT = (
    select(Event)
    .where(Event.slug == bindparam("slug"))
    .options(joinedload(Event.picture), joinedload(Event.organiser), joinedload(Event.ticket_types))
)


def event(slug: str, *, drafts: bool = False) -> Event:
    """The event at this address, with picture and ticket types. NotFound; so is a draft unless `drafts`."""
    found = db.session.scalars(_WHOLE_EVENT, {"slug": slug}).unique().one_or_none()
    if found is None:
        raise NotFound("no_event", _NO_EVENT)
    return found if drafts else published(found)


def published(event: Event) -> Event:
    """The event, if everybody may see it. NotFound for a draft, as for one that there is not."""
    if event.state is EventState.DRAFT:
        raise NotFound("no_event", _NO_EVENT)
    return event


def ways_to_pay(event: Event, user: User | None = None, *, kind: TicketType | None = None) -> tuple[Way, ...]:
    """The ways to pay for `event`, in its order; then the wallet, for a member with money in one.

    `kind` is the ticket type that is paid for, where there is one alone.
    """
    kinds = event.ticket_types if kind is None else [kind]
    currency = event.currency if kind is None else kind.priced_in
    found = [Way(p.name, p.label) for p in payees.offered(event, currency=currency)]
    # An event's choice is between outside providers: what is in a wallet was taken by one of them before.
    # It is in the house's account, like all that the house takes.
    for provider in (registry.get(name) for name in registry.names()):
        if provider.immediate and house_account.serves(event):
            found.extend(_wallet_way(kinds, currency, user, provider))
    return tuple(found)


def _wallet_way(
    kinds: Iterable[TicketType], currency: str, user: User | None, provider: contract.Provider
) -> list[Way]:
    """The wallet as a way to pay, if it could pay for the cheapest ticket there is."""
    if user is None:
        return []
    wallet = db.session.scalar(select(Wallet).filter_by(user_id=user.id, currency=currency))
    prices = [t.price_minor for t in kinds if t.price_minor > 0]
    if wallet is None or not prices or wallet.available_minor < min(prices):
        return []
    return [Way(provider.name, provider.label, wallet.available_minor)]


# --- Changing events ------------------------------------------------------------------------------------


def create_event(
    *,
    title: str,
    starts_at: datetime,
    ends_at: datetime,
    currency: str,
    kinds: Iterable[Mapping[str, Any]] = (),
    picture: bytes | None = None,
    **values: Any,
) -> Event:
    """A new event, a draft unless `state` says otherwise; its slug is made from the title unless given.

    `values` may hold the other columns that `update_event` takes, `kinds` those of its ticket types, and
    `picture` an uploaded one. Commits all of it; DomainError in words, and nothing is there.
    """
    values |= {"title": title, "starts_at": starts_at, "ends_at": ends_at, "currency": currency}
    now = clock.now()
    event = Event(created_at=now, updated_at=now, description="", venue="", address="", timezone="UTC")
    event.state, event.ticket_types, event.kind = EventState.DRAFT, [], EventKind.EVENT
    if not values.get("slug"):
        values["slug"] = free_slug(title)
    _apply(event, values, _EVENT_FIELDS)
    _check_event(event)
    if event.state is EventState.CANCELLED:
        raise _not_by_hand()
    for kind in kinds:
        event.ticket_types.append(_type(event, dict(kind)))
    check_accounts(event)
    if picture is not None:
        event.picture = pictures.store(picture)
    db.session.add(event)
    _commit_event()
    return event


def lock(event: Event) -> None:
    """Lock the event's row, and only that, and read it afresh, whatever it was loaded together with."""
    db.session.refresh(event, with_for_update={"of": Event})


def update_event(event: Event, *, moves: bool = False, **changes: Any) -> Event:
    """Change some columns of `event`, by the rules. Commits; DomainError in words, and nothing is changed.

    `changes` may hold `picture`: an uploaded one, or None for none. Another date or place of an event that
    people hold tickets for needs `moves`, and then they are told: see `domain/catalogue/event_moves.py`.
    """
    return change_both(event, changes, moves=moves)


def change_both(
    event: Event,
    changes: dict[str, Any],
    kind: TicketType | None = None,
    of_kind: dict[str, Any] | None = None,
    *,
    moves: bool = False,
) -> Event:
    """Change an event and one of its ticket types together, or neither. As `update_event`, and commits."""
    pictured, data = "picture" in changes, changes.pop("picture", None)
    # Making it small takes a moment, in which nobody who buys should wait for the event's row.
    picture = pictures.store(data) if data is not None else None
    lock(event)
    if kind is not None:
        db.session.refresh(kind, with_for_update=True)
    before, ways = (event.currency, event.state), (event.currency, event.providers)
    was, zone = event_moves.told_of(event), event.timezone
    dropped = event.picture_id
    with db.session.no_autoflush:
        try:
            _apply(event, changes, _EVENT_FIELDS)
            if kind is not None:
                _apply(kind, of_kind or {}, _TYPE_FIELDS)
            _check_event(event)
            _move_windows(event, zone)
            if kind is not None:
                _check_type(event, kind)
            _check_promises(event, *before)
            goes_live = event.state is EventState.PUBLISHED and before[1] is not EventState.PUBLISHED
            if goes_live or ways != (event.currency, event.providers):
                check_accounts(event)
            event_moves.note(event, was, agreed=moves)
            event_moves.keep_doors(event, was)
            if pictured:
                event.picture = picture
        except DomainError:
            db.session.rollback()
            raise
    event.updated_at = clock.now()
    if pictured:
        _replaced(event, dropped)
    _commit_event()
    event_moves.soon(event, was)
    return event


def _move_windows(event: Event, zone: str) -> None:
    """Let its ticket types be sold from and until the same times of the clock as in the `zone` before."""
    if event.timezone == zone:
        return
    for kind in event.ticket_types:
        for name in _WINDOW:
            moment = getattr(kind, name)
            setattr(kind, name, moment and zones.moved(moment, zone, event.timezone))


def duplicate_event(event: Event, *, days: int = 7) -> Event:
    """A draft like `event`, `days` later by its own clock, with its ticket types unsold. Commits."""
    zone = ZoneInfo(event.timezone)

    def later(moment: datetime | None) -> datetime | None:
        """The same time of day, whatever the clocks do in between."""
        return moment and (moment.astimezone(zone) + timedelta(days=days)).astimezone(UTC)

    now = clock.now()
    columns = (
        "kind",
        "title",
        "description",
        "venue",
        "address",
        "timezone",
        "currency",
        "providers",
        "picture_id",
    )
    copy = Event(created_at=now, updated_at=now, state=EventState.DRAFT, slug=free_slug(event.title))
    for name in (*columns, "organiser_id", "poll_minutes"):
        setattr(copy, name, getattr(event, name))
    for name in ("starts_at", "ends_at", *_WINDOW):
        setattr(copy, name, later(getattr(event, name)))
    for kind in event.ticket_types:
        values = {name: getattr(kind, name) for name in _TYPE_FIELDS - {"category"}}
        values |= {name: later(values[name]) for name in _WINDOW}
        if kind.category is not None:
            values["category"] = kind.category.copied()
        copy.ticket_types.append(TicketType(held=0, sold=0, **values))
    if event.tournament is not None:
        copy.tournament = event.tournament.copied()
    _check_event(copy)
    db.session.add(copy)
    _commit_event()
    return copy


def cancel_event(event: Event) -> Event:
    """Stop selling for good. Commits. For `orders/event_cancellation.py` alone, which tells the buyers."""
    lock(event)
    event.state, event.updated_at = EventState.CANCELLED, clock.now()
    event.news_told_at = None
    db.session.commit()
    return event


def delete_event(event: Event) -> None:
    """Remove an event that nobody has ordered from, with its ticket types and door passes. Commits."""
    lock(event)
    if _has_orders(event, of_any_kind=True):
        db.session.rollback()
        raise DomainError(
            "has_orders", f"“{event.title}” has orders, so it stays on record. Cancel it instead."
        )
    picture_id = event.picture_id
    ended = delete(DoorPass).filter_by(event_id=event.id).returning(DoorPass.id)
    for pass_id in db.session.scalars(ended).all():
        audit.note(AuditArea.KEY, Deed.REMOVED, "door pass", pass_id, label=event.title)
    for kind in list(event.ticket_types):
        db.session.delete(kind)
    db.session.delete(event)
    db.session.flush()
    _drop_picture(picture_id)
    db.session.commit()


def set_picture(event: Event, data: bytes | None) -> Picture | None:
    """Give `event` an uploaded picture (see `pictures.store`), or none. Commits."""
    return update_event(event, picture=data).picture


def _replaced(event: Event, before_id: int | None) -> None:
    """Forget the picture that an event had, unless it has it still."""
    db.session.flush()
    if before_id is not None and before_id != event.picture_id:
        _drop_picture(before_id)


def free_slug(title: str) -> str:
    """An address for an event of this title that no other event has."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    base = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:80].strip("-") or "event"
    taken = set(db.session.scalars(select(Event.slug).where(Event.slug.startswith(base, autoescape=True))))
    number = 2
    slug = base
    while slug in taken:
        slug, number = f"{base}-{number}", number + 1
    return slug


# --- Changing ticket types ------------------------------------------------------------------------------


def add_ticket_type(event: Event, *, name: str, price_minor: int, capacity: int, **values: Any) -> TicketType:
    """A new kind of ticket of `event`; `price_minor` in the event's currency, 0 for free. Commits."""
    kind = _type(event, values | {"name": name, "price_minor": price_minor, "capacity": capacity})
    event.ticket_types.append(kind)
    db.session.commit()
    return kind


def _type(event: Event, values: dict[str, Any]) -> TicketType:
    """A new kind of ticket of an event, by the rules; it is not yet one of them."""
    kind = TicketType(description="", held=0, sold=0, per_order_limit=10)
    kind.position = max((t.position for t in event.ticket_types), default=-1) + 1
    _apply(kind, values, _TYPE_FIELDS)
    _check_type(event, kind)
    return kind


def update_ticket_type(kind: TicketType, **changes: Any) -> TicketType:
    """Change some columns of a ticket type, by the rules. Commits; DomainError in words, nothing changed."""
    db.session.refresh(kind, with_for_update=True)
    with db.session.no_autoflush:
        try:
            _apply(kind, changes, _TYPE_FIELDS)
            _check_type(kind.event, kind)
        except DomainError:
            db.session.rollback()
            raise
    db.session.commit()
    return kind


def delete_ticket_type(kind: TicketType) -> None:
    """Remove a ticket type that nobody has ordered. Commits."""
    db.session.refresh(kind, with_for_update=True)
    if db.session.scalar(select(OrderLine.id).filter_by(ticket_type_id=kind.id).limit(1)) is not None:
        db.session.rollback()
        raise DomainError(
            "has_orders", f"“{kind.name}” has orders, so it stays on record. Close its sales instead."
        )
    db.session.delete(kind)
    db.session.commit()


# --- The rules ------------------------------------------------------------------------------------------


def _apply(row: Event | TicketType, values: dict[str, Any], allowed: frozenset[str]) -> None:
    unknown = sorted(values.keys() - allowed)
    if unknown:
        raise TypeError(f"{type(row).__name__} has no changeable {', '.join(unknown)}")
    for name, value in values.items():
        setattr(row, name, value.strip() if isinstance(value, str) else value)


def _check_event(event: Event) -> None:
    if not event.title:
        raise DomainError("title", "Give the event a title.")
    _check_lengths(event, _LENGTHS)
    if not _SLUG.fullmatch(event.slug) or len(event.slug) > 100:
        raise DomainError(
            "slug", "The address may have small letters, digits and single hyphens, up to 100: summer-gala."
        )
    zones.check(event.timezone)
    if event.ends_at <= event.starts_at:
        raise DomainError("ends_at", "The event must end after it starts.")
    check_minutes(event.poll_minutes)
    _check_window(event)
    event.currency = money.check_currency(event.currency)
    event.state = EventState(event.state)
    _check_providers(event)
    for kind in event.ticket_types:
        _check_price(event, kind)


def _check_promises(event: Event, currency: str, state: EventState) -> None:
    """What buyers already rely on: an order's currency, a page that answers, and that what is off is off."""
    if event.state is not state and EventState.CANCELLED in (event.state, state):
        raise _not_by_hand() if event.state is EventState.CANCELLED else _cancelled_for_good(event)
    changes_currency = event.currency != currency
    hides = event.state is EventState.DRAFT and state is not EventState.DRAFT
    if not (changes_currency or hides) or not _has_orders(event):
        return
    if changes_currency:
        raise DomainError(
            "currency", f"The currency stays {currency}, because there are orders in it already."
        )
    raise DomainError(
        "state", "There are orders, and their buyers need this page. Close the sales, or cancel the event."
    )


def _not_by_hand() -> DomainError:
    return DomainError(
        "state", "Cancel it on the page that cancels events: there its buyers are told, and paid back."
    )


def _cancelled_for_good(event: Event) -> DomainError:
    if event.refunding_since is not None:
        return DomainError("state", "It stays cancelled, because its buyers are being paid back.")
    return DomainError(
        "state", "It stays cancelled, because its buyers were told so. Duplicate it to put it on again."
    )


def _check_window(row: Event | TicketType) -> None:
    opens, closes = row.sales_open_at, row.sales_close_at
    if opens is not None and closes is not None and closes <= opens:
        raise DomainError("sales_close_at", "Sales must close after they open.")


def _check_lengths(row: Event | TicketType, lengths: dict[str, int]) -> None:
    for name, limit in lengths.items():
        if len(getattr(row, name)) > limit:
            raise DomainError(name, f"The {name} is too long: at most {limit} characters.")


def _check_providers(event: Event) -> None:
    """Every named way to pay exists and takes the currency; where none is named, at least one way does."""
    if event.providers is not None:
        if not event.providers:
            raise DomainError("providers", "Name at least one way to pay, or none to allow all of them.")
        for name in event.providers:
            provider = registry.get(name)
            if not provider.supports(event.currency):
                raise DomainError("currency", f"{provider.label} cannot be paid in {event.currency}.")
    elif not _selling_providers(event):
        raise DomainError("currency", f"There is no way to pay in {event.currency}.")


def check_accounts(event: Event) -> None:
    """Refuse a way to pay whose connected account takes another currency: it would fail the buyers.

    One that is not connected yet is fine: nothing is sold through it before. DomainError in words.
    """
    if event.organiser_id is None:
        return
    accounts = payees.accounts_of([event.organiser_id])
    others = {
        p.name: account
        for p in _selling_providers(event)
        if (account := payees.another_currency(event, p.name, accounts)) is not None
    }
    if not others or (event.providers is None and len(others) < len(_selling_providers(event))):
        return
    name, account = next(iter(others.items()))
    raise DomainError(
        "currency",
        f"The connected {registry.get(name).label} account, {account.name}, takes {account.currency} only, "
        f"and this event is in {event.currency}. Set its currency to {account.currency}, or choose another "
        "way to pay.",
    )


def _selling_providers(event: Event, currency: str = "") -> list[contract.Provider]:
    """The outside providers that `event` may be paid through, once they are set up.

    `currency` is the one of the price; "": the event's.
    """
    currency = currency or event.currency
    names: Sequence[str] = event.providers if event.providers is not None else tuple(registry.names())
    found = (registry.get(name) for name in names)
    return [p for p in found if not p.immediate and p.supports(currency)]


def _check_type(event: Event, kind: TicketType) -> None:
    if not kind.name:
        raise DomainError("name", "Give the ticket type a name, such as “Adult”.")
    _check_lengths(kind, _TYPE_LENGTHS)
    _check_price(event, kind)
    if not 0 <= kind.capacity <= MAX_CAPACITY:
        raise DomainError("capacity", f"The capacity must be between 0 and {MAX_CAPACITY:,}.")
    taken = kind.sold + kind.held
    if kind.capacity < taken:
        raise DomainError(
            "capacity",
            f"The capacity cannot be below {taken}: {kind.sold} are sold and {kind.held} held for buyers.",
        )
    if not 1 <= kind.per_order_limit <= 100:
        raise DomainError("per_order_limit", "The limit per order must be between 1 and 100.")
    _check_window(kind)


def price_span(event: Event, currency: str = "") -> tuple[int, int]:
    """The smallest and the largest price, in minor units, that each of the event's ways to pay takes.

    `currency` is the one of the price; "": the event's.
    """
    currency = currency or event.currency
    least = max((p.minimum_minor(currency) for p in _selling_providers(event, currency)), default=1)
    return least, money.MAX_MINOR


def price_words(event: Event) -> str:
    """The same for whoever sets a price."""
    least, most = (money.show(minor, event.currency) for minor in price_span(event))
    return f"From {least} to {most}; 0 is free."


def _check_price(event: Event, kind: TicketType) -> None:
    price, currency = kind.price_minor, kind.currency or event.currency
    if kind.currency is not None:
        kind.currency = money.check_currency(kind.currency)
        if not _selling_providers(event, currency):
            raise DomainError("kind_currency", f"There is no way to pay in {currency}.")
    if price == 0:
        return
    least, most = price_span(event, currency)
    if not 0 < price <= most:
        raise DomainError("price_minor", f"The price must be 0 or up to {money.show(most, currency)}.")
    money.to_minor(money.to_major(price, currency), currency)
    if price < least:
        raise DomainError(
            "price_minor", f"The smallest price is {money.show(least, currency)}; 0 makes it free."
        )


def _has_orders(event: Event, *, of_any_kind: bool = False) -> bool:
    """Whether anybody has ordered tickets; `of_any_kind`: or its organiser its listing."""
    query = select(Order.id).filter_by(event_id=event.id).limit(1)
    if not of_any_kind:
        query = query.where(Order.lines.any(OrderLine.kind.in_(ADMISSIONS)))
    return db.session.scalar(query) is not None


def _drop_picture(picture_id: int | None) -> None:
    """Forget a picture that no event shows any more."""
    if picture_id is None:
        return
    if db.session.scalar(select(Event.id).filter_by(picture_id=picture_id).limit(1)) is None:
        db.session.execute(delete(Picture).filter_by(id=picture_id))


def _commit_event() -> None:
    """Commit, and say so in words when another event took the address in the meantime."""
    try:
        db.session.commit()
    except IntegrityError as error:
        db.session.rollback()
        if "slug" not in str(error.orig):
            raise
        raise DomainError(
            "slug", "Another event has this address already. Choose a different one."
        ) from error
