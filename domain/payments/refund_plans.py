"""What a refund will do, told before it is done: how much goes to whom, which tickets stop and which stay.

The amount follows the tickets that are ticked, unless another one is typed. Only reads: `refunds.request`
decides under locks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from domain import money
from domain.errors import DomainError
from domain.payments import ledger_accounts
from domain.payments.refundable import own_tickets, refundable_minor, undecided_minor
from domain.providers import registry
from models import Order, Payment, Ticket, TicketState


@dataclass(frozen=True)
class Plan:
    """A refund that nobody has asked for yet. `ticked_minor` is what the ticked tickets cost."""

    payment: Payment
    amount_minor: int
    currency: str
    ticked_minor: int
    # What of the payment is left afterwards.
    left_minor: int
    stops: tuple[Ticket, ...]
    stays: tuple[Ticket, ...]
    to_wallet: bool
    # No call sends it: a person makes it at the bank, and records it.
    by_hand: bool
    # How many refunds the payment had when this was planned.
    before: int

    @property
    def token(self) -> str:
        """What was shown: another one, and it is shown again before anything is done.

        It counts the refunds so far, so that pressing the button twice sends nothing twice.
        """
        stops = ".".join(str(ticket.id) for ticket in self.stops)
        return f"{self.payment.id}:{self.before}:{self.amount_minor}:{stops}"


def plan(order: Order, payment: Payment, amount_minor: int | None, ticket_ids: Iterable[int]) -> Plan:
    """What sending `amount_minor` back does; None for what the ticked tickets cost.

    Raises DomainError in the words of `refunds.request`, or where nothing says how much.
    """
    if payment.received_minor is None:
        raise DomainError("not_paid", "This payment was not paid, so there is nothing to give back.")
    ids = sorted(set(ticket_ids))
    own_tickets(order, payment, ids, everything=False)
    left = refundable_minor(payment)
    ticked = sum(_price(order, ticket) for ticket in order.tickets if ticket.id in ids)
    if amount_minor is None and not ticked:
        raise DomainError(
            "no_amount", "Tick the tickets whose money goes back, or type an amount; nothing was sent."
        )
    # A ticket's price may be more than is left, where some of it went back before.
    amount = min(ticked, left) if amount_minor is None else amount_minor
    if not 0 < amount <= left:
        most = money.show(max(left, 0), payment.currency)
        raise DomainError("too_much", f"At most {most} can be given back.")
    everything = amount == left and not undecided_minor(payment)
    stop = set(own_tickets(order, payment, ids, everything=everything))
    before = len(payment.refunds)
    live = [ticket for ticket in order.tickets if ticket.state is not TicketState.VOID]
    provider = registry.get(payment.provider, payment.account)
    return Plan(
        payment=payment,
        amount_minor=amount,
        currency=payment.currency,
        ticked_minor=ticked,
        left_minor=left - amount,
        stops=tuple(ticket for ticket in live if ticket.id in stop),
        stays=tuple(ticket for ticket in live if ticket.id not in stop),
        to_wallet=provider.immediate and ledger_accounts.wallet_with(order, payment) is None,
        by_hand=not provider.can.refund,
        before=before,
    )


def _price(order: Order, ticket: Ticket) -> int:
    """What a ticket cost, in minor units."""
    return next(line.unit_minor for line in order.lines if line.id == ticket.order_line_id)
