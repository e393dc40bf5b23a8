"""An event's waiting line: while it is on, tickets are bought in turn, and nobody is refused.

It is for hoarding: whoever holds tickets that they never pay for, again and again, under as many addresses as
they like. A confirmed address has one place. Its turn comes in the order in which places were confirmed, and
lapses unless it is used; what is ordered in it is kept for a few minutes, until its buyer goes on to pay. Who
has a turn, and how much one network may hold, is in `domain/orders/line_turns.py`.

Whoever holds for nothing would hold as much as an order may have, and go on to the provider's page, where
orders are kept for longer. So while others of the same network wait, an order has its share of what can be
had, one ticket at least; and in all an order is kept for PAYING, wherever its buyer is.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil

from sqlalchemy import and_, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from domain import addresses, clock, locks
from domain.errors import DomainError, NotFound
from domain.orders import line_turns
from domain.payments import fulfilment, own_end
from domain.post import budgets, outbox
from extensions import db, network, queue
from models import Event, LinePlace, Order, Payment, StockState, TicketType, User

# What was ordered in a turn is kept for so long before its buyer goes on to pay.
KEPT = timedelta(minutes=5)
# And for so long in all, at the provider too, where a payment can be closed there: who pays by hand has the
# time that this takes.
PAYING = timedelta(minutes=10)
_FORGOTTEN = timedelta(days=30)
_NEAR, _FAR = 20, 500


@dataclass(frozen=True)
class View:
    """What a place's page shows: how many wait before it, and in how many seconds it looks again."""

    place: LinePlace
    state: str
    ahead: int = 0
    refresh: int = 5


class Waits(DomainError):
    """It is not this buyer's turn; their place, if they have one, is kept."""


# --- Taking a place -------------------------------------------------------------------------------------


def ask(event: Event, typed: str, *, user: User | None, client_address: str) -> LinePlace | None:
    """Take a place for an address, or find the one that it has. Commits.

    Whoever is logged in with that address has proven it, and gets the place. Everybody else is mailed its
    link, and gets None, whether it was there before or not. DomainError where there is no line or address.
    """
    address = addresses.normal(typed)
    if not event.has_line:
        raise DomainError("no_line", "There is no waiting line here: you can order at once.")
    proven = user is not None and user.confirmed_at is not None and addresses.settled(user.email) == address

    def work() -> LinePlace:
        now = clock.now()
        place = _place_of(event.id, address, client_address, now)
        if proven:
            place.confirmed_at = place.confirmed_at or now
        else:
            outbox.stage(
                "line_place",
                key=f"line:{place.id}:{now:%Y-%m-%dT%H:%M}",
                to=address,
                context={"link": line_turns.link(event, place), "title": event.title},
                unproven=True,
                budget=budgets.LINE,
            )
        return place

    place = locks.in_one_transaction(work)
    queue.soon("deliver_mail")
    return place if proven else None


def _place_of(event_id: int, address: str, client_address: str, now: datetime) -> LinePlace:
    """The one place of an address; a new one where it has none, or has used the one before."""
    values = {
        "event_id": event_id,
        "email": address,
        "secret": secrets.token_urlsafe(24),
        "network": network(client_address),
        "created_at": now,
    }
    open_place = LinePlace.ended_at.is_(None)
    for _ in range(2):
        db.session.execute(
            insert(LinePlace)
            .values(values)
            .on_conflict_do_nothing(index_elements=["event_id", "email"], index_where=open_place)
        )
        found = select(LinePlace).where(
            LinePlace.event_id == event_id, LinePlace.email == address, open_place
        )
        place = db.session.scalar(found.with_for_update(key_share=True))
        if place is not None and not _is_over(place, now):
            return place
        if place is not None:
            place.ended_at = now
            db.session.flush()
    raise Waits("line_wait", "The line moves just now. Try again in a moment.")


def _is_over(place: LinePlace, now: datetime) -> bool:
    """Whether a place was used, or has lapsed: then its address may take another one, at the end."""
    if place.order is not None:
        return place.order.stock_state is not StockState.HELD
    return place.lapses_at is not None and place.lapses_at <= now


