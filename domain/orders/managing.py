"""Finding an order by its code, and what its buyer, its organiser or staff may do with it afterwards."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from datetime import timedelta

from sqlalchemy import bindparam, select
from sqlalchemy.orm import joinedload, selectinload

import config
from domain import addresses, clock, locks, marks, names, timeline
from domain.errors import DomainError, NotFound
from domain.orders import line_switch, still_payable, waiting_line
from domain.payments import creating, fulfilment, own_end, reconciling, replacements, starting
from domain.post import budgets, mail_requests, outbox
from domain.providers import registry
from extensions import db, queue
from models import (
    PAYMENT_ACTIVE,
    Event,
    Order,
    OrderLine,
    OrderState,
    Payment,
    PaymentState,
    TicketState,
    TimelineEntry,
)

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


def cancel(
    order: Order, *, door: str, actor_id: int | None = None, replaced: bool = False, told: bool = False
) -> Order:
    """Close the order's payment at the provider and give its tickets back. Commits. Paid in between wins.

    Where the provider does not confirm it, DomainError says so, and the sweep goes on until it does; where it
    cannot be closed there, that is `not_closable`, and nothing was done. Its buyer is mailed that it ended,
    unless they have just done it on the page, another order has `replaced` this one, or they are `told` of it
    in another mail.
    """
    order_id = order.id
    if order.state not in _PAYABLE:
        raise DomainError("not_cancellable", "This order cannot be cancelled any more.")
    payment = reconciling.active(order)
    if payment is not None:
        own_end.check_may_end(payment)
        payment_id = payment.id
        locks.in_one_transaction(lambda: _remember_cancel(payment_id, door, actor_id, replaced))
        quietly = replaced or told or door == "order_page"
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
    order_id: int,
    provider_name: str,
    *,
    payer_id: int | None,
    door: str = "order_page",
    method: str = "",
    return_url: str = "",
) -> Payment | None:
    """A new attempt to pay an order that failed, expired or was cancelled; or the one that is open.

    `payer_id` is the member who is logged in. An order that was given up is paid by the rules and at the
    price of today, or not at all: see `domain/orders/paying_again.py`. `method` is one of the provider's; ""
    is its first, and whichever is open already. `return_url` is where a new attempt's buyer is sent back to.
    """
    return attempt(
        order_id, provider_name, payer_id=payer_id, door=door, method=method, return_url=return_url
    )[0]


def attempt(
    order_id: int,
    provider_name: str,
    *,
    payer_id: int | None,
    door: str,
    method: str = "",
    return_url: str = "",
) -> tuple[Payment | None, bool]:
    """The same, and whether it was this call that began the payment: of many at once one does."""
    order = db.session.get_one(Order, order_id)
    still_payable.check_payer(order, provider_name, payer_id)
    if method and method not in registry.get(provider_name).methods:
        raise DomainError("unknown_method", "There is no such way to pay. Choose another one.")
    current = reconciling.active(order)
    # Who only changes the way to pay has the hold still, and with it the price of the day they ordered.
    held = current is not None
    closed = False
    if current is not None and (current.provider != provider_name or method not in ("", current.method)):
        own_end.check_may_end(current)
        replacements.begin(current.id)
        closed = reconciling.reconcile(current.id, door=door, closing=True, quietly=True).changed
    elif current is not None and current.cancel_asked_at is not None:
        raise DomainError("cancelling", _CANCELLING)
    elif current is not None and (current.awaits_buyer or current.state is not PaymentState.CREATED):
        still_payable.check_not_cancelled(order)
        still_payable.check_entry(order)
        if current.state is not PaymentState.CREATED:
            return current, False
    begun = False

    def work() -> Order:
        nonlocal begun
        order = locks.order(order_id)
        db.session.expire(order, ["payments"])
        begun = reconciling.active(order) is None
        if begun:
            if order.state not in _CLOSED:
                raise DomainError("not_payable", "This order does not need another payment.")
            still_payable.check_still_on_sale(order)
            if not held:
                still_payable.check_as_new(order)
                _count_again(order)
            fresh = creating.prepare(order, provider_name, method=method, return_url=return_url)
            waiting_line.keep_no_longer(order, fresh)
            order.state = OrderState.PENDING
            order.failure_reason = order.failure_code = ""
            timeline.note(order, "retry", "The buyer tries again.", door=door)
            fulfilment.hold(order)
        return order

    # Of an end that was there before, the buyer knows: they made it on this page, or were mailed.
    with replacements.taking_over(order_id if closed else None):
        ready = locks.in_one_transaction(work)
    if begun and ready.event is not None and line_switch.is_watched(ready.event):
        line_switch.watch(ready.event)
    return starting.open_at_provider(ready, door=door), begun


def _count_again(order: Order) -> None:
    """What is kept anew counts as an order: else one order keeps tickets for nothing, again and again."""
    counts = order.sells_tickets and config.get().limits and order.client_address
    if counts and not budgets.order_is_within(order.email, order.client_address):
        raise DomainError(
            "too_many_orders",
            "That was very often for one e-mail address. Wait an hour before you order again.",
        )


def correct_email(order: Order, email: str) -> None:
    """Send the order's mails to another address, until it is paid. Commits and mails the link there."""
    address = addresses.normal(email)

    def work() -> None:
        locked = locks.order(order.id)
        if locked.state not in (*_PAYABLE, *_CLOSED):
            sent = ("The tickets are", "The code for the door is")[locked.is_entry]
            raise DomainError(
                "too_late",
                f"{sent} sent already. Write to {config.get().support_email} to change the address.",
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
        # Once for each address; the key is there for longer than the address may be.
        key = f"order:{locked.id}:received:{marks.of(address, 'corrected')}"
        stranger = budgets.by_stranger(locked)
        outbox.stage("order_received", key=key, to=address, order=locked, unproven=stranger)

    locks.in_one_transaction(work)
    queue.soon("deliver_mail")


def resend(order: Order, *, door: str, actor_id: int | None = None) -> None:
    """Owe the buyer the tickets' mail once more. Commits."""

    def work() -> None:
        locked = locks.order(order.id)
        if not locked.tickets:
            what = ("no tickets", "no code for the door")[locked.is_entry]
            raise DomainError("no_tickets", f"This order has {what} to send.")
        before = [entry for entry in locked.timeline if entry.what == "resent"]
        _refuse_often(before, door)
        key = f"order:{locked.id}:fulfilled:{len(before) + 1}"
        # What was paid for is proof enough, and the house knows what it does. An organiser's guest is whoever
        # they have typed.
        stranger = door not in _OF_THE_HOUSE and not locked.total_minor and budgets.by_stranger(locked)
        outbox.stage("tickets", key=key, to=locked.email, order=locked, unproven=stranger)
        timeline.note(
            locked,
            "resent",
            f"Tickets sent again to {addresses.shown(locked.email)}.",
            door=door,
            actor_id=actor_id,
        )

    locks.in_one_transaction(work)
    queue.soon("deliver_mail")


_OF_THE_HOUSE = ("admin", "desk")
# So often in a day; a buyer's own page counts by the hour, and an admin knows why.
MOST_RESENT = 10
_COUNTED = ("desk", "organiser", "organiser_desk")


def _refuse_often(before: Iterable[TimelineEntry], door: str) -> None:
    since = clock.now() - timedelta(days=1)
    if door in _COUNTED and sum(1 for entry in before if entry.at > since) >= MOST_RESENT:
        raise DomainError(
            "resent_often",
            f"These tickets were sent {MOST_RESENT} times within a day. Ask the buyer to look in the spam "
            "folder, and whether the address is right.",
        )


MOST_NOTED = 1000


def remark(order: Order, text: str, *, door: str, actor_id: int) -> None:
    """Keep what somebody says of an order on its timeline, for whoever answers its buyer next. Commits."""
    words = names.plain(text)
    if not words:
        raise DomainError("note_missing", "Type what is to be noted.")
    if len(words) > MOST_NOTED:
        raise DomainError("note_too_long", f"That note is too long: at most {MOST_NOTED:,} characters.")
    timeline.note(order, "noted", words, door=door, actor_id=actor_id)
    db.session.commit()


def withdraw(
    order: Order,
    ticket_ids: Iterable[int],
    *,
    reason: str,
    door: str,
    actor_id: int,
    keeps_money: bool = False,
) -> int:
    """Void tickets that cost nothing, such as a guest's, and give their stock back. Commits; how many.

    Tickets that were paid for are voided by a refund, but where it was agreed that the money is kept.
    """
    chosen = set(ticket_ids)

    def work() -> int:
        locked = locks.order(order.id)
        if locked.total_minor and not keeps_money:
            raise DomainError("paid_for", "These tickets were paid for: refund them instead.")
        some = [t for t in locked.tickets if t.id in chosen and t.state is not TicketState.VOID]
        if not some:
            raise DomainError("no_tickets", "Choose the tickets that stop being valid.")
        fulfilment.take_back(locked, some, reason)
        words = f"{len(some)} ticket{'s' if len(some) != 1 else ''} withdrawn: {reason}"
        timeline.note(locked, "withdrawn", words, door=door, actor_id=actor_id)
        tell_withdrawn(locked)
        return len(some)

    number = locks.in_one_transaction(work)
    queue.soon("deliver_mail")
    return number


def tell_withdrawn(order: Order) -> None:
    """Owe whoever entered an athlete the mail that the entry is withdrawn, once. No commit."""
    if order.is_entry:
        outbox.stage("entry_withdrawn", key=f"order:{order.id}:withdrawn", to=order.email, order=order)


def mail_links(email: str) -> None:
    """Ask for the mail of the links to an address's recent orders, if there are any. Commits.

    Says nothing either way, and does nothing here that depends on it.
    """
    mail_requests.ask(mail_requests.LINKS, email)
    db.session.commit()
    queue.soon("deliver_mail")
