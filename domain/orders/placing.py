"""From a form to an order: tickets, guests, entries, top-ups and listing fees; lines, stock and payment."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping
from datetime import datetime

from psycopg.errors import ForeignKeyViolation
from sqlalchemy import Select, not_, or_, select, update
from sqlalchemy.exc import IntegrityError

import config
from domain import addresses, clock, epochs, locks, names, timeline
from domain.catalogue import availability, prices
from domain.errors import DomainError
from domain.orders import line_switch, still_payable, waiting_line
from domain.payments import creating, fulfilment
from domain.post import budgets, outbox
from domain.providers.failure_reasons import Reason
from extensions import db, network, queue
from models import (
    Athlete,
    Event,
    EventState,
    LineKind,
    Order,
    OrderLine,
    OrderState,
    Participant,
    StockState,
    Ticket,
    TicketState,
    TicketType,
    User,
)

# No letters or digits that look like others.
CODE_ALPHABET = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
# One entry of a guest list.
MOST_GUESTS = 50
_GONE = (availability.Sale.SOLD_OUT, availability.Sale.ALL_HELD)


def place(
    event: Event,
    quantities: Mapping[int, int],
    *,
    name: str,
    email: str,
    user: User | None = None,
    provider: str | None = None,
    form_token: str | None = None,
    client_address: str = "",
    shown: Mapping[int, str] | None = None,
    poll_minutes: int | None = None,
    turn: str = "",
) -> Order:
    """Make an order for tickets with its hold and, where it costs money, its payment row. Commits.

    `quantities` maps ticket type ids to how many. The same `form_token` gives the same order again. A free
    order is complete when this returns. `shown` are the prices that the buyer was shown, as `prices` has
    them; None where no form is behind the order. The payment is kept and polled for `poll_minutes`; None: as
    its event or the provider's setting says. `turn` is the secret of a place in the event's waiting line,
    where it has one. Raises DomainError in the buyer's words; PriceChanged when a price is another one,
    SoldOut when it is too late, Waits when it is not their turn.
    """
    watched = line_switch.is_watched(event)

    def make() -> Order:
        now = clock.now()
        _count(email, client_address)
        mine = waiting_line.take_turn(event, turn, email)
        chosen = _choose(event, quantities, now)
        prices.check(chosen, event.currency, shown, provider)
        lines = [
            OrderLine(
                kind=LineKind.TICKET,
                ticket_type=ticket_type,
                description=f"{event.title}: {ticket_type.name}"[:250],
                quantity=quantity,
                unit_minor=ticket_type.price_minor,
            )
            for ticket_type, quantity in chosen
        ]
        order = _new_order(
            event.currency, lines, clean_name(name), email, user, form_token, client_address, now
        )
        order.event = event
        _write(order, provider, poll_minutes=poll_minutes)
        if mine is not None:
            waiting_line.keep(mine, order)
        return order

    order = _once(form_token, make)
    if watched:
        line_switch.watch(event)
    return order


def place_guests(
    event: Event,
    ticket_type_id: int,
    quantity: int,
    *,
    name: str,
    email: str,
    actor_id: int,
    form_token: str | None = None,
) -> Order:
    """Put somebody on the guest list: tickets that cost nothing, taken from the stock. Commits.

    Their tickets are mailed at once. `actor_id` is who invited them. Sales windows and limits of an order are
    the buyers', not the guests'; the stock is everybody's.
    """

    def make() -> Order:
        now = clock.now()
        kind = _guests_type(event, ticket_type_id, quantity, now)
        line = OrderLine(
            kind=LineKind.TICKET,
            ticket_type=kind,
            description=f"{event.title}: {kind.name}, guest list"[:250],
            quantity=quantity,
            unit_minor=0,
        )
        order = _new_order(event.currency, [line], clean_name(name), email, None, form_token, "", now)
        order.event, order.guest_of_id = event, actor_id
        _write(order, None, door="guest_list", actor_id=actor_id)
        return order

    return _once(form_token, make)


def _guests_type(event: Event, ticket_type_id: int, quantity: int, now: datetime) -> TicketType:
    """The ticket type that guests get, where there are so many. DomainError in words."""
    if event.is_tournament:
        raise DomainError("tournament", "A place in a tournament is entered for an athlete, on its own page.")
    if event.state is not EventState.PUBLISHED or availability.is_suspended(event):
        raise DomainError("not_published", "Guests can be invited once the event is published.")
    if event.ends_at <= now:
        raise DomainError("past", "This event is over.")
    kind = next((kind for kind in event.ticket_types if kind.id == ticket_type_id), None)
    if kind is None:
        raise DomainError("unknown_ticket_type", "Choose a ticket type of this event.")
    if not 1 <= quantity <= MOST_GUESTS:
        raise DomainError("quantity", f"Choose between 1 and {MOST_GUESTS} tickets.")
    if quantity > kind.available:
        raise fulfilment.SoldOut("too_few_left", f"{kind.name}: only {kind.available} are left.")
    return kind


def place_entry(
    kind: TicketType,
    athlete: Athlete,
    user: User,
    *,
    provider: str | None = None,
    form_token: str | None = None,
    client_address: str = "",
    shown: str | None = None,
    begun: bool = True,
    instead_of: int | None = None,
) -> Order:
    """Make an order for an athlete's place in a category, with its participant. Commits: see entries.py.

    Where its payment is not `begun` with it, it keeps no place yet, as an order whose hold has ended. `shown`
    is the fee that was shown, as `prices.tag` has it; "" where the form carried none, None where there was no
    form. `instead_of` is an order for the same place that ended unpaid: its entry is withdrawn with this.
    DomainError in words: `already_entered` where the athlete has a place there.
    """
    event = kind.event

    def make() -> Order:
        now = clock.now()
        if instead_of is not None:
            _replace(locks.order(instead_of), now)
        # One entry of an athlete at a time: two would not see each other.
        db.session.refresh(athlete, with_for_update={"key_share": True})
        if db.session.scalar(entered(kind, [athlete.id]).limit(1)) is not None:
            raise DomainError("already_entered", f"{athlete.name} is entered in {kind.name} already.")
        offers = _open_types(event, now)
        _check_quantity(offers[kind.id], 1)
        at_once = prices.paid_at_once(provider)
        prices.check_one(kind.price_minor, kind.priced_in, shown, at_once=at_once)
        line = OrderLine(
            kind=LineKind.TOURNAMENT_ENTRY,
            ticket_type=kind,
            description=f"{event.title}: {kind.name}"[:250],
            holder=athlete.name,
            quantity=1,
            unit_minor=kind.price_minor,
        )
        payer = names.plain(user.name)[: names.LONGEST] or addresses.shown(user.email)
        order = _new_order(kind.priced_in, [line], payer, user.email, user, form_token, client_address, now)
        order.event = event
        db.session.add(participant(kind, athlete, order, now))
        if begun or not order.total_minor:
            _write(order, provider)
        else:
            order.state, order.failure_code = OrderState.EXPIRED, Reason.NOT_BEGUN
        return order

    return _once(form_token, make)


def _replace(order: Order, now: datetime) -> None:
    """Withdraw the entry of an order that ended unpaid. DomainError where it may be paid by now."""
    if order.state not in (OrderState.FAILED, OrderState.EXPIRED, OrderState.CANCELLED):
        raise DomainError("not_payable", "This order does not need another payment.")
    change = update(Participant).where(Participant.order_id == order.id).values(withdrawn_at=now)
    db.session.execute(change.execution_options(synchronize_session=False))


def participant(kind: TicketType, athlete: Athlete, order: Order, now: datetime) -> Participant:
    """An athlete's entry in a category, as they are now. No commit."""
    return Participant(
        public_id=f"participant_{secrets.token_urlsafe(15)}",
        athlete=athlete,
        ticket_type=kind,
        order=order,
        club=athlete.club,
        weight_g=athlete.weight_g,
        grade=athlete.grade,
        created_at=now,
    )


