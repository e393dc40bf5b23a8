"""Goods: keeping stock for an order, giving it back, and handing over what was paid for, exactly once.

Every function works inside the caller's transaction, with the order's row locked, and changes stock last.
None commits.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Any

from sqlalchemy import ARRAY, Integer, Update, bindparam, column, func, select, update

from domain import audit, clock, timeline
from domain.errors import DomainError
from domain.ledger import transfers
from domain.post import alerts, budgets, outbox
from domain.tickets import issuing
from extensions import db
from models import (
    AuditArea,
    Deed,
    Event,
    EventState,
    LineKind,
    Order,
    OrderLine,
    OrderState,
    Payment,
    RefundState,
    StockState,
    Ticket,
    TicketState,
    TicketType,
)


class SoldOut(DomainError):
    """The stock does not have what was asked for; nothing was taken."""


def stock_of(order: Order) -> dict[int, int]:
    """How many of each ticket type the order is about."""
    wanted: Counter[int] = Counter()
    for line in order.lines:
        if line.ticket_type_id is not None:
            wanted[line.ticket_type_id] += line.quantity
    return dict(wanted)


def hold(order: Order) -> None:
    """Keep stock for an unpaid order. SoldOut when any of it is gone."""
    wanted = stock_of(order)
    if not wanted:
        return
    _claim(wanted, held=1, sold=0)
    order.stock_state = StockState.HELD


def release(order: Order) -> None:
    """Give back what an unpaid order kept."""
    if order.stock_state is not StockState.HELD:
        return
    order.stock_state = StockState.RELEASED
    db.session.flush()
    _move(stock_of(order), held=-1, sold=0)


def sell(order: Order) -> None:
    """Turn what is held into sold; claim it anew where the hold is gone. SoldOut when it is too late."""
    wanted = stock_of(order)
    if not wanted:
        return
    held_before = order.stock_state is StockState.HELD
    order.stock_state = StockState.SOLD
    db.session.flush()
    if held_before:
        _move(wanted, held=-1, sold=1)
    else:
        _claim(wanted, held=0, sold=1)


def unsell(some: list[Ticket]) -> None:
    """Give back the stock of tickets that were voided."""
    counts = Counter(ticket.ticket_type_id for ticket in some)
    if counts:
        db.session.flush()
        _move(dict(counts), held=0, sold=-1)


def resell(some: list[Ticket]) -> None:
    """Take the stock of voided tickets again. SoldOut when others have it by now."""
    counts = Counter(ticket.ticket_type_id for ticket in some)
    if counts:
        _claim(dict(counts), held=0, sold=1)


def _claim(wanted: dict[int, int], *, held: int, sold: int) -> None:
    """Take stock where there is enough of every type, in one conditional UPDATE."""
    db.session.flush()
    got = _move(wanted, held=held, sold=sold, only_if_free=True)
    if got != len(wanted):
        raise SoldOut("sold_out", "Somebody was faster: there are not enough left. Nothing was charged.")


def _move(wanted: dict[int, int], *, held: int, sold: int, only_if_free: bool = False) -> int:
    """Add `held` and `sold` times the wanted quantities; how many rows that changed."""
    ordered = sorted(wanted.items())
    numbers = {
        "ids": [type_id for type_id, _ in ordered],
        "quantities": [quantity for _, quantity in ordered],
        "held_by": held,
        "sold_by": sold,
    }
    if len(wanted) > 1:
        return len(db.session.execute(_TAKE_SEVERAL if only_if_free else _CHANGE_SEVERAL, numbers).all())
    return len(db.session.execute(_TAKE if only_if_free else _CHANGE, numbers).all())


# Made once: arrays as parameters keep the statement the same however many types an order has.
_UNNESTED = (
    func.unnest(bindparam("ids", type_=ARRAY(Integer)), bindparam("quantities", type_=ARRAY(Integer)))
    .table_valued(column("id", Integer), column("quantity", Integer), name="unnested")
    .render_derived()
)
# An UPDATE alone meets its rows as they lie in the table, where every sale moves them about: two orders of
# the same two types could wait for each other. So several are locked by id first, in the same round trip.
_BY_ID = (
    select(TicketType.id, _UNNESTED.c.quantity)
    .join(_UNNESTED, _UNNESTED.c.id == TicketType.id)
    .order_by(TicketType.id)
    .with_for_update(key_share=True, of=TicketType)
    .cte("wanted")
)


def _moving(wanted: Any) -> Update:
    """The UPDATE that adds to what is held and sold, by the rows of `wanted`."""
    return (
        update(TicketType)
        .where(TicketType.id == wanted.c.id)
        .values(
            held=TicketType.held + bindparam("held_by", type_=Integer) * wanted.c.quantity,
            sold=TicketType.sold + bindparam("sold_by", type_=Integer) * wanted.c.quantity,
        )
        .returning(TicketType.id)
        .execution_options(synchronize_session=False)
    )


def _if_free(wanted: Any) -> Update:
    """The same, of those types that have as many left."""
    left = TicketType.sold + TicketType.held + wanted.c.quantity <= TicketType.capacity
    return _moving(wanted).where(left)


_CHANGE, _TAKE = _moving(_UNNESTED), _if_free(_UNNESTED)
_CHANGE_SEVERAL, _TAKE_SEVERAL = _moving(_BY_ID), _if_free(_BY_ID)


class FeeNotNeeded(DomainError):
    """The event of a listing fee does not wait for one; nothing was changed."""


def why_not(order: Order, paid_at: datetime) -> str:
    """Why money that was paid at `paid_at` buys nothing of its event, as an incident's kind; or ""."""
    if order.event is None:
        return ""
    if order.event.state is EventState.CANCELLED:
        return "event_cancelled"
    # Who pays when it is over has a worthless ticket. Money that was only heard of late was paid in time.
    return "event_over" if paid_at >= order.event.ends_at else ""


