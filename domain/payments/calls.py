"""Calls of a provider that asks us whether an account may be paid, and tells us that it was.

Nothing is signed: whose a call is, a secret in the address and a list of networks say (`Caller.admits`), and
who is neither is told that there is nothing here. A question is answered from our own rows. A telling is
written down with its answer in one transaction, under the locks of its payment, and is settled at once; the
same telling again gets the same answer, byte for byte.
"""

from __future__ import annotations

from collections.abc import Mapping

import structlog
from sqlalchemy import or_, select
from sqlalchemy.exc import IntegrityError

from domain import clock, locks, money, timeline
from domain.payments import reconciling, told_reports
from domain.providers import registry
from domain.providers.calling import Answer, BadCall, Call, Caller, Verdict
from extensions import db
from models import (
    Awaits,
    BillerAnswer,
    EventState,
    Order,
    OrderState,
    Payment,
    PaymentState,
    ToldReport,
    ToldState,
)

_log = structlog.get_logger(__name__)
_GOODS = (OrderState.COMPLETED, OrderState.PARTIALLY_REFUNDED, OrderState.REFUNDED)
# What is answered so is asked again later, and may be answered otherwise then.
_PASSING = (Verdict.BUSY, Verdict.ERROR)
_WORDS = {
    Verdict.OK: "",
    Verdict.UNKNOWN: "There is no such order.",
    Verdict.CANCELLED: "This order cannot be paid any more.",
    Verdict.PAID: "This order is paid already.",
    Verdict.BUSY: "A payment of this order is being confirmed.",
}


def answer(provider_name: str, secret: str, query: Mapping[str, str], *, address: str) -> str | None:
    """What a call is answered, as the provider reads it; None where it is not the provider's. Commits."""
    provider = registry.get(provider_name) if provider_name in registry.names() else None
    if not isinstance(provider, Caller) or not provider.admits(secret, address):
        return None
    try:
        call = provider.read_call(query)
    except BadCall as error:
        # Refused, so that nobody's money is kept; whoever looks for it finds that it was told of.
        _log.warning("call_unreadable", provider=provider_name, txn=error.txn_id, why=str(error))
        return provider.answer(Answer(error.txn_id, Verdict.ERROR, str(error)))
    told = _pay(provider_name, provider, call) if call.pays else _check(provider_name, provider, call)
    _log.info("called", provider=provider_name, pays=call.pays, account=call.account, txn=call.txn_id)
    return told


# --- May it be paid? ------------------------------------------------------------------------------------


def _check(name: str, caller: Caller, call: Call) -> str:
    """The sum that the call names is not looked at: it may be anything."""
    payment = _behind(name, call.account)
    if payment is None:
        return caller.answer(Answer(call.txn_id, Verdict.UNKNOWN, _WORDS[Verdict.UNKNOWN]))
    verdict = _may_be_paid(payment, payment.order)
    words = payment.order.lines[0].description[:100] if verdict is Verdict.OK else _WORDS[verdict]
    amount = payment.amount_minor if verdict is Verdict.OK else None
    return caller.answer(Answer(call.txn_id, verdict, words, amount))


def _behind(name: str, account: str) -> Payment | None:
    """The payment that an account means: a payment's reference, or an order's code for its newest."""
    said = account.strip().upper()
    return db.session.scalar(
        select(Payment)
        .join(Order, Order.id == Payment.order_id)
        .where(Payment.provider == name, or_(Payment.reference == said, Order.code == said))
        .order_by(Payment.attempt.desc())
        .limit(1)
        .execution_options(populate_existing=True)
    )


def _may_be_paid(payment: Payment, order: Order) -> Verdict:
    """Whether somebody may begin to pay it now."""
    taken = _taken(payment, order)
    if taken is not Verdict.OK:
        return taken
    called_off = order.event is not None and order.event.state is EventState.CANCELLED
    over = payment.closes_at is not None and payment.closes_at <= clock.now()
    ended = payment.state is not PaymentState.OPEN or payment.cancel_asked_at is not None
    return Verdict.CANCELLED if called_off or over or ended else Verdict.OK


def _taken(payment: Payment, order: Order) -> Verdict:
    """Whether money for it is here already, or on its way."""
    if payment.state is PaymentState.PAID or order.state in _GOODS:
        return Verdict.PAID
    busy = (PaymentState.CREATED, PaymentState.PROCESSING, PaymentState.REVIEW)
    return Verdict.BUSY if payment.state in busy else Verdict.OK


# --- It was paid ----------------------------------------------------------------------------------------


def _pay(name: str, caller: Caller, call: Call) -> str:
    stored = _stored(name, call.txn_id)
    if stored is not None:
        return _once_more(stored)
    payment = _behind(name, call.account)
    if payment is None:
        words = Answer(call.txn_id, Verdict.UNKNOWN, _WORDS[Verdict.UNKNOWN])
        return _keep_alone(name, call, caller.answer(words))
    payment_id = payment.id
    try:
        told = locks.in_one_transaction(lambda: _take(payment_id, name, caller, call))
    except IntegrityError:
        return _lost_the_race(name, caller, call)
    reconciling.reconcile(payment_id, door="biller")
    return told