def entered(kind: TicketType, athlete_ids: Collection[int]) -> Select[Participant]:
    """The entries of some athletes in a category that stand: paid for, or to be paid."""
    issued = select(Ticket.id).where(Ticket.order_id == Participant.order_id)
    paid = issued.where(Ticket.state != TicketState.VOID).exists()
    ended = or_(Participant.withdrawn_at.is_not(None), Order.state == OrderState.REFUNDED, issued.exists())
    return (
        select(Participant)
        .join(Order, Order.id == Participant.order_id)
        .where(Participant.athlete_id.in_(athlete_ids), Participant.ticket_type_id == kind.id)
        .where(or_(paid, not_(ended)))
    )


def place_top_up(
    user: User,
    amount_minor: int,
    *,
    provider: str | None = None,
    form_token: str | None = None,
    client_address: str = "",
) -> Order:
    """Make an order for wallet money, with its payment row. Commits. Only the settings' amounts pass."""
    settings = config.get()
    currency = settings.wallet_currency
    still_payable.check_top_up(amount_minor, currency)
    line = OrderLine(
        kind=LineKind.TOP_UP,
        description=f"{settings.site_name} wallet top-up",
        quantity=1,
        unit_minor=amount_minor,
    )

    def make() -> Order:
        payer = names.plain(user.name)[: names.LONGEST] or addresses.shown(user.email)
        order = _new_order(currency, [line], payer, user.email, user, form_token, client_address, clock.now())
        _write(order, provider)
        return order

    return _once(form_token, make)


