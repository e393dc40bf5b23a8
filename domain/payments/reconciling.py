"""Reconcile: ask the provider about a payment, and give the answer to settle.

Every door (success page, webhook, sweep, recheck, command) leads here.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from time import perf_counter

from domain import clock, locks
from domain.ledger import transfers
from domain.payments import declines, never_opened, own_end, settling, starting, told_reports, unknown_ends
from domain.payments.poll_schedule import may_ask
from domain.payments.starting import read
from domain.providers import bulkhead, registry
from domain.providers.contract import Anothers, Provider, ProviderError, Report, Retraces
from domain.providers.failure_reasons import Reason
from extensions import db
from models import Order, Payment, PaymentState

# A row is leased to one sweep for twice the longest chain of calls: read, close, read, each tried twice.
LEASE = timedelta(seconds=160)


def reconcile(
    payment_id: int,
    *,
    door: str,
    actor_id: int | None = None,
    patient: bool = False,
    ring_id: int | None = None,
    rung: str = "",
    closing: bool = False,
    quietly: bool = False,
    thorough: bool = False,
) -> settling.Outcome:
    """Ask the provider about a payment and settle what it says. Commits; raises NotFound for no such payment.

    `closing` asks the provider to close the payment where it is still open and can be closed, and reads it
    again; `quietly` as another is to take its place, or its buyer has just ended it, so that its end is
    mailed to nobody. `ring_id` is a webhook event to be marked done in the same transaction, `rung` the name
    of one that told of a refused attempt. An unanswered call changes no state.
    """
    payment = read(payment_id)
    if payment.state is PaymentState.CREATED:
        outcome = _begin(payment, door=door, patient=patient, closing=closing, quietly=quietly)
        payment_id = outcome.payment_id
        payment = read(payment_id)
        due = closing or own_end.is_due(payment, own_end.able(payment))
        if outcome.state is not PaymentState.OPEN or not due:
            return outcome
    provider = registry.get(payment.provider, payment.account)
    if provider.immediate or payment.provider_id is None:
        return settling.Outcome(payment_id, payment.state, False)
    closing = closing and own_end.may_end(payment, provider.can)
    provider_id, count = payment.provider_id, payment.poll_count
    # Somebody was refused just now, and perhaps more than once, whatever the last refusal looks like.
    known = declines.NONE if rung else declines.known(payment)
    due_to_close = closing or own_end.is_due(payment, provider.can)
    # A refund that failed leaves no hint on the charge, so payments with refunds are asked about them.
    thorough = thorough or payment.state is PaymentState.PAID and payment.has_reversals
    if not provider.can.ask:
        return _by_what_was_told(
            payment, provider, due_to_close, door=door, actor_id=actor_id, closing=closing, quietly=quietly
        )
    db.session.rollback()
    started = perf_counter()
    try:
        report = ask(
            provider,
            provider_id,
            count=count,
            closing=due_to_close,
            thorough=thorough,
            patient=patient,
            known=known,
        )
    except ProviderError as error:
        return settling.unanswered(payment_id, error, door=door)
    return settling.settle(
        payment_id,
        report,
        door=door,
        actor_id=actor_id,
        latency=perf_counter() - started,
        ring_id=ring_id,
        closed_by_us=closing,
        quietly=quietly,
        rung=rung,
    )


def _by_what_was_told(
    payment: Payment,
    provider: Provider,
    due: bool,
    *,
    door: str,
    actor_id: int | None,
    closing: bool,
    quietly: bool,
) -> settling.Outcome:
    """Settle what was told of a payment, where nobody can be asked. `due`: it is to end now."""
    payment_id, report = payment.id, told_reports.report_on(payment)
    waited_for = payment.state is PaymentState.OPEN and due
    # Of what was opened when the account worked in another way, nobody was going to tell us now.
    silence_tells = provider.can.tells and payment.account == provider.account
    db.session.rollback()
    if report.state == "open" and due and silence_tells:
        report = own_end.ended(report)
    elif report.state == "open" and waited_for:
        return unknown_ends.end_unknown(payment_id, door)
    return settling.settle(
        payment_id, report, door=door, actor_id=actor_id, closed_by_us=closing, quietly=quietly
    )


def _begin(payment: Payment, *, door: str, patient: bool, closing: bool, quietly: bool) -> settling.Outcome:
    """Open a payment that is not opened yet, or end it where it is to be closed and is nowhere yet."""
    payment_id, own = payment.id, registry.get(payment.provider)
    if closing and own.immediate:
        # Starting such a payment would pay it, and nothing of it is anywhere but here.
        words = "Cancelled before it was paid."
        return settling.give_up(payment_id, door, "", words, state=PaymentState.CANCELLED, quietly=quietly)
    unmade = payment.asked_at is None and (payment.awaits_buyer or not own.can.search)
    if unmade and (closing or (payment.awaits_buyer and never_opened.is_over(payment))):
        waits = payment.awaits_buyer and not closing
        return starting.give_up_unmade(payment_id, door, quietly=quietly, unwanted=waits)
    if payment.awaits_buyer:
        return settling.Outcome(payment_id, payment.state, False)
    try:
        return starting.finish_start(payment_id, door=door, patient=patient)
    except transfers.InsufficientFunds as error:
        return settling.give_up(payment_id, door, Reason.WALLET_SHORT, error.message)


def ask(
    provider: Provider,
    provider_id: str,
    *,
    count: int,
    closing: bool,
    thorough: bool = False,
    patient: bool = False,
    known: declines.Known = declines.NONE,
) -> Report:
    """Read a payment at its provider, and close it there where it is open still and `closing`.

    Touches no database. `count` tells one close from the next; `known` is the refused attempt that is known:
    where the newest is another, there may be more in between. Raises ProviderError.
    """
    report = provider.fetch(provider_id, patient=patient, thorough=thorough)
    if report.provider_id != provider_id:
        raise Anothers(f"its id is {report.provider_id}, not {provider_id}")
    if report.state == "open" and closing and not provider.can.close:
        # Its last moment has passed, so that this reading has the last word.
        report = own_end.ended(report)
    elif report.state == "open" and closing:
        # Paid in between wins: closing reads again, and that second reading has the last word.
        report = provider.close(provider_id, f"close-{provider_id[-40:]}-{count}", patient=patient)
    if isinstance(provider, Retraces) and not declines.tells_nothing_new(report, known):
        return _retraced(provider, report, patient=patient)
    return report


def _retraced(provider: Retraces, report: Report, *, patient: bool) -> Report:
    """The report with every refused attempt. What it says of the payment does not wait for them."""
    try:
        return replace(report, declines=provider.declines(report, patient=patient))
    except ProviderError:
        # An open payment is read again, and they are asked for then.
        return replace(report, declines=(), reason="") if report.state == "open" else report


def refresh(order: Order, *, door: str) -> bool:
    """What the order page does as it loads: ask about the active payment, at most every two seconds.

    True when it asked, and the order may have changed. Where others wait for the account already, or it is
    silent, the page shows what is known and asks again.
    """
    payment = active(order)
    if payment is None:
        return False
    provider, payment_id = registry.get(payment.provider, payment.account), payment.id
    if payment.awaits_buyer and never_opened.is_over(payment):
        # Nobody need be asked: it ends here.
        reconcile(payment_id, door=door)
        return True
    if (
        provider.immediate
        or payment.awaits_buyer
        or not bulkhead.may_refresh(provider.name, provider.account)
    ):
        return False
    if may_ask(payment):
        with bulkhead.looking():
            reconcile(payment_id, door=door)
    return True


def returned(order: Order, provider_id: str) -> None:
    """The buyer comes back from the provider: ask it at once about the payment that `provider_id` names.

    An id that is not of this order is not believed; then the order's own payment is asked about.
    """
    own = (p for p in order.payments if provider_id in (p.provider_id, p.reference))
    named = next(own, None) or active(order)
    if named is None or named.state is PaymentState.PAID:
        return
    payment_id, before = named.id, declines.known(named)
    if reconcile(payment_id, door="success").state is PaymentState.OPEN:
        locks.in_one_transaction(lambda: _came_back(payment_id, before))


def came_back_unpaid(order: Order) -> None:
    """The buyer says, by the way they come back, that they have not paid. Commits."""
    payment = active(order)
    if payment is not None and payment.returned_at is not None:
        payment.returned_at = None
        db.session.commit()


def _came_back(payment_id: int, before: declines.Known) -> None:
    """Remember that somebody came back from paying, where no reading has told yet how it ended."""
    payment, _ = locks.payment_and_order(payment_id)
    if payment.state is PaymentState.OPEN and declines.known(payment) == before:
        payment.returned_at = payment.returned_at or clock.now()


def active(order: Order) -> Payment | None:
    """The order's payment that is created, open or processing; there is at most one."""
    return next((payment for payment in order.payments if payment.is_active), None)