def confirm(event: Event, secret: str, *, client_address: str) -> LinePlace:
    """Whoever has the mailed link takes the place: it waits from now on. Commits."""
    place = find(event, secret)
    if place.ended_at is None and place.confirmed_at is None:
        place.confirmed_at = clock.now()
        # A mail may be read somewhere else than the form was sent from: it is bought from here.
        place.network = network(client_address)
        db.session.commit()
    return place


def find(event: Event, secret: str) -> LinePlace:
    """The place behind a link. NotFound for any other secret."""
    place = db.session.scalar(
        select(LinePlace).where(LinePlace.secret == secret[:64], LinePlace.event_id == event.id)
    )
    if place is None:
        raise NotFound(
            "no_place", "There is no place in the line at this address. Check that the link is complete."
        )
    return place


def path(event: Event, place: LinePlace) -> str:
    """The path of a place's page."""
    return line_turns.path(event, place)


def look(event: Event, secret: str) -> View:
    """How a place stands: unconfirmed, waiting, turn, ordered or lapsed. Gives the turns that are due."""
    place = find(event, secret)
    if place.confirmed_at is not None and place.ended_at is None and event.has_line:
        line_turns.give_turns(event.id)
        place = db.session.get_one(LinePlace, place.id, populate_existing=True)
    now = clock.now()
    if place.order is not None:
        return View(place, "ordered")
    if place.ended_at is not None or _is_over(place, now):
        return View(place, "lapsed")
    if place.confirmed_at is None:
        return View(place, "unconfirmed")
    if place.turn_at is not None or not event.has_line:
        return View(place, "turn")
    ahead = _ahead_of(place)
    return View(place, "waiting", ahead, _look_again_in(ahead, now - place.confirmed_at))


def _look_again_in(ahead: int, waited: timedelta) -> int:
    """In how many seconds: soon for who is near, or has just come and may be served with everybody."""
    if ahead < _NEAR or waited < timedelta(minutes=1):
        return 5
    return 10 if ahead < _FAR else 20


def turn_of(event: Event, secret: str) -> LinePlace | None:
    """The place behind a link while it is its turn, so that the form is of use; else None."""
    if not secret:
        return None
    place = db.session.scalar(
        select(LinePlace).where(LinePlace.secret == secret[:64], LinePlace.event_id == event.id)
    )
    is_turn = place is not None and place.turn_at is not None and not _is_over(place, clock.now())
    return place if is_turn else None


def _ahead_of(place: LinePlace) -> int:
    earlier = or_(
        LinePlace.confirmed_at < place.confirmed_at,
        and_(LinePlace.confirmed_at == place.confirmed_at, LinePlace.id < place.id),
    )
    return db.session.scalar(select(func.count()).where(*line_turns.waiting(place.event_id), earlier)) or 0


# --- Ordering in one's turn -----------------------------------------------------------------------------


