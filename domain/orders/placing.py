"""From a form to an order, and what its buyer may do with it afterwards."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta

from psycopg.errors import ForeignKeyViolation
from sqlalchemy import bindparam, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import joinedload, selectinload

import config
from domain import addresses, clock, locks, names, timeline, urls
from domain.catalogue import availability, prices
from domain.errors import DomainError, NotFound
from domain.orders import still_payable
from domain.payments import creating, fulfilment, reconciling, replacements, starting
from domain.post import outbox
from extensions import db, queue
from models import (
    PAYMENT_ACTIVE,
    Event,
    EventState,
    LineKind,
    Order,
    OrderLine,
    OrderState,
    Payment,
    PaymentState,
    StockState,
    TicketState,
    TicketType,
    User,
)

# No letters or digits that look like others.
CODE_ALPHABET = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
# One entry of a guest list.
MOST_GUESTS = 50
_GONE = (availability.Sale.SOLD_OUT, availability.Sale.ALL_HELD)
_PAYABLE = (OrderState.PENDING, OrderState.PENDING_VERIFICATION)
_CANCELLING = (
    "The payment service has not confirmed yet that this order is cancelled. We keep asking, so it need not "
    "be done again: the order’s page says when it is. Please don’t pay meanwhile."
)
_CONFIRMING = (
    "The bank is confirming a payment for this order, so it cannot be cancelled now. If the bank refuses it, "
    "the order ends by itself."
)
_CLOSED = (OrderState.FAILED, OrderState.EXPIRED, OrderState.CANCELLED)


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
) -> Order:
    """Make an order for tickets with its hold and, where it costs money, its payment row. Commits.

    `quantities` maps ticket type ids to how many. The same `form_token` gives the same order again. A free
    order is complete when this returns. `shown` are the prices that the buyer was shown, as `prices` has
    them; None where no form is behind the order. The payment is kept and polled for `poll_minutes`; None: as
    its event or the provider's setting says. Raises DomainError in the buyer's words; PriceChanged when a
    price is another one, SoldOut when it is too late.
    """

    def make() -> Order:
        now = clock.now()
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
        return order

    return _once(form_token, make)


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
    """Make an order for the fee of publishing `event`, with its payment row. Commits: see listing.py.

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
    sale = availability.selling(event, now)
    if sale.state in _GONE:
        raise fulfilment.SoldOut(sale.state.value, sale.words)
    if not sale.is_open:
        raise DomainError(sale.state.value, sale.words)
    types = {offer.ticket_type.id: offer for offer in sale.types}
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
        created_at=now,
        state=OrderState.PENDING,
        stock_state=StockState.NONE,
    )


def _write(
    order: Order,
    provider: str | None,
    *,
    door: str = "checkout",
    actor_id: int | None = None,
    poll_minutes: int | None = None,
) -> None:
    """Write the order, its payment and its hold together; the stock last, as everybody wants that row."""
    db.session.add(order)
    if order.total_minor:
        creating.prepare(order, provider, poll_minutes)
        if order.sells_tickets:
            order.stock_state = StockState.HELD
            db.session.flush()
            outbox.stage("order_received", key=f"order:{order.id}:received", to=order.email, order=order)
            fulfilment.hold(order)
    else:
        db.session.flush()
        fulfilment.fulfil(order, None, door=door, source=None, actor_id=actor_id)


def clean_name(name: str) -> str:
    """The name of who buys, as it is kept. DomainError in words."""
    return names.clean(name, why=": it is printed on the tickets")


# --- Afterwards -----------------------------------------------------------------------------------------


# Made once. An order's payments and lines are few, so they come with it in one query.
_WITH_PAYMENTS = select(Order).where(Order.code == bindparam("code")).options(joinedload(Order.payments))
_WHOLE = _WITH_PAYMENTS.options(
    joinedload(Order.event).joinedload(Event.organiser),
    joinedload(Order.lines).joinedload(OrderLine.ticket_type),
    selectinload(Order.tickets),
)


