"""What follows when a provider says of a refund that it was made, or that it failed after all.

The money in the ledger, the tickets and their places, what the buyer and the operator are told. Rows are
locked by the caller; nothing here commits.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from domain import clock, money, timeline
from domain.ledger import transfers
from domain.payments import fulfilment, incidents, ledger_accounts, own_end
from domain.payments.refund_matching import keeps_keys
from domain.payments.refundable import GONE, gone_minor, keep_sum, refundable_minor, undecided_minor
from domain.post import alerts, outbox
from domain.providers.contract import RefundReport
from domain.tickets import issuing
from extensions import db
from models import DisputeState, Order, OrderState, Payment, Refund, RefundState, TicketState

_OVER = (RefundState.FAILED, RefundState.CANCELLED)
# How often a pending refund is looked at.
AGAIN = timedelta(minutes=5)
AGAIN_LATER = timedelta(hours=6)
# Why a ticket is void or waits, as the door says it.
_REFUNDED = "refunded"
DISPUTED = "disputed"


def apply(refund: Refund, payment: Payment, order: Order, report: RefundReport, *, door: str) -> None:
    """Write what the provider says of a refund, and what follows. Rows locked by the caller; no commit."""
    refund.provider_id = report.provider_id or refund.provider_id
    refund.check_count += 1
    refund.leased_until = None
    before, after = refund.state, RefundState(report.state)
    refund.next_check_at = _next_check(refund, after)
    if after is before:
        return
    refund.state = after
    # Wallets before stock, as everywhere: what voids tickets comes after what moves money.
    if after is RefundState.SUCCEEDED:
        _succeeded(refund, payment, order)
    elif after in _OVER:
        failed(refund, payment, order, report.reason or f"Refund {after}.", door=door, before=before)
    if after in GONE and before not in GONE:
        _accepted(refund, payment, order, door=door)
    if before in _OVER:
        keep_sum(payment, told=True)
    look_at_sum(order, payment, door=door)
    order_state(order, payment)


def _next_check(refund: Refund, state: RefundState) -> datetime | None:
    """A pending refund is watched; one that succeeded may still fail, and is read once more after a day.

    One that has no key of ours there is read with its payment.
    """
    now = clock.now()
    if refund.made_at_provider:
        return None
    if state is RefundState.PENDING:
        return now + (AGAIN if refund.check_count < 6 else AGAIN_LATER)
    if not keeps_keys(refund.payment) or not own_end.able(refund.payment).refund:
        return None
    if state is RefundState.SUCCEEDED and now - refund.created_at < timedelta(days=1):
        return now + timedelta(days=1)
    return None


def _accepted(refund: Refund, payment: Payment, order: Order, *, door: str) -> None:
    """The money is on its way: the tickets it was paid for stop being valid now."""
    refund.accepted_at = payment.reversed_at = clock.now()
    timeline.note(
        order,
        "refund",
        f"Refund of {money.show(refund.amount_minor, refund.currency)} accepted by the provider.",
        door=door,
        payment=payment,
        actor_id=refund.actor_id,
    )
    outbox.stage(
        "refund",
        key=f"refund:{refund.id}",
        to=order.email,
        order=order,
        context={
            "amount_minor": refund.amount_minor,
            "currency": refund.currency,
            "refund_id": refund.id,
            "full": refundable_minor(payment) == 0,
            "made_at_provider": refund.made_at_provider,
        },
    )
    chosen = [ticket for ticket in order.tickets if ticket.id in refund.void_ticket_ids]
    fulfilment.take_back(order, chosen, _REFUNDED)
    fulfilment.fee_taken_back(order, payment, "The listing fee was refunded.", door=door)


def _succeeded(refund: Refund, payment: Payment, order: Order) -> None:
    refund.resolved_at = clock.now()
    transfers.post(
        key=f"refund:{refund.id}",
        debit=_from_account(refund, payment, order),
        credit=ledger_accounts.provider_side(payment),
        amount_minor=refund.amount_minor,
        currency=refund.currency,
        kind="refund",
        description=f"Refund {order.code}",
        order_id=order.id,
        payment_id=payment.id,
        provider_reference=refund.provider_id or "",
        may_overdraw=True,
    )


def _from_account(refund: Refund, payment: Payment, order: Order) -> str:
    """Where a refund's money comes from: ours was taken out of a wallet when it was asked for."""
    if not refund.made_at_provider and ledger_accounts.wallet_with(order, payment) is not None:
        return transfers.SUSPENSE
    return ledger_accounts.money_of(order, payment)