def fulfil(
    order: Order, payment: Payment | None, *, door: str, source: str | None, actor_id: int | None
) -> None:
    """Hand over what the order is for. `source` is the ledger account that the money comes from.

    Raises SoldOut when the stock is gone; the caller's savepoint then undoes everything.
    """
    now = clock.now()
    if payment is not None:
        payment.fulfilled = True
    order.state = OrderState.COMPLETED
    order.completed_at = now
    order.failure_reason = order.failure_code = ""
    issued = issuing.issue(order) if order.sells_tickets else []
    if source is not None and payment is not None:
        _post(order, payment, source)
    timeline.note(order, "fulfilled", _words(order, issued), door=door, payment=payment, actor_id=actor_id)
    kind = "tickets" if issued else "listing_live" if order.is_listing_fee else "top_up"
    # Money proves enough; what is free, anybody can have sent to anybody.
    stranger = payment is None and not order.total_minor and budgets.by_stranger(order)
    outbox.stage(kind, key=f"order:{order.id}:fulfilled", to=order.email, order=order, unproven=stranger)
    if order.is_listing_fee:
        _publish(order)
    sell(order)


def _publish(order: Order) -> None:
    """The event goes on sale for its fee. FeeNotNeeded where it does not wait for one (any more)."""
    fees = Order.lines.any(OrderLine.kind == LineKind.LISTING_FEE)
    paid_before = select(Order.id).where(
        Order.event_id == order.event_id, Order.id != order.id, Order.state == OrderState.COMPLETED, fees
    )
    moved = _move_event(order, EventState.DRAFT, EventState.PUBLISHED)
    if not moved or db.session.scalar(paid_before.limit(1)) is not None:
        raise FeeNotNeeded(
            "fee_not_needed",
            "The event does not wait for a fee: it was paid or waived before, or the event is not a draft "
            "any more. Send this one back, credit it to the wallet, or dismiss it.",
        )


def _post(order: Order, payment: Payment, source: str) -> None:
    """One transfer for each kind of line: to whom the money belongs now."""
    totals: Counter[LineKind] = Counter()
    for line in order.lines:
        totals[line.kind] += line.total_minor
    for kind, amount in sorted(totals.items()):
        if amount:
            transfers.post(
                key=f"payment:{payment.id}:{kind.value}",
                debit=source,
                credit=account_for(order, kind, payment),
                amount_minor=amount,
                currency=order.currency,
                kind="top_up" if kind is LineKind.TOP_UP else "sale",
                description=_description(order, kind),
                order_id=order.id,
                payment_id=payment.id,
                provider_reference=payment.provider_id or "",
            )