def place_listing_fee(
    event: Event,
    user: User,
    amount_minor: int,
    currency: str,
    *,
    provider: str | None,
    form_token: str,
    waived: str = "",
    actor_id: int | None = None,
) -> Order:
    """Make an order for the fee of publishing `event`, with its payment row. Commits: see publishing.py.

    The same `form_token` gives the same order again. One of 0 publishes the event at once: `waived` says why,
    and `actor_id` is the admin whose word that is.
    """

    def make() -> Order:
        line = OrderLine(
            kind=LineKind.LISTING_FEE,
            description=f"Listing fee: {event.title}"[:250],
            quantity=1,
            unit_minor=amount_minor,
        )
        payer = names.plain(user.name)[: names.LONGEST] or addresses.shown(user.email)
        order = _new_order(currency, [line], payer, user.email, user, form_token, "", clock.now())
        order.event = event
        if waived:
            db.session.add(order)
            db.session.flush()
            timeline.note(order, "fee_waived", waived, door="admin", actor_id=actor_id)
        _write(order, provider, door="admin" if waived else "checkout", actor_id=actor_id)
        return order

    return _once(form_token, make)


def _once(form_token: str | None, make: Callable[[], Order]) -> Order:
    """Make an order and commit; or find the one that the same form made before, for which another is refused.

    A deadlock is tried again. Looking for the other first would cost a query for every order, and would not
    see one that is made just now.
    """
    epochs.refuse_if_closed()
    try:
        order = locks.in_one_transaction(make)
    except (IntegrityError, DomainError) as error:
        repeated = _by_form_token(form_token)
        if repeated is not None:
            return repeated
        if isinstance(getattr(error, "orig", None), ForeignKeyViolation):
            raise _removed() from error
        raise
    queue.soon("deliver_mail")
    return order


def _removed() -> DomainError:
    """What was chosen is gone since it was read."""
    return DomainError("unknown_ticket_type", "That is not sold here any more. Reload the page.")


def _by_form_token(form_token: str | None) -> Order | None:
    if not form_token:
        return None
    return db.session.scalar(select(Order).filter_by(form_token=form_token[:64]))


def _choose(event: Event, quantities: Mapping[int, int], now: datetime) -> list[tuple[TicketType, int]]:
    """The ticket types asked for, each sold now and within its limits. DomainError says which is not."""
    if event.is_tournament:
        raise DomainError("tournament", "A place in a tournament is entered for an athlete, on its own page.")
    types = _open_types(event, now)
    chosen = []
    for type_id, quantity in sorted(quantities.items()):
        if quantity == 0:
            continue
        if type_id not in types:
            raise DomainError(
                "unknown_ticket_type", "That ticket is not sold here any more. Reload the page."
            )
        _check_quantity(types[type_id], quantity)
        chosen.append((types[type_id].ticket_type, quantity))
    if not chosen:
        raise DomainError("nothing_chosen", "Choose how many tickets you want.")
    return chosen


