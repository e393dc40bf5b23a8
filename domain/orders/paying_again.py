"""Paying for an order that failed, expired or was cancelled, by the rules and at the price of today.

An order keeps what it was made at, because what is still under way for it may arrive at that price. So an
order whose tickets cost something else today is not changed: whoever agrees to the new price orders anew.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from domain import money, timeline
from domain.catalogue import prices
from domain.errors import DomainError
from domain.orders import entries, managing, placing, still_payable
from domain.payments import fulfilment, starting
from extensions import db
from models import Order, OrderState, Payment

_CLOSED = (OrderState.FAILED, OrderState.EXPIRED, OrderState.CANCELLED)


@dataclass(frozen=True)
class Offer:
    """What a closed order's page offers: `tag` is its price as the form carries it.

    `problem` says why it cannot be paid again, and `changes` what costs something else now; both may be "".
    """

    total_minor: int
    tag: str
    changes: str = ""
    problem: str = ""


def offer(order: Order) -> Offer:
    """How a closed order of tickets can be paid again now, in its buyer's words."""
    total = _total(order)
    found = prices.changes(order)
    return Offer(
        total,
        prices.tag(total, order.currency),
        prices.say(found, order.currency) if found else "",
        _problem(order),
    )


def pay(
    order_id: int, provider_name: str, *, payer_id: int | None, shown: str = "", method: str = ""
) -> tuple[Order, Payment | None]:
    """Pay for a closed order again, or for an open one in another way. Commits.

    Gives the order that is paid for, with its payment at the provider; `method` is one of the provider's.

    Where its tickets cost something else now, `shown` must be what they cost together, as the page's form
    carries it; then it is a new order at that price. Raises PriceChanged otherwise, and nothing is taken.
    """
    order = db.session.get_one(Order, order_id)
    if order.state in _CLOSED and prices.changes(order):
        still_payable.check_payer(order, provider_name, payer_id)
        order = _anew(order, provider_name, shown)
        return order, starting.open_at_provider(order, door="order_page")
    if order.state in _CLOSED:
        at_once = prices.paid_at_once(provider_name)
        prices.check_one(order.total_minor, order.currency, shown, at_once=at_once)
    payment = managing.pay_again(order_id, provider_name, payer_id=payer_id, method=method)
    return db.session.get_one(Order, order_id), payment


def _anew(order: Order, provider_name: str, shown: str) -> Order:
    """A new order of the same tickets for the same buyer at today's price, which they were shown."""
    total, event = _total(order), order.event
    if event is None or shown != prices.tag(total, order.currency):
        words = prices.say(prices.changes(order), order.currency)
        raise prices.PriceChanged(
            "price_changed",
            f"The price has changed since you ordered: {words}. Nothing was charged. If {_say(total, order)} "
            "is all right, order again below.",
        )
    # Who presses twice gets one order; who agrees to another price later gets another.
    said = f"again:{order.id}:{shown}"
    token, provider = hashlib.sha256(said.encode()).hexdigest(), provider_name or None
    if order.is_entry:
        new = entries.enter_anew(order, provider=provider, form_token=token, shown=shown)
    else:
        new = placing.place(
            event,
            fulfilment.stock_of(order),
            name=order.name,
            email=order.email,
            user=order.user,
            provider=provider,
            form_token=token,
            client_address=order.client_address,
            shown={t.id: prices.tag(t.price_minor, event.currency) for t in event.ticket_types},
        )
    words = f"Ordered again at another price: {new.code}."
    if not any(entry.text == words for entry in order.timeline):
        timeline.note(order, "ordered_again", words, door="order_page")
        db.session.commit()
    return new


def _problem(order: Order) -> str:
    """Why no attempt to pay it can succeed now, as far as that is known before; "" where it may."""
    try:
        still_payable.check_sellable(order)
    except DomainError as error:
        return error.message
    return ""


def _total(order: Order) -> int:
    """What the order's lines cost together today, in minor units."""
    return sum(
        line.quantity * (line.unit_minor if line.ticket_type is None else line.ticket_type.price_minor)
        for line in order.lines
    )


def _say(total_minor: int, order: Order) -> str:
    return money.show(total_minor, order.currency) if total_minor else "nothing to pay"
