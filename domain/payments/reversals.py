"""What a provider tells of a paid payment: refunds made there, and disputes.

A dispute is a buyer's bank that takes the money back, or tries to. The tickets wait until it is decided. An
inquiry is a bank that asks first: nothing has moved, and a refund or an answer may keep it at that.
"""

from __future__ import annotations

from datetime import timedelta

from domain import clock, money, timeline
from domain.ledger import transfers
from domain.payments import (
    fulfilment,
    incidents,
    ledger_accounts,
    poll_schedule,
    refund_matching,
    refund_outcomes,
)
from domain.payments.refundable import GONE, own_tickets, refundable_minor, undecided_minor
from domain.post import alerts, outbox
from domain.providers.contract import DisputeReport, RefundReport, Report
from domain.tickets import issuing
from extensions import db
from models import Dispute, DisputeState, Order, Payment, Refund, RefundState, Ticket, TicketState


def mirror(order: Order, payment: Payment, report: Report, *, door: str) -> None:
    """Take over the refunds and disputes of a report. Rows locked by the caller; no commit."""
    refunds = refund_matching.told_by(payment, report)
    if refunds or report.disputes:
        ledger_accounts.lock(order, payment)
    for told, known in refund_matching.assign(payment, refunds):
        refund = known
        if refund is None:
            refund = _made_at_provider(order, payment, told)
            if payment.next_check_at is None:
                # It has no key of ours to be followed up by: only its payment's reading tells how it ends.
                payment.next_check_at = clock.now() + timedelta(days=1)
        if refund.state is not RefundState.REVIEW or told.state != "pending":
            refund_outcomes.apply(refund, payment, order, told, door=door)
    for claim in report.disputes:
        _dispute(order, payment, claim, door=door)
    if report.disputes:
        refund_outcomes.look_at_sum(order, payment, door=door)
        refund_outcomes.order_state(order, payment)
    if report.incomplete:
        poll_schedule.read_soon(payment)


def _made_at_provider(order: Order, payment: Payment, told: RefundReport) -> Refund:
    """A refund made in the provider's dashboard. Tickets are voided when it gives back all that is left.

    What a bank has for now may come back, and is left until it has said its last word.
    """
    everything = told.amount_minor >= refundable_minor(payment) + undecided_minor(payment)
    refund = Refund(
        payment=payment,
        amount_minor=told.amount_minor,
        currency=told.currency,
        state=RefundState.CREATED,
        idempotency_key=_key(payment, told),
        made_at_provider=True,
        reason="Made at the provider",
        void_ticket_ids=own_tickets(order, payment, [], everything=everything) if everything else [],
        created_at=clock.now(),
    )
    db.session.add(refund)
    db.session.flush()
    return refund


def _key(payment: Payment, told: RefundReport) -> str:
    """Our own key where the provider has it: a refund of ours that a restored backup has lost."""
    own = told.our_key.startswith(f"refund-{payment.reference}-")
    taken = any(refund.idempotency_key == told.our_key for refund in payment.refunds)
    return told.our_key if own and not taken else f"provider-{told.provider_id}"[:100]


# --- Disputes -------------------------------------------------------------------------------------------


def _dispute(order: Order, payment: Payment, claim: DisputeReport, *, door: str) -> None:
    """An inquiry moves no money and stops no ticket; a dispute does, be it new or what an inquiry became."""
    known = next((d for d in payment.disputes if d.provider_id == claim.provider_id), None)
    if known is None:
        known = _noted(order, payment, claim, door=door)
    known.provider_status = claim.status
    state = DisputeState(claim.state)
    if known.state is not DisputeState.OPEN:
        if known.took_money or claim.inquiry:
            return
        # The bank only asked, was done with it, and has made a dispute of it after all.
        known.state, known.closed_at = DisputeState.OPEN, None
        _watch(payment)
    if not known.took_money and not claim.inquiry:
        known.amount_minor, known.currency = claim.amount_minor, claim.currency
        _taken(order, payment, known, door=door)
    if state is not known.state:
        _closed(order, payment, known, state, door=door)