def account_for(order: Order, kind: LineKind, payment: Payment) -> str:
    """The ledger account that a line's money goes to: whose sale it is, or whom the house owes it."""
    if kind is LineKind.TOP_UP:
        if order.user_id is None:
            raise DomainError("no_wallet", "A top-up needs a member's wallet.")
        return transfers.wallet_account(order.user_id)
    if kind is LineKind.LISTING_FEE:
        return transfers.PLATFORM
    if payment.owed_to_id is not None:
        return transfers.owed_account(payment.owed_to_id)
    return transfers.sales_account(order.event.organiser_id if order.event is not None else None)


def _description(order: Order, kind: LineKind) -> str:
    if kind is LineKind.TOP_UP:
        return f"Wallet top-up {order.code}"
    if kind is LineKind.LISTING_FEE:
        return f"{order.lines[0].description} ({order.code})"
    return f"{order.event.title if order.event is not None else order.lines[0].description} ({order.code})"


def _words(order: Order, issued: list[Ticket]) -> str:
    if issued:
        return f"{len(issued)} ticket{'s' if len(issued) != 1 else ''} issued."
    return ", ".join(line.description for line in order.lines) + " handed over."


def fee_taken_back(order: Order, payment: Payment, what: str, *, door: str) -> None:
    """A listing fee that was handed over for went back, or may: its event goes off sale, a person decides."""
    if not (order.is_listing_fee and payment.fulfilled):
        return
    if not _move_event(order, EventState.PUBLISHED, EventState.REVIEW):
        return
    timeline.note(order, "listing_review", f"{what} The event is off sale.", door=door, payment=payment)
    key = f"listing-review:{order.id}:{len(order.timeline)}"
    outbox.alert(*alerts.listing_review(order, what), key=key)
    outbox.stage("listing_review", key=f"{key}:mail", to=order.email, order=order, context={"what": what})


def fee_restored(order: Order, payment: Payment, what: str, *, door: str) -> None:
    """The fee is here after all: its event is on sale again, unless a person has decided otherwise."""
    gone = any(refund.state in (RefundState.PENDING, RefundState.SUCCEEDED) for refund in payment.refunds)
    gone = gone or any(dispute.has_money for dispute in payment.disputes)
    if gone or not (order.is_listing_fee and payment.fulfilled):
        return
    if _move_event(order, EventState.REVIEW, EventState.PUBLISHED):
        words = f"{what} The event is on sale again."
        timeline.note(order, "listing_review", words, door=door, payment=payment)
        tell_decided(order, EventState.PUBLISHED)


def tell_decided(order: Order, state: EventState) -> None:
    """Owe the organiser the mail that the event left review: published again, or cancelled. No commit."""
    key = f"listing-decided:{order.id}:{len(order.timeline)}"
    outbox.stage("listing_decided", key=key, to=order.email, order=order, context={"state": state.value})


def _move_event(order: Order, before: EventState, after: EventState) -> bool:
    """Change the state of the order's event from `before`; False where it is in another one by now."""
    moved = db.session.scalar(
        update(Event)
        .where(Event.id == order.event_id, Event.state == before)
        .values(state=after, updated_at=clock.now())
        .returning(Event.id)
        .execution_options(synchronize_session=False)
    )
    if order.event is not None:
        db.session.expire(order.event, ["state"])
    if moved is not None:
        label = order.event.title if order.event is not None else ""
        changes = [("state", before, after)]
        audit.note(AuditArea.EVENT, Deed.CHANGED, "event", moved, label=label, changes=changes)
    return moved is not None


def take_back(order: Order, some: list[Ticket], reason: str) -> None:
    """Void tickets and give their stock back."""
    live = [ticket for ticket in some if ticket.state is not TicketState.VOID]
    issuing.void(live, reason)
    unsell(live)