def find(code: str, secret: str, *, whole: bool = False) -> Order:
    """The order behind a link, with its payments; `whole`: with all that its page shows.

    NotFound alike for a wrong code and a wrong secret.
    """
    query = _WHOLE if whole else _WITH_PAYMENTS
    order = db.session.scalars(query, {"code": canonical(code)}).unique().one_or_none()
    if order is None or not hmac.compare_digest(order.secret.encode(), secret.encode()):
        raise NotFound("no_order", "There is no order at this address. Check that the link is complete.")
    return order


def canonical(code: str) -> str:
    """An order's code as it is stored, however a link spells it: it is found, and counted, by that."""
    return code.upper()


def cancel(order: Order, *, door: str, actor_id: int | None = None, replaced: bool = False) -> Order:
    """Close the order's payment at the provider and give its tickets back. Commits. Paid in between wins.

    Where the provider does not confirm it, DomainError says so, and the sweep goes on until it does. Its
    buyer is mailed that it ended, unless they have just done it on the page, or another order has `replaced`
    this one.
    """
    order_id = order.id
    if order.state not in _PAYABLE:
        raise DomainError("not_cancellable", "This order cannot be cancelled any more.")
    payment = reconciling.active(order)
    if payment is not None:
        payment_id = payment.id
        locks.in_one_transaction(lambda: _remember_cancel(payment_id, door, actor_id, replaced))
        quietly = replaced or door == "order_page"
        outcome = reconciling.reconcile(
            payment_id, door=door, actor_id=actor_id, closing=True, quietly=quietly
        )
        if outcome.error is not None:
            raise DomainError("provider_silent", _CANCELLING)
        if outcome.state is PaymentState.PROCESSING:
            raise DomainError("confirming", _CONFIRMING)
        if outcome.state in PAYMENT_ACTIVE:
            raise DomainError("cancelling", _CANCELLING)
    return db.session.get_one(Order, order_id, populate_existing=True)


def _remember_cancel(payment_id: int, door: str, actor_id: int | None, replaced: bool) -> None:
    """Write the wish down before the call: if its answer is lost, the end is still a cancellation.

    What the order keeps is kept until now only, so that whoever asks the provider next closes it there.
    """
    payment, order = locks.payment_and_order(payment_id)
    if not payment.is_active:
        return
    now = clock.now()
    if payment.state is not PaymentState.PROCESSING:
        payment.closes_at = min(payment.closes_at or now, now)
        payment.next_check_at = now
    payment.cancel_asked_at = payment.cancel_asked_at or now
    # Whoever cancels it now knows of its end, even if it was to be replaced before.
    payment.replacing_since = now if replaced else None
    if not timeline.has(payment, "cancel_asked"):
        words = "Asked to cancel this payment."
        timeline.note(order, "cancel_asked", words, door=door, payment=payment, actor_id=actor_id)


def pay_again(
    order_id: int, provider_name: str, *, payer_id: int | None, door: str = "order_page"
) -> Payment | None:
    """A new attempt to pay an order that failed, expired or was cancelled; or the one that is open.

    `payer_id` is the member who is logged in. An order that was given up is paid by the rules and at the
    price of today, or not at all: see `domain/orders/paying_again.py`.
    """
    order = db.session.get_one(Order, order_id)
    still_payable.check_payer(order, provider_name, payer_id)
    current = reconciling.active(order)
    # Who only changes the way to pay has the hold still, and with it the price of the day they ordered.
    held = current is not None
    closed = False
    if current is not None and current.provider != provider_name:
        replacements.begin(current.id)
        closed = reconciling.reconcile(current.id, door=door, closing=True, quietly=True).changed
    elif current is not None and current.cancel_asked_at is not None:
        raise DomainError("cancelling", _CANCELLING)
    elif current is not None and current.state is not PaymentState.CREATED:
        still_payable.check_not_cancelled(order)
        return current

    def work() -> Order:
        order = locks.order(order_id)
        db.session.expire(order, ["payments"])
        if reconciling.active(order) is None:
            if order.state not in _CLOSED:
                raise DomainError("not_payable", "This order does not need another payment.")
            still_payable.check_still_on_sale(order)
            if not held:
                still_payable.check_as_new(order)
            creating.prepare(order, provider_name)
            order.state = OrderState.PENDING
            order.failure_reason = order.failure_code = ""
            timeline.note(order, "retry", "The buyer tries again.", door=door)
            fulfilment.hold(order)
        return order

    # Of an end that was there before, the buyer knows: they made it on this page, or were mailed.
    with replacements.taking_over(order_id if closed else None):
        ready = locks.in_one_transaction(work)
    return starting.open_at_provider(ready, door=door)