def _noted(order: Order, payment: Payment, claim: DisputeReport, *, door: str) -> Dispute:
    """A dispute that is new here. It has taken nothing yet."""
    dispute = Dispute(
        payment=payment,
        provider_id=claim.provider_id,
        amount_minor=claim.amount_minor,
        currency=claim.currency,
        reason=claim.reason[:100],
        created_at=clock.now(),
        state=DisputeState.OPEN,
        took_money=False,
    )
    db.session.add(dispute)
    db.session.flush()
    if claim.inquiry and claim.state == "open":
        words = f"The bank asks about {_said(dispute)}. No money has moved."
        timeline.note(order, "dispute", words, door=door, payment=payment)
        outbox.alert(
            *alerts.inquiry(order, dispute.amount_minor, dispute.currency, dispute.reason),
            key=f"inquiry:{dispute.id}",
        )
    _watch(payment)
    return dispute


def _watch(payment: Payment) -> None:
    """How a dispute ends is read once a day, should nobody ring."""
    if payment.next_check_at is None:
        payment.next_check_at = clock.now() + timedelta(days=1)


def _said(dispute: Dispute) -> str:
    return f"{money.show(dispute.amount_minor, dispute.currency)} ({dispute.reason or 'no reason given'})"


def _taken(order: Order, payment: Payment, dispute: Dispute, *, door: str) -> None:
    """The bank has taken the money back for now: the tickets wait, and a person is told."""
    dispute.took_money, payment.reversed_at = True, clock.now()
    _move(order, payment, dispute, back=False)
    timeline.note(order, "dispute", f"Disputed: {_said(dispute)}.", door=door, payment=payment)
    outbox.alert(
        *alerts.dispute(order, dispute.amount_minor, dispute.currency, dispute.reason),
        key=f"dispute:{dispute.id}",
    )
    if payment.fulfilled:
        issuing.suspend(_in_state(order, TicketState.VALID), refund_outcomes.DISPUTED)
        fulfilment.fee_taken_back(order, payment, "The listing fee is disputed.", door=door)


def _closed(order: Order, payment: Payment, dispute: Dispute, state: DisputeState, *, door: str) -> None:
    dispute.state = state
    dispute.closed_at = clock.now()
    if not dispute.took_money:
        timeline.note(order, "dispute", "The bank's inquiry is closed.", door=door, payment=payment)
        return
    timeline.note(order, "dispute", f"Dispute {state}.", door=door, payment=payment)
    suspended = _in_state(order, TicketState.SUSPENDED)
    if state is DisputeState.WON:
        _won(order, payment, dispute, suspended, door=door)
    else:
        _lost(order, payment, dispute, suspended)
    refund_outcomes.look_at_goods(order, payment, door=door)


def _won(order: Order, payment: Payment, dispute: Dispute, suspended: list[Ticket], *, door: str) -> None:
    """The money is here again, and what it had bought is valid again."""
    _move(order, payment, dispute, back=True)
    if all(other.state is not DisputeState.OPEN or not other.took_money for other in payment.disputes):
        issuing.restore(suspended)
    back = min(dispute.amount_minor, refundable_minor(payment))
    if (
        back > 0
        and incidents.was_given_away(payment)
        and ledger_accounts.money_of(order, payment) == transfers.SUSPENSE
    ):
        # It was to be given back while the bank had it; it came back here, and a person decides anew.
        won = (back, dispute.currency, "")
        incidents.money_returned("dispute_won", order, payment, *won, door=door)
    beside = sum(
        refund.amount_minor
        for refund in payment.refunds
        if refund.state in GONE and refund.created_at >= dispute.created_at and not refund.void_ticket_ids
    )
    if payment.fulfilled and beside and any(ticket.state is TicketState.VALID for ticket in suspended):
        # Whether tickets were to stop for it could not be told while all of them waited.
        incidents.won_beside_refund(order, payment, beside, door=door)
    fulfilment.fee_restored(order, payment, "The dispute of the fee was won.", door=door)


def _lost(order: Order, payment: Payment, dispute: Dispute, suspended: list[Ticket]) -> None:
    """The bank keeps the money for good: what it had bought is void, and its buyer is told."""
    if payment.fulfilled:
        fulfilment.take_back(order, suspended, "disputed and lost")
    outbox.stage(
        "dispute_lost",
        key=f"dispute:{dispute.id}:lost",
        to=order.email,
        order=order,
        context={"amount_minor": dispute.amount_minor, "currency": dispute.currency},
    )


def _in_state(order: Order, state: TicketState) -> list[Ticket]:
    return [ticket for ticket in order.tickets if ticket.state is state]


def _move(order: Order, payment: Payment, dispute: Dispute, *, back: bool) -> None:
    ours = ledger_accounts.money_of(order, payment)
    theirs = ledger_accounts.provider_side(payment)
    transfers.post(
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