def _take(payment_id: int, name: str, caller: Caller, call: Call) -> str:
    """Write down what a call tells, and what it is answered. Nothing where it came before. No commit."""
    payment, order = locks.payment_and_order(payment_id)
    stored = _stored(name, call.txn_id)
    if stored is not None:
        return stored.answer
    verdict = _taken(payment, order)
    if verdict is Verdict.OK and told_reports.stands(payment):
        # Other money was told of a moment ago, and is about to be settled: what that buys is asked for once.
        verdict = Verdict.BUSY
    if verdict is not Verdict.OK:
        shown = money.show(call.amount_minor or 0, payment.currency)
        words = f"A call told of {shown}, transaction {call.txn_id}. Refused: {_WORDS[verdict]}"
        timeline.note(order, "call_refused", words, door="biller", payment=payment)
        told = caller.answer(Answer(call.txn_id, verdict, _WORDS[verdict]))
        if verdict not in _PASSING:
            _keep(name, call, told, None)
        return told
    row = _row(payment, caller, call)
    db.session.add(row)
    db.session.flush()
    told = caller.answer(Answer(call.txn_id, Verdict.OK, "", call.amount_minor, str(row.id)))
    _keep(name, call, told, row.id)
    _note(order, payment, row)
    # Should this process end before it settles, the next sweep does.
    payment.next_check_at = clock.now()
    return told


def _row(payment: Payment, caller: Caller, call: Call) -> ToldReport:
    """What the call tells. Too large a sum is no evidence before the bank's statement has it."""
    most, amount = caller.believed_up_to_minor, call.amount_minor or 0
    return ToldReport(
        payment=payment,
        provider=payment.provider,
        state=ToldState.PAID,
        amount_minor=amount,
        currency=payment.currency,
        reference=call.txn_id.upper(),
        paid_at=call.paid_at if told_reports.may_be_paid_at(payment, call.paid_at) else None,
        awaits=Awaits.STATEMENT if most is not None and amount > most else Awaits.NOTHING,
        note="Told by the provider's call.",
        created_at=clock.now(),
    )


def _note(order: Order, payment: Payment, row: ToldReport) -> None:
    shown = money.show(row.amount_minor, row.currency)
    words = f"A call told that {shown} was paid, transaction {row.reference}."
    if row.amount_minor != payment.amount_minor:
        words += f" It is to be {money.show(payment.amount_minor, payment.currency)}, so a person decides."
    elif row.is_waiting:
        words += " So large a sum waits for the bank's statement."
    data = {"reference": row.reference, "amount_minor": row.amount_minor, "currency": row.currency}
    timeline.note(order, "told_paid", words, door="biller", payment=payment, data=data)


# --- What was answered ----------------------------------------------------------------------------------


def _stored(name: str, txn_id: str) -> BillerAnswer | None:
    return db.session.scalar(
        select(BillerAnswer).where(BillerAnswer.provider == name, BillerAnswer.txn_id == txn_id)
    )


def _once_more(stored: BillerAnswer) -> str:
    """The stored answer; what it was about is settled, should the process that was to do it have ended."""
    told, row = stored.answer, stored.told_id
    if row is not None:
        payment = db.session.get_one(ToldReport, row).payment
        if payment.state not in (PaymentState.PAID, PaymentState.REVIEW):
            reconciling.reconcile(payment.id, door="biller")
    return told


def _keep(name: str, call: Call, told: str, told_id: int | None) -> None:
    db.session.add(
        BillerAnswer(
            provider=name,
            txn_id=call.txn_id,
            account=call.account[:100],
            answer=told,
            told_id=told_id,
            answered_at=clock.now(),
        )
    )
    db.session.flush()


def _keep_alone(name: str, call: Call, told: str) -> str:
    """Keep an answer about no payment of ours. Commits."""
    try:
        locks.in_one_transaction(lambda: _keep(name, call, told, None))
    except IntegrityError:
        stored = _stored(name, call.txn_id)
        return stored.answer if stored is not None else told
    return told


def _lost_the_race(name: str, caller: Caller, call: Call) -> str:
    """Another call of this name was written down at the same moment, for another account."""
    stored = _stored(name, call.txn_id)
    if stored is not None:
        return stored.answer
    if told_reports.by_reference(name, call.txn_id.upper()) is not None:
        words = "This transaction was told before, for something else."
        return caller.answer(Answer(call.txn_id, Verdict.ERROR, words))
    return caller.answer(Answer(call.txn_id, Verdict.BUSY, _WORDS[Verdict.BUSY]))
