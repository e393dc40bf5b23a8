"""What lost money can have bought: each thing that is sold here, as a person chooses it again.

A choice is a word of a form: `tickets:12`, `entry:13`, `listing:14` or `top_up`. Each kind says in words why
it cannot be bought with this money; what cannot is sent back instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, select

import config
from domain import addresses, clock, money
from domain.catalogue import house_account
from domain.errors import DomainError
from domain.orders import entries, placing
from domain.payments.fulfilment import SoldOut
from domain.people import accounts, athletes
from extensions import db
from models import Athlete, Event, EventState, LineKind, Order, OrderLine, TicketType, User

_CHOICES = 500


@dataclass(frozen=True)
class Money:
    """What came, and into which account."""

    amount_minor: int
    currency: str
    provider: str
    account: str

    def __str__(self) -> str:
        return money.show(self.amount_minor, self.currency)


@dataclass(frozen=True)
class Choice:
    """One thing that could have been bought. `what` is its kind; `event` what it is of, if of any."""

    what: str
    event: Event | None = None

    @property
    def word(self) -> str:
        return f"{self.what}:{self.event.id}" if self.event is not None else self.what


@dataclass(frozen=True)
class Buyer:
    """For whom the order is made. `quantities` are of tickets, `athlete` is the public id of who enters."""

    name: str
    email: str
    quantities: Mapping[int, int] = field(default_factory=dict)
    athlete: str = ""
    category: int = 0


def choices(came: Money) -> Sequence[Choice]:
    """All that this money can have bought, the next events first."""
    kinds = select(TicketType.event_id).where(TicketType.currency.is_(None))
    priced = select(TicketType.event_id).where(TicketType.currency == came.currency)
    in_currency = Event.id.in_(priced) | (Event.id.in_(kinds) & (Event.currency == came.currency))
    found = [
        Choice("entry" if event.is_tournament else "tickets", event)
        for event in _events(Event.state == EventState.PUBLISHED, in_currency)
    ]
    if came.currency == config.get().wallet_currency and house_account.is_own(came.provider, came.account):
        found.append(Choice("top_up"))
    drafts = _events(Event.state == EventState.DRAFT, Event.organiser_id.is_not(None))
    return [*found, *(Choice("listing", event) for event in drafts)]


def _events(*which: ColumnElement[bool]) -> Sequence[Event]:
    return db.session.scalars(
        select(Event).where(*which).order_by(Event.starts_at.desc()).limit(_CHOICES)
    ).all()


def chosen(came: Money, word: str) -> Choice | None:
    """The choice of this word, where it is one."""
    return next((choice for choice in choices(came) if choice.word == word), None)


def athletes_of(email: str) -> list[Athlete]:
    """The athletes of a member, whom an entry can have been for."""
    member = accounts.by_confirmed_email(email) if email else None
    return athletes.of(member) if member is not None else []


def make(choice: Choice, came: Money, buyer: Buyer, code: str | None) -> Order:
    """The lost order anew, for just the sum that came. No commit; DomainError in words."""
    return _MAKERS[choice.what](choice.event, came, buyer, code)


def make_for_return(came: Money, buyer: Buyer, code: str | None) -> Order:
    """An order for money that is only to go back: nobody knows what it bought. No commit."""
    line = OrderLine(
        kind=LineKind.TOP_UP,
        description="Bought in the time that was lost",
        quantity=1,
        unit_minor=came.amount_minor,
    )
    return placing.lost_order(
        [line],
        came.currency,
        name=buyer.name or "Unknown",
        email=buyer.email,
        code=code,
    )


def _tickets(event: Event | None, came: Money, buyer: Buyer, code: str | None) -> Order:
    kinds = event.ticket_types if event is not None else []
    wanted = [(kind, buyer.quantities.get(kind.id, 0)) for kind in kinds]
    picked = [(kind, quantity) for kind, quantity in wanted if quantity > 0]
    if not picked or event is None:
        raise DomainError("nothing_chosen", "Choose the tickets that this money is for.")
    for kind, quantity in picked:
        _check_left(kind, quantity)
    _check_sum(picked, came)
    lines = [
        OrderLine(
            kind=LineKind.TICKET,
            ticket_type=kind,
            description=f"{event.title}: {kind.name}"[:250],
            quantity=quantity,
            unit_minor=kind.price_minor,
        )
        for kind, quantity in picked
    ]
    return placing.lost_order(
        lines, came.currency, name=buyer.name, email=buyer.email, code=code, event=event
    )


def _entry(event: Event | None, came: Money, buyer: Buyer, code: str | None) -> Order:
    """An athlete's place. Who is not a member's athlete here any more was lost, too, and is added first."""
    kinds = event.ticket_types if event is not None else []
    kind = next((kind for kind in kinds if kind.id == buyer.category), None)
    member = _member(buyer.email)
    own = next((one for one in athletes.of(member) if one.public_id == buyer.athlete), None)
    if kind is None or own is None or event is None:
        raise DomainError(
            "nothing_chosen",
            "Choose a category and one of the member's athletes. An athlete who was added after the backup "
            "is lost, too: ask the member to add them again first.",
        )
    db.session.refresh(own, with_for_update={"key_share": True})
    if db.session.scalar(placing.entered(kind, [own.id]).limit(1)) is not None:
        raise DomainError("already_entered", f"{own.name} is entered in {kind.name} already.")
    entries.check_consent(own, event)
    _check_left(kind, 1)
    _check_sum([(kind, 1)], came)
    line = OrderLine(
        kind=LineKind.TOURNAMENT_ENTRY,
        ticket_type=kind,
        description=f"{event.title}: {kind.name}"[:250],
        holder=own.name,
        quantity=1,
        unit_minor=kind.price_minor,
    )
    order = placing.lost_order(
        [line], came.currency, name=buyer.name, email=member.email, code=code, event=event, user=member
    )
    db.session.add(placing.participant(kind, own, order, clock.now()))
    return order


def _top_up(event: Event | None, came: Money, buyer: Buyer, code: str | None) -> Order:
    member, site = _member(buyer.email), config.get().site_name
    line = OrderLine(
        kind=LineKind.TOP_UP, description=f"{site} wallet top-up", quantity=1, unit_minor=came.amount_minor
    )
    return placing.lost_order(
        [line], came.currency, name=buyer.name, email=member.email, code=code, user=member
    )


def _listing(event: Event | None, came: Money, buyer: Buyer, code: str | None) -> Order:
    """The fee of an event that is a draft still, or again: the backup does not know that it was paid."""
    owner = db.session.get(User, event.organiser_id) if event is not None and event.organiser_id else None
    if event is None or owner is None:
        raise DomainError("nothing_chosen", "Choose the event whose fee this is.")
    line = OrderLine(
        kind=LineKind.LISTING_FEE,
        description=f"Listing fee: {event.title}"[:250],
        quantity=1,
        unit_minor=came.amount_minor,
    )
    return placing.lost_order(
        [line], came.currency, name=buyer.name, email=owner.email, code=code, event=event, user=owner
    )


_MAKERS: Mapping[str, Callable[[Event | None, Money, Buyer, str | None], Order]] = {
    "tickets": _tickets,
    "entry": _entry,
    "top_up": _top_up,
    "listing": _listing,
}


def _member(email: str) -> User:
    member = accounts.by_confirmed_email(email)
    if member is None:
        raise DomainError(
            "no_member",
            f"{addresses.shown(email)} has no confirmed account here. An account that was made after the "
            "backup is lost, too: ask them to register again first, or send the money back.",
        )
    return member


def _check_left(kind: TicketType, quantity: int) -> None:
    if quantity > kind.available:
        raise SoldOut("too_few_left", f"{kind.name}: only {kind.available} are left.")


def _check_sum(picked: Sequence[tuple[TicketType, int]], came: Money) -> None:
    total = sum(kind.price_minor * quantity for kind, quantity in picked)
    if total != came.amount_minor or any(kind.priced_in != came.currency for kind, _ in picked):
        raise DomainError(
            "another_sum",
            f"What you chose costs {money.show(total, picked[0][0].priced_in)}, and {came} came. Choose what "
            "costs just that sum, or send the money back.",
        )