def correct_email(order: Order, email: str) -> None:
    """Send the order's mails to another address, until it is paid. Commits and mails the link there."""
    address = addresses.normal(email)

    def work() -> None:
        locked = locks.order(order.id)
        if locked.state not in (*_PAYABLE, *_CLOSED):
            raise DomainError(
                "too_late",
                f"The tickets are sent already. Write to {config.get().support_email} to change the address.",
            )
        if address == addresses.settled(locked.email):
            return
        timeline.note(
            locked,
            "address_corrected",
            f"{addresses.shown(locked.email)} -> {addresses.shown(address)}",
            door="order_page",
        )
        locked.email = address
        outbox.stage("order_received", key=f"order:{locked.id}:received:{address}", to=address, order=locked)

    locks.in_one_transaction(work)
    queue.soon("deliver_mail")


def resend(order: Order, *, door: str, actor_id: int | None = None) -> None:
    """Owe the buyer the tickets' mail once more. Commits."""

    def work() -> None:
        locked = locks.order(order.id)
        if not locked.tickets:
            raise DomainError("no_tickets", "This order has no tickets to send.")
        sent = sum(1 for entry in locked.timeline if entry.what == "resent") + 1
        outbox.stage("tickets", key=f"order:{locked.id}:fulfilled:{sent}", to=locked.email, order=locked)
        timeline.note(
            locked,
            "resent",
            f"Tickets sent again to {addresses.shown(locked.email)}.",
            door=door,
            actor_id=actor_id,
        )

    locks.in_one_transaction(work)
    queue.soon("deliver_mail")


def withdraw(order: Order, ticket_ids: Iterable[int], *, reason: str, door: str, actor_id: int) -> int:
    """Void tickets that cost nothing, such as a guest's, and give their stock back. Commits; how many.

    Tickets that were paid for are voided by a refund.
    """
    chosen = set(ticket_ids)

    def work() -> int:
        locked = locks.order(order.id)
        if locked.total_minor:
            raise DomainError("paid_for", "These tickets were paid for: refund them instead.")
        some = [t for t in locked.tickets if t.id in chosen and t.state is not TicketState.VOID]
        if not some:
            raise DomainError("no_tickets", "Choose the tickets that stop being valid.")
        fulfilment.take_back(locked, some, reason)
        words = f"{len(some)} ticket{'s' if len(some) != 1 else ''} withdrawn: {reason}"
        timeline.note(locked, "withdrawn", words, door=door, actor_id=actor_id)
        return len(some)

    return locks.in_one_transaction(work)


def mail_links(email: str) -> None:
    """Mail an address the links to its recent orders, if there are any. Says nothing either way. Commits."""
    address = addresses.normal(email)
    now = clock.now()
    found = db.session.scalars(
        select(Order)
        .where(
            func.lower(Order.email).in_(addresses.spellings(address)),
            Order.created_at >= now - timedelta(days=400),
        )
        .order_by(Order.id.desc())
        .limit(20)
    ).all()
    if found:
        links = [
            {
                "code": order.code,
                "title": order.event.title
                if order.event is not None and order.sells_tickets
                else order.lines[0].description,
                "url": urls.order(order),
            }
            for order in found
        ]
        # One such mail in a minute at most, however often the form is sent.
        key = f"links:{address}:{now:%Y-%m-%dT%H:%M}"
        outbox.stage("order_links", key=key, to=address, context={"links": links})
        db.session.commit()
        queue.soon("deliver_mail")
