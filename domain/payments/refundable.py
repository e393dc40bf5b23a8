"""What is left of a payment's money, and what of it is on its way back.

The rows are locked by the caller where anything is decided or written by them. Nothing here commits.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm.attributes import set_committed_value

from domain.errors import DomainError
from domain.payments import ledger_accounts
from extensions import db
from models import DisputeState, Order, Payment, Refund, RefundState, TicketState

# Intents whose outcome is not known yet, and money that is gone or going.
UNRESOLVED = (RefundState.CREATED, RefundState.PENDING)
COUNTED = (*UNRESOLVED, RefundState.SUCCEEDED, RefundState.REVIEW)
# Accepted by the provider.
GONE = (RefundState.PENDING, RefundState.SUCCEEDED)
_OVER = (RefundState.FAILED, RefundState.CANCELLED)


def refundable_minor(payment: Payment) -> int:
    """What is left of a payment, in minor units: without refunds that may yet succeed, and disputed money.

    An inquiry has taken nothing yet, and a refund is how it is answered. Below zero where more went back than
    came, which only a provider can do.
    """
    taken = payment.amount_minor if payment.received_minor is None else payment.received_minor
    disputed = sum(dispute.amount_minor for dispute in payment.disputes if dispute.has_money)
    return taken - disputed - sum(r.amount_minor for r in payment.refunds if r.state in COUNTED)


def in_all_minor(payment: Payment, amount_minor: int) -> int:
    """What will have been asked back of a payment with so much more: sums in pieces are one sum."""
    return amount_minor + sum(refund.amount_minor for refund in payment.refunds if refund.state in COUNTED)


def gone_minor(payment: Payment) -> int:
    """What went back of a payment by its provider's word: by refunds, and to banks for now or for good."""
    disputed = sum(dispute.amount_minor for dispute in payment.disputes if dispute.has_money)
    return disputed + sum(refund.amount_minor for refund in payment.refunds if refund.state in GONE)


def undecided_minor(payment: Payment) -> int:
    """What banks have of a payment for as long as its disputes are open: it may come back."""
    opened = (d for d in payment.disputes if d.has_money and d.state is DisputeState.OPEN)
    return sum(dispute.amount_minor for dispute in opened)


def is_gone(payment: Payment) -> bool:
    """Whether some of the money of a payment without goods was sent back, taken by a bank, or credited."""
    disputed = any(dispute.has_money for dispute in payment.disputes)
    credited = ledger_accounts.wallet_with(payment.order, payment) is not None
    return disputed or credited or refundable_minor(payment) < (payment.received_minor or 0)


def keep_sum(payment: Payment, *, told: bool) -> None:
    """Write down anew what we asked back of a payment, for the constraint that it never exceeds what came.

    `told`: it follows what the provider says has happened, which is written down whatever it is. Without it,
    the database refuses too much, and with it the refund that was about to be asked for.
    """
    db.session.flush()
    asked: ColumnElement[int] = (
        select(func.coalesce(func.sum(Refund.amount_minor), 0))
        .where(Refund.payment_id == payment.id, ~Refund.made_at_provider, Refund.state.not_in(_OVER))
        .scalar_subquery()
    )
    if told:
        asked = func.least(asked, func.coalesce(Payment.received_minor, 0))
    change = update(Payment).where(Payment.id == payment.id).values(asked_back_minor=asked)
    kept = db.session.execute(
        change.returning(Payment.asked_back_minor).execution_options(synchronize_session=False)
    ).scalar_one()
    set_committed_value(payment, "asked_back_minor", kept)


def own_tickets(order: Order, payment: Payment, ids: list[int], *, everything: bool) -> list[int]:
    """The tickets to void: those asked for, or all of them where nothing of their payment is left."""
    if not payment.fulfilled:
        return []
    own = {ticket.id for ticket in order.tickets if ticket.state is not TicketState.VOID}
    if set(ids) - own:
        raise DomainError("not_its_ticket", "One of these tickets is not of this order, or is void already.")
    return sorted(own) if everything else ids