def failed(
    refund: Refund,
    payment: Payment,
    order: Order,
    why: str,
    *,
    door: str,
    before: RefundState = RefundState.CREATED,
) -> None:
    """The money stays here: put everything back that the refund had changed, and tell the operator."""
    refund.state = RefundState.FAILED if refund.state is not RefundState.CANCELLED else refund.state
    refund.failure_reason = why[:300]
    refund.resolved_at = clock.now()
    refund.next_check_at = None
    payment.reversed_at = refund.resolved_at
    keep_sum(payment, told=True)
    if before is RefundState.SUCCEEDED:
        transfers.post(
            key=f"refund:{refund.id}:failed",
            debit=ledger_accounts.provider_side(payment),
            credit=_from_account(refund, payment, order),
            amount_minor=refund.amount_minor,
            currency=refund.currency,
            kind="refund_failed",
            description=f"Failed refund {order.code}",
            order_id=order.id,
            payment_id=payment.id,
        )
    wallet = ledger_accounts.wallet_with(order, payment)
    to_wallet = wallet is not None and not refund.made_at_provider
    if wallet is not None and to_wallet:
        transfers.post(
            key=f"refund:{refund.id}:returned",
            debit=transfers.SUSPENSE,
            credit=wallet,
            amount_minor=refund.amount_minor,
            currency=refund.currency,
            kind="refund_failed",
            description=f"Refund of top-up {order.code} failed",
            order_id=order.id,
            payment_id=payment.id,
        )
    timeline.note(order, "refund_failed", why, door=door, payment=payment)
    outbox.alert(
        *alerts.refund_failed(order, refund.amount_minor, refund.currency, why),
        key=f"refund_failed:{refund.id}",
    )
    if wallet is None and not payment.fulfilled:
        returned = (refund.amount_minor, refund.currency, why)
        incidents.money_returned("refund_returned", order, payment, *returned, door=door)
    if before in GONE:
        _restore(refund, payment, order)
        fulfilment.fee_restored(order, payment, "The refund of the fee failed.", door=door)
        _correct(refund, order, to_wallet)
    # An entry gives its place back before its money is: what it had bought may be void already.
    look_at_goods(order, payment, door=door)


def _correct(refund: Refund, order: Order, to_wallet: bool) -> None:
    """The buyer was told that the money is on its way to them: it is not. What became of the tickets, too."""
    outbox.stage(
        "refund_failed",
        key=f"refund:{refund.id}:failed",
        to=order.email,
        order=order,
        context={
            "amount_minor": refund.amount_minor,
            "currency": refund.currency,
            "refund_id": refund.id,
            "to_wallet": to_wallet,
        },
    )


def _restore(refund: Refund, payment: Payment, order: Order) -> None:
    """The tickets become valid again where their places are still free; otherwise a person is told.

    While a bank disputes the payment they only wait; where it has taken the money for good they stay void,
    and so do those that another refund has paid back.
    """
    others = [other for other in payment.refunds if other is not refund and other.state in GONE]
    ours = set(refund.void_ticket_ids).difference(*(other.void_ticket_ids for other in others))
    void = [ticket for ticket in order.tickets if ticket.state is TicketState.VOID]
    voided = [ticket for ticket in void if ticket.id in ours and ticket.state_reason == _REFUNDED]
    disputes = {dispute.state for dispute in payment.disputes if dispute.has_money}
    if not voided or DisputeState.LOST in disputes:
        return
    try:
        with db.session.begin_nested():
            fulfilment.resell(voided)
            if DisputeState.OPEN in disputes:
                issuing.suspend(voided, DISPUTED)
            else:
                issuing.restore(voided)
    except fulfilment.SoldOut:
        subject, text = alerts.incident(
            order, incidents.KINDS["refund_failed"], refund.amount_minor, refund.currency
        )
        outbox.alert(subject, text, key=f"refund_unrestored:{refund.id}", critical=True)


def look_at_sum(order: Order, payment: Payment, *, door: str) -> None:
    """Where more went back of a payment than came, by refunds and by banks together, a person is told."""
    excess = gone_minor(payment) - (payment.received_minor or 0)
    if excess > 0:
        incidents.given_back_too_much(order, payment, excess, door=door)


def look_at_goods(order: Order, payment: Payment, *, door: str) -> None:
    """Where the tickets are all void and some of their money is here after all, a person decides about it."""
    left = refundable_minor(payment)
    void = all(ticket.state is TicketState.VOID for ticket in order.tickets)
    if payment.fulfilled and order.sells_tickets and void and left > 0:
        incidents.kept_without_goods(order, payment, left, door=door)


def order_state(order: Order, payment: Payment) -> None:
    """What the order's state says is derived from what went back of the payment that bought its goods.

    By refunds, and by disputes that were lost: an open one only makes its tickets wait.
    """
    if not payment.fulfilled:
        return
    gone = gone_minor(payment) - undecided_minor(payment)
    # What a person accepted for the goods may have been less than they cost.
    taken = payment.amount_minor if payment.received_minor is None else payment.received_minor
    if gone >= taken:
        order.state = OrderState.REFUNDED
    elif gone:
        order.state = OrderState.PARTIALLY_REFUNDED
    else:
        order.state = OrderState.COMPLETED