def take_turn(event: Event, secret: str, email: str) -> LinePlace | None:
    """The place whose turn it is, locked, for an order of this event; None where no line is on. No commit.

    Waits where it is not their turn; its words say what to do.
    """
    if not event.has_line:
        return None
    place = db.session.scalar(
        select(LinePlace)
        .where(LinePlace.event_id == event.id, LinePlace.secret == secret[:64])
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    if place is None or place.email != addresses.normal(email):
        raise Waits(
            "line", "There is a waiting line now, so that everybody gets a chance. Take a place in it below."
        )
    if place.turn_at is None:
        raise Waits("line_wait", "It is not your turn yet. Your place in the line is kept.")
    if place.ended_at is not None or place.order_id is not None or _is_over(place, clock.now()):
        raise Waits("line_over", "This place was used, or its turn has passed. Take another one below.")
    return place


def keep(place: LinePlace, order: Order) -> None:
    """What was ordered in a turn is kept for minutes, and longer once its buyer goes on to pay. No commit.

    The stock is held already, so nobody else orders of these types at this moment. Waits where the network
    holds its share of them, or others there would get nothing for this.
    """
    place.order_id = order.id
    payment = next((payment for payment in order.payments if payment.is_active), None)
    if payment is not None:
        now = clock.now()
        payment.awaits_buyer, payment.closes_at, payment.next_check_at = True, now + KEPT, now + KEPT
        _ends_sooner(payment, order)
    db.session.flush()
    where, wanted = order.network or "", fulfilment.stock_of(order)
    unpaid, not_gone_on = line_turns.held_by_network(place.event_id)
    others_wait = db.session.scalar(
        select(LinePlace.id).where(*line_turns.waiting(place.event_id), LinePlace.network != where).limit(1)
    )
    free = 0
    kinds = select(TicketType).where(TicketType.id.in_(wanted)).execution_options(populate_existing=True)
    for kind in db.session.scalars(kinds):
        third = line_turns.third_of(kind)
        most = third if others_wait is not None else max(third, kind.capacity - third)
        over = max(not_gone_on[where, kind.id] - third, unpaid[where, kind.id] - most)
        if over > 0 and wanted[kind.id] > third:
            # Waiting would not help, so the turn stays: they choose fewer in it.
            raise Waits(
                "line_most",
                f"{kind.name}: while there is a waiting line, one order may have at most {third}. Choose "
                "fewer; once they are paid for, you can take another place.",
            )
        if over > 0:
            raise Waits("line_share", _too_many(kind, wanted[kind.id] - over))
        free += min(kind.available, -over) + wanted[kind.id]
    _check_share(place, where, sum(wanted.values()), free)


def _check_share(place: LinePlace, where: str, wanted: int, free: int) -> None:
    """Several tickets are had while there are enough for those who wait; else everybody's share, or one."""
    if wanted == 1:
        return
    here = LinePlace.network == where
    waiting = db.session.scalar(
        select(func.count()).where(*line_turns.waiting(place.event_id), here, LinePlace.id != place.id)
    )
    share = max(1, free // (1 + (waiting or 0)))
    if waiting and wanted > share:
        raise Waits(
            "line_share",
            f"{waiting} {'other waits' if waiting == 1 else 'others wait'} on your network, so an order may "
            f"have {share} {'ticket' if share == 1 else 'tickets'} at this moment. Choose {share}, or wait "
            "until more can be had: your place is kept. Once these are paid for, you can take another place.",
        )


def _ends_sooner(payment: Payment, order: Order) -> None:
    """In a line an order is kept for PAYING in all, unless nobody could end its payment then."""
    if own_end.able(payment).close:
        until = order.created_at + PAYING
        payment.closes_at = min(payment.closes_at or until, until)
        minutes = ceil((until - payment.created_at).total_seconds() / 60)
        payment.max_poll_duration_minutes = min(payment.max_poll_duration_minutes, max(minutes, 0))


def keep_no_longer(order: Order, payment: Payment) -> None:
    """Another way to pay what was ordered in a turn is no way to keep it for longer. No commit."""
    in_turn = select(LinePlace.id).where(LinePlace.order_id == order.id).limit(1)
    if order.event is not None and order.event.has_line and db.session.scalar(in_turn) is not None:
        _ends_sooner(payment, order)


def _too_many(kind: TicketType, left: int) -> str:
    if left > 0:
        return (
            f"{kind.name}: others on your network are paying just now, so {left} can be had at this moment. "
            "Go on in the line and choose fewer, or wait: your place is kept."
        )
    return "Others on your network are paying just now. Your place is kept, and you are among the next."


def back_to_front(event: Event, secret: str) -> None:
    """Who had a turn and could not order for others keeps the place, before all who came later. Commits."""
    db.session.execute(
        update(LinePlace)
        .where(LinePlace.event_id == event.id, LinePlace.secret == secret[:64])
        .where(LinePlace.order_id.is_(None), LinePlace.ended_at.is_(None))
        .values(turn_at=None, lapses_at=None)
        .execution_options(synchronize_session=False)
    )
    db.session.commit()


def check_again(order: Order) -> None:
    """What was cancelled is not kept again for nothing: while there is a line, it is bought in one's turn."""
    if order.event is not None and order.sells_tickets and order.event.has_line:
        raise Waits(
            "line",
            "There is a waiting line here now. Take a place on the event’s page, and order anew.",
        )


def forget() -> int:
    """Forget the places that ended a month ago; how many. Commits."""
    gone = db.session.execute(delete(LinePlace).where(LinePlace.ended_at < clock.now() - _FORGOTTEN))
    db.session.commit()
    return int(gone.rowcount)  # type: ignore[attr-defined]
