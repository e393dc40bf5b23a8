"""Publishing an event: at once where it is free, otherwise when its listing fee is paid to the platform.

The fee is an order like any other, with a line of its own kind. Whichever door settles its payment, the event
goes live in that same transaction (`payments/fulfilment.py`). When the fee goes back, or may, the event is
off sale until a person decides here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import literal_column, select
from sqlalchemy.orm import joinedload

import config
from domain import clock, locks, money, timeline
from domain.catalogue import availability, events, payees, prices
from domain.catalogue.events import Way
from domain.catalogue.listing_fees import Fee as Fee
from domain.catalogue.listing_fees import fee as fee
from domain.errors import DomainError, NotFound
from domain.orders import managing, placing
from domain.payments import fulfilment, replacements
from domain.providers import registry
from extensions import db, queue
from models import (
    Event,
    EventState,
    Order,
    OrderLine,
    OrderState,
    Role,
    User,
    Wallet,
)

# An order that can still be paid, or paid again.
_UNPAID = (
    OrderState.PENDING,
    OrderState.PENDING_VERIFICATION,
    OrderState.FAILED,
    OrderState.EXPIRED,
    OrderState.CANCELLED,
)
DECISIONS = ("publish", "cancel")


def due(event: Event) -> Fee:
    """What is to be paid before `event` is published: nothing for the house's, or where it was paid."""
    price = fee()
    if event.organiser_id is None or _paid_order(event) is not None:
        return Fee(0, price.currency)
    return price


def ways_to_pay(user: User, price: Fee) -> list[Way]:
    """How this member can pay the fee: into the platform's own accounts, or from their wallet."""
    found = ways_for_everybody(price)
    wallet = db.session.scalar(select(Wallet).filter_by(user_id=user.id, currency=price.currency))
    if wallet is not None and wallet.available_minor >= price.amount_minor:
        inside = (registry.get(name) for name in registry.names())
        found += [Way(p.name, p.label, wallet.available_minor) for p in inside if p.immediate]
    return found


def ways_for_everybody(price: Fee) -> list[Way]:
    """How everybody can pay a fee of that much: into the platform's own accounts."""
    return [
        Way(provider.name, provider.label)
        for provider in payees.offered(None)
        if provider.supports(price.currency) and provider.minimum_minor(price.currency) <= price.amount_minor
    ]


def unpaid(event: Event) -> Order | None:
    """The order for the event's fee that waits for its payment, if there is one."""
    order = _latest(event)
    return order if order is not None and order.state in _UNPAID[:2] else None


@dataclass(frozen=True)
class Offer:
    """What the page that publishes an event shows. `problem` is why it cannot be published now, in words."""

    price: Fee
    ways: list[Way]
    unpaid: Order | None
    problem: str = ""


def offer(event: Event, user: User) -> Offer:
    """What publishing `event` costs this member, and how it can be paid."""
    try:
        price = due(event)
        _check(event, user)
    except DomainError as error:
        return Offer(Fee(0, event.currency), [], unpaid(event), error.message)
    found = ways_to_pay(user, price) if price.amount_minor else []
    problem = ""
    if price.amount_minor and not found:
        problem = f"The fee cannot be paid here just now. Write to {config.get().support_email}."
    return Offer(price, found, unpaid(event), problem)


# --- Publishing -----------------------------------------------------------------------------------------


def publish(event: Event, user: User, provider: str | None, *, shown: str | None = None) -> Order | None:
    """Publish `event` at once and return None; or the order for its fee, to be paid by `provider`. Commits.

    An order that was made before is taken up again, so there is never more than one to be paid. `shown` is
    the fee that the form carries, as `prices` has it; None where no form is behind it. Raises DomainError in
    the organiser's words, PriceChanged where the fee is another one, and NotFound for somebody else's event.
    """
    _check(event, user)
    price = due(event)
    if not price.amount_minor:
        events.update_event(event, state=EventState.PUBLISHED)
        return None
    if provider is None or provider not in [way.name for way in ways_to_pay(user, price)]:
        raise DomainError("provider", "Choose how to pay the fee.")
    prices.check_one(price.amount_minor, price.currency, shown, at_once=prices.paid_at_once(provider))
    return _order(event, user, price, provider)


