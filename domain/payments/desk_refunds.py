"""What a desk may send back: so much of an order, and so much in a day; nothing by default.

Both sums are the operator's settings, in CURRENCY. Several refunds add up, whoever at a desk asked for them
where it is one order's, and all of one person's where it is a day's; what failed does not count.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from sqlalchemy import func, select, text

import config
from domain import clock, money
from domain.errors import DomainError
from domain.payments.refund_plans import Plan
from extensions import db
from models import Order, Payment, Refund, RefundState, TicketState

DAY = timedelta(hours=24)
_UNDONE = (RefundState.FAILED, RefundState.CANCELLED)
# One person's refunds take turns, so that two of them at once do not each see a day without the other.
_TURN = 0x6B640000


def allowed() -> bool:
    """Whether the operator lets a desk send anything back at all."""
    settings = config.get()
    return min(settings.desk_refund_per_order, settings.desk_refund_per_day) > 0


def check(order: Order, amount_minor: int, actor_id: int) -> None:
    """Refuse what is above either sum. DomainError in words.

    Where it counts, the caller has locked the order and its payment: whoever waits here for their turn holds
    nothing that another one needs who has it.
    """
    settings = config.get()
    if not allowed():
        raise DomainError("desk_refunds_off", f"Refunds are not made at the desk here. {_ask()}")
    if order.currency != settings.currency:
        raise DomainError(
            "desk_currency", f"At the desk only money in {settings.currency} is sent back. {_ask()}"
        )
    _take_turn(actor_id)
    sums = (
        ("of one order", settings.desk_refund_per_order, _of_order(order)),
        ("in 24 hours", settings.desk_refund_per_day, _of_day(actor_id, order.currency)),
    )
    for what, most, before in sums:
        left = _minor(most, order.currency) - before
        if amount_minor > left:
            shown = money.show(_minor(most, order.currency), order.currency)
            rest = money.show(max(left, 0), order.currency)
            raise DomainError(
                "desk_limit",
                f"At the desk at most {shown} {what} may be sent back, and {rest} of that is left. {_ask()}",
            )


def check_stops(order: Order, plan: Plan) -> None:
    """Refuse to stop tickets for less than they cost: a cent would end any number of them. DomainError."""
    stopping = {ticket.id for ticket in plan.stops}
    prices = {line.id: line.unit_minor for line in order.lines}
    stopped = sum(
        prices[ticket.order_line_id]
        for ticket in order.tickets
        if ticket.state is TicketState.VOID or ticket.id in stopping
    )
    if stopping and stopped > plan.payment.asked_back_minor + plan.amount_minor:
        raise DomainError(
            "desk_stops", f"At the desk a ticket stops only when all of its price goes back. {_ask()}"
        )


def _take_turn(actor_id: int) -> None:
    db.session.execute(text("SELECT pg_advisory_xact_lock(:of, :who)"), {"of": _TURN, "who": actor_id})


def _ask() -> str:
    return "Note the buyer’s wish on the order, and ask the organiser or an admin."


def _minor(amount: Decimal, currency: str) -> int:
    """The setting in minor units: refused at the start where it has too many decimals for its currency."""
    return money.parse(f"{amount:f}", currency)


def _of_order(order: Order) -> int:
    payments = select(Payment.id).where(Payment.order_id == order.id)
    query = select(func.coalesce(func.sum(Refund.amount_minor), 0)).where(
        Refund.at_desk, Refund.payment_id.in_(payments), Refund.state.not_in(_UNDONE)
    )
    return int(db.session.scalar(query) or 0)


def _of_day(actor_id: int, currency: str) -> int:
    query = select(func.coalesce(func.sum(Refund.amount_minor), 0)).where(
        Refund.at_desk,
        Refund.actor_id == actor_id,
        Refund.created_at > clock.now() - DAY,
        Refund.currency == currency,
        Refund.state.not_in(_UNDONE),
    )
    return int(db.session.scalar(query) or 0)
