"""What a provider tells of a paid payment: refunds made there, and disputes.

A dispute is a buyer's bank that takes the money back, or tries to. The tickets wait until it is decided.
"""

from __future__ import annotations

from datetime import timedelta

from domain import (
    alerts,
    clock,
    fulfilment,
    incidents,
    ledger,
    money,
    outbox,
    pockets,
    polling,
    refunds,
    tickets,
    timeline,
)
from domain.providers import DisputeReport, RefundReport, Report
from extensions import db
from models import Dispute, DisputeState, Order, Payment, Refund, RefundState, Ticket, TicketState


def mirror(order: Order, payment: Payment, report: Report, *, door: str) -> None:
    """Take over the refunds and disputes of a report. Rows locked by the caller; no commit."""
    for told in report.refunds if refunds.keeps_keys(payment) or _sum_is_clear(payment, report) else ():
        known = _known(payment, told)
        if known is None:
            known = _made_at_provider(order, payment, told)
            if payment.next_check_at is None:
                # It has no key of ours to be followed up by: only its payment's reading tells how it ends.
                payment.next_check_at = clock.now() + timedelta(days=1)
        if known.state is not RefundState.REVIEW or told.state != "pending":
            refunds.apply(known, payment, order, told, door=door)
    for claim in report.disputes:
        _dispute(order, payment, claim, door=door)
    if report.incomplete:
        polling.read_soon(payment)


def _known(payment: Payment, told: RefundReport) -> Refund | None:
    """Our row of a refund: by its id or our key; else, without keys, one of ours that lacks the id still."""
    for refund in payment.refunds:
        if told.provider_id == refund.provider_id or told.our_key == refund.idempotency_key:
            return refund
    if refunds.keeps_keys(payment):
        return None
    over = (RefundState.FAILED, RefundState.CANCELLED)
    nameless = (r for r in payment.refunds if r.provider_id is None and r.state not in over)
    return next((r for r in nameless if r.amount_minor == told.amount_minor), None)


def _sum_is_clear(payment: Payment, report: Report) -> bool:
    """Whether the report's refunds say what became of ours whose answer was lost; else it is followed up."""
    asked = next(
        (r for r in payment.refunds if r.state in refunds.UNRESOLVED and not r.made_at_provider), None
    )
    if asked is None:
        return True
    gone = sum(told.amount_minor for told in report.refunds if told.state in ("pending", "succeeded"))
    return gone == asked.refunded_before_minor + asked.amount_minor


def _made_at_provider(order: Order, payment: Payment, told: RefundReport) -> Refund:
    """A refund made in the provider's dashboard. Tickets are voided when it gives back all that is left."""
    everything = told.amount_minor >= refunds.refundable_minor(payment)
    refund = Refund(
        payment=payment,
        amount_minor=told.amount_minor,
        currency=told.currency,
        state=RefundState.CREATED,
        idempotency_key=f"provider-{told.provider_id}"[:100],
        made_at_provider=True,
        reason="Made at the provider",
        void_ticket_ids=refunds.own_tickets(order, payment, [], everything=everything) if everything else [],
        created_at=clock.now(),
    )
    db.session.add(refund)
    db.session.flush()
    return refund


def _dispute(order: Order, payment: Payment, claim: DisputeReport, *, door: str) -> None:
    known = next((d for d in payment.disputes if d.provider_id == claim.provider_id), None)
    if known is None:
        known = Dispute(
            payment=payment,
            provider_id=claim.provider_id,
            amount_minor=claim.amount_minor,
            currency=claim.currency,
            reason=claim.reason[:100],
            created_at=clock.now(),
            state=DisputeState.OPEN,
        )
        db.session.add(known)
        db.session.flush()
        _opened(order, payment, known, door=door)
    known.provider_status = claim.status
    state = DisputeState(claim.state)
    if state is not known.state and known.state is DisputeState.OPEN:
        _closed(order, payment, known, state, door=door)


def _opened(order: Order, payment: Payment, dispute: Dispute, *, door: str) -> None:
    """The bank has taken the money back for now: the tickets wait, and a person is told."""
    _move(order, payment, dispute, back=False)
    amount = money.show(dispute.amount_minor, dispute.currency)
    words = f"Disputed: {amount} ({dispute.reason or 'no reason given'})."
    timeline.note(order, "dispute", words, door=door, payment=payment)
    outbox.alert(
        *alerts.dispute(order, dispute.amount_minor, dispute.currency, dispute.reason),
        key=f"dispute:{dispute.id}",
    )
    if payment.fulfilled:
        tickets.suspend(_in_state(order, TicketState.VALID), refunds.DISPUTED)
        fulfilment.fee_taken_back(order, payment, "The listing fee is disputed.", door=door)
    if payment.next_check_at is None:
        payment.next_check_at = clock.now() + timedelta(days=1)


def _closed(order: Order, payment: Payment, dispute: Dispute, state: DisputeState, *, door: str) -> None:
    dispute.state = state
    dispute.closed_at = clock.now()
    timeline.note(order, "dispute", f"Dispute {state}.", door=door, payment=payment)
    suspended = _in_state(order, TicketState.SUSPENDED)
    if state is DisputeState.WON:
        _move(order, payment, dispute, back=True)
        if all(other.state is not DisputeState.OPEN for other in payment.disputes):
            tickets.restore(suspended)
        back = min(dispute.amount_minor, refunds.refundable_minor(payment))
        if (
            back > 0
            and incidents.was_given_away(payment)
            and pockets.money_of(order, payment) == ledger.SUSPENSE
        ):
            # It was to be given back while the bank had it; it came back here, and a person decides anew.
            won = (back, dispute.currency, "")
            incidents.money_returned("dispute_won", order, payment, *won, door=door)
        fulfilment.fee_restored(order, payment, "The dispute of the fee was won.", door=door)
    elif payment.fulfilled:
        fulfilment.take_back(order, suspended, "disputed and lost")


def _in_state(order: Order, state: TicketState) -> list[Ticket]:
    return [ticket for ticket in order.tickets if ticket.state is state]


def _move(order: Order, payment: Payment, dispute: Dispute, *, back: bool) -> None:
    ours = pockets.money_of(order, payment)
    theirs = pockets.provider_side(payment)
    ledger.post(
        key=f"dispute:{dispute.id}:{'back' if back else 'taken'}",
        debit=theirs if back else ours,
        credit=ours if back else theirs,
        amount_minor=dispute.amount_minor,
        currency=dispute.currency,
        kind="dispute",
        description=f"Dispute {'won' if back else 'opened'} {order.code}",
        order_id=order.id,
        payment_id=payment.id,
        may_overdraw=True,
    )