def _open_types(event: Event, now: datetime) -> dict[int, availability.TypeSelling]:
    """Ticket type id -> how it sells now. DomainError in words where none of them does."""
    sale = availability.selling(event, now)
    if sale.state in _GONE:
        raise fulfilment.SoldOut(sale.state.value, sale.words)
    if not sale.is_open:
        raise DomainError(sale.state.value, sale.words)
    return {offer.ticket_type.id: offer for offer in sale.types}


def _check_quantity(offer: availability.TypeSelling, quantity: int) -> None:
    kind = offer.ticket_type
    if quantity < 0 or quantity > kind.per_order_limit:
        raise DomainError(
            "over_limit", f"{kind.name}: one order may have at most {kind.per_order_limit}. Choose fewer."
        )
    if offer.state in _GONE:
        raise fulfilment.SoldOut(offer.state.value, f"{kind.name}: {offer.words}.")
    if offer.state is not availability.Sale.OPEN:
        raise DomainError(offer.state.value, f"{kind.name}: {offer.words}.")
    if quantity > offer.most:
        raise fulfilment.SoldOut("too_few_left", f"{kind.name}: only {offer.most} left. Choose fewer.")


def _new_order(
    currency: str,
    lines: list[OrderLine],
    name: str,
    email: str,
    user: User | None,
    form_token: str | None,
    client_address: str,
    now: datetime,
) -> Order:
    return Order(
        code="ORD-" + "".join(secrets.choice(CODE_ALPHABET) for _ in range(8)),
        secret=secrets.token_urlsafe(24),
        form_token=form_token[:64] if form_token else None,
        user_id=user.id if user is not None else None,
        name=name,
        email=addresses.normal(email),
        currency=currency,
        total_minor=sum(line.total_minor for line in lines),
        lines=lines,
        client_address=client_address[:45],
        network=network(client_address) if client_address else None,
        created_at=now,
        state=OrderState.PENDING,
        stock_state=StockState.NONE,
    )


def lost_order(
    lines: list[OrderLine],
    currency: str,
    *,
    name: str,
    email: str,
    code: str | None,
    event: Event | None = None,
    user: User | None = None,
) -> Order:
    """An order that a backup has lost, as a person makes it anew, under its old code where that is known.

    It holds nothing: the money that came for it takes its places. No commit.
    """
    known = email or config.get().support_email
    order = _new_order(currency, lines, clean_name(name), known, user, None, "", clock.now())
    # Nobody is mailed where nobody knows whose it was.
    order.email = order.email if email else addresses.GONE
    order.event, order.code = event, code or order.code
    order.state, order.stock_state = OrderState.EXPIRED, StockState.RELEASED
    db.session.add(order)
    db.session.flush()
    return order


def _write(
    order: Order,
    provider: str | None,
    *,
    door: str = "checkout",
    actor_id: int | None = None,
    poll_minutes: int | None = None,
) -> None:
    """Write the order, its payment and its hold together; the stock last, as everybody wants that row."""
    epochs.refuse_if_closed()
    db.session.add(order)
    if order.total_minor:
        creating.prepare(order, provider, poll_minutes)
        if order.sells_tickets:
            order.stock_state = StockState.HELD
            db.session.flush()
            key, stranger = f"order:{order.id}:received", budgets.by_stranger(order)
            outbox.stage("order_received", key=key, to=order.email, order=order, unproven=stranger)
            fulfilment.hold(order)
    else:
        db.session.flush()
        fulfilment.fulfil(order, None, door=door, source=None, actor_id=actor_id)


def _count(email: str, client_address: str) -> None:
    """Count an order before anything is done for it: many at one moment wait for each other here."""
    if config.get().limits and client_address and not budgets.order_is_within(email, client_address):
        raise DomainError(
            "too_many_orders",
            "That was very often for one e-mail address. Pay for what is ordered already, or wait an hour "
            "before you order again.",
        )


def clean_name(name: str) -> str:
    """The name of who buys, as it is kept. DomainError in words."""
    return names.clean(name, why=": it is printed on the tickets")


# --- Afterwards -----------------------------------------------------------------------------------------