def _check(event: Event, user: User) -> None:
    if user.role is not Role.ADMIN and event.organiser_id != user.id:
        raise NotFound("no_event", "You have no event at this address.")
    if event.state is EventState.PUBLISHED:
        raise DomainError("published", "This event is published already.")
    if event.state is not EventState.DRAFT:
        words = {
            EventState.CANCELLED: "This event was cancelled. Duplicate it to put it on again.",
            EventState.REVIEW: "An admin looks at this event, and decides whether it is published again.",
        }[event.state]
        raise DomainError(event.state.value, words)
    if not event.ticket_types:
        raise DomainError("no_tickets", "Add at least one ticket first.")
    if event.ends_at <= clock.now():
        raise DomainError("past", "This event is over. Set its dates first.")
    events.check_accounts(event)
    if availability.is_suspended(event):
        raise DomainError("not_approved", "You can publish events as soon as an admin has approved you.")


def _order(event: Event, user: User, price: Fee, provider: str) -> Order:
    """The order for the fee: the one that waits to be paid, opened anew if it was closed; or a new one."""
    event_id, user_id = event.id, user.id
    before = _latest(event)
    if before is not None and before.state is OrderState.REVIEW:
        raise DomainError(
            "in_review", "A person is looking at your payment of the fee. Please do not pay again."
        )
    if before is not None and before.state in _UNPAID and _is_for(before, price, user_id):
        order_id = before.id
        managing.pay_again(order_id, provider, payer_id=user_id, door="organiser")
        return db.session.get_one(Order, order_id, populate_existing=True)
    # Otherwise the fee has changed since, or another person asks.
    before_id = _closes(before)
    paid = _close_unpaid(before, door="organiser")
    if paid is not None:
        return paid
    with replacements.taking_over(before_id):
        return placing.place_listing_fee(
            db.session.get_one(Event, event_id),
            db.session.get_one(User, user_id),
            price.amount_minor,
            price.currency,
            provider=provider,
            form_token=_next_token(event_id),
        )


def _closes(before: Order | None) -> int | None:
    """The id of the fee's order that is closed for another, if there is one."""
    return before.id if before is not None and before.state in _UNPAID[:2] else None


def _close_unpaid(before: Order | None, *, door: str) -> Order | None:
    """Close the fee's order that could still be paid, at its provider first; the order, where it was paid."""
    if before is None or _closes(before) is None:
        return None
    closed = managing.cancel(before, door=door, replaced=True)
    if closed.state not in (OrderState.COMPLETED, *_UNPAID[2:]):
        raise DomainError("under_way", "A payment of the fee is under way. Wait for its end.")
    return closed if closed.state is OrderState.COMPLETED else None


def _next_token(event_id: int) -> str:
    """Two who click at the same moment ask for the same order."""
    return f"listing-{event_id}-{len(_orders(event_id)) + 1}"


def _is_for(order: Order, price: Fee, user_id: int) -> bool:
    same = (order.total_minor, order.currency) == (price.amount_minor, price.currency)
    return same and order.user_id == user_id


def _orders(event_id: int) -> list[Order]:
    """Every order for the event's fee, the newest first."""
    # As the index of such lines has it.
    fee = OrderLine.kind == literal_column("'listing_fee'")
    query = (
        select(Order)
        .where(Order.event_id == event_id, Order.lines.any(fee))
        .order_by(Order.id.desc())
        .execution_options(populate_existing=True)
    )
    return list(db.session.scalars(query))


def _latest(event: Event) -> Order | None:
    return next(iter(_orders(event.id)), None)


def _paid_order(event: Event) -> Order | None:
    """The order by which the fee is paid, and has stayed paid."""
    return next((order for order in _orders(event.id) if order.state is OrderState.COMPLETED), None)


# --- What admins may ----------------------------------------------------------------------------------


def waive(event: Event, admin: User, reason: str) -> Order:
    """Publish an organiser's event without its fee, by an admin's word. Recorded; commits.

    The fee's order, of 0, keeps on its timeline who said so, and why. NotFound for whoever is no admin.
    """
    if admin.role is not Role.ADMIN or event.organiser_id is None:
        raise NotFound("no_fee", "There is no fee here that you can waive.")
    if not reason.strip():
        raise DomainError("reason_needed", "Say why: the reason is kept on the timeline of the fee's order.")
    _check(event, admin)
    price = due(event)
    if not price.amount_minor:
        raise DomainError("nothing_due", "No fee is to be paid: publish the event.")
    event_id, admin_id, owner_id = event.id, admin.id, event.organiser_id
    before = _latest(event)
    before_id = _closes(before)
    paid = _close_unpaid(before, door="admin")
    if paid is not None:
        return paid
    words = f"The fee of {money.show(price.amount_minor, price.currency)} was waived: {reason.strip()}"
    with replacements.taking_over(before_id):
        return placing.place_listing_fee(
            db.session.get_one(Event, event_id),
            db.session.get_one(User, owner_id),
            0,
            price.currency,
            provider=None,
            form_token=_next_token(event_id),
            waived=words,
            actor_id=admin_id,
        )


def change_record(event: Event, *, moves: bool = False, **changes: Any) -> Event:
    """Change an event as admins may in the records, by the catalogue's rules. Commits; DomainError in words.

    Publishing an organiser's event has a page of its own, which asks for the fee, and a decision of its own
    once the fee went back: what these keep on record is not gone round by setting a state.
    """
    state = changes.get("state", event.state)
    if event.organiser_id is not None and state is not event.state:
        _check_set(event, state)
    return events.update_event(event, moves=moves, **changes)


def _check_set(event: Event, state: EventState) -> None:
    if event.state is EventState.REVIEW and state is not EventState.CANCELLED:
        raise DomainError("state", "Its listing fee went back: decide it at /admin/listings, with a reason.")
    if state is not EventState.PUBLISHED:
        return
    if availability.is_suspended(event):
        raise DomainError("state", "Its organiser is not approved. Approve them first, at /admin/organisers.")
    price = due(event)
    if price.amount_minor:
        raise DomainError(
            "state",
            f"Its listing fee of {money.show(price.amount_minor, price.currency)} is not paid. Publish it at "
            f"/organiser/events/{event.slug}/publish: there the fee is paid, or waived with a reason.",
        )


# --- When the fee goes back -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Waiting:
    """An event that is off sale until an admin decides, with the order of its fee."""

    event: Event
    order: Order | None


def waiting() -> list[Waiting]:
    """The events in review, the next one first."""
    query = select(Event).filter_by(state=EventState.REVIEW).options(joinedload(Event.picture))
    found = db.session.scalars(query.order_by(Event.starts_at).limit(200)).all()
    return [Waiting(event, _latest(event)) for event in found]


def decide_review(event_id: int, how: str, *, reason: str, actor_id: int) -> Event:
    """An admin takes an event out of review: published again, or cancelled. Recorded; commits.

    DomainError when it is not in review (any more), or without a reason.
    """
    if how not in DECISIONS:
        raise DomainError("unknown_decision", f"Choose one of {', '.join(DECISIONS)}.")
    if not reason.strip():
        raise DomainError("reason_needed", "Say why: the reason is kept on the timeline of the fee's order.")

    def work() -> Event:
        found = next(iter(_orders(event_id)), None)
        order = locks.order(found.id) if found is not None else None
        event = db.session.scalar(
            select(Event)
            .where(Event.id == event_id)
            .with_for_update(key_share=True)
            .execution_options(populate_existing=True)
        )
        if event is None:
            raise NotFound("no_event", "There is no such event.")
        if event.state is not EventState.REVIEW:
            raise DomainError("not_in_review", f"This event is {event.state}; there is nothing to decide.")
        event.state = EventState.PUBLISHED if how == "publish" else EventState.CANCELLED
        event.updated_at = clock.now()
        if order is not None:
            words = f"{'Published again' if how == 'publish' else 'Cancelled'}: {reason.strip()}"
            timeline.note(order, "listing_decided", words, door="admin", actor_id=actor_id)
            fulfilment.tell_decided(order, event.state)
        return event

    event = locks.in_one_transaction(work)
    queue.soon("cancelled_events" if how == "cancel" else "deliver_mail")
    return event
