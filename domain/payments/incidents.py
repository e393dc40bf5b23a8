"""Money that no rule could map to goods: written down with its evidence, to wait for a person.

What the person decides is in `domain/payments/incident_decisions.py`. Nothing here commits.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from sqlalchemy import bindparam, or_, select
from sqlalchemy.dialects.postgresql import insert

import config
from domain import clock, timeline
from domain.catalogue import house_account
from domain.ledger import transfers
from domain.payments import ledger_accounts
from domain.post import alerts, outbox
from domain.providers.contract import Report
from extensions import db
from models import (
    Incident,
    Order,
    OrderState,
    OutboxMail,
    Payment,
    PaymentState,
    Refund,
    Transfer,
)

# Kind -> what it means, for the inbox, the timeline and the mail.
KINDS = {
    "mismatch": "The provider's record does not match our payment.",
    "changed_after_payment": "The provider's record changed after the goods were handed over.",
    "double_payment": "A second payment arrived for an order that was already paid.",
    "late_money": "The payment arrived after its hold ended, and the tickets are gone.",
    "given_back": "The payment was confirmed when its money, or some of it, was given back or credited.",
    "event_cancelled": "The payment arrived for an event that was cancelled.",
    "event_over": "The payment was made when the event was over.",
    "fee_again": "A listing fee was paid for an event that did not wait for one: it is published already, or "
    "the fee was paid before.",
    "refund_failed": "A refund failed after its tickets were sold to somebody else.",
    "refund_returned": "A refund from the money inbox failed in the end, so its money is still here.",
    "dispute_won": "A dispute was won, so money is here again that was decided about while it was gone.",
    "given_back_too_much": "More went back of this payment than came: a refund was made twice, or though "
    "the bank had taken the money. Look at both in the provider's dashboard, then dismiss it.",
    "kept_without_goods": "Some of this payment is still here, and its tickets are all void. Send it back, "
    "or dismiss it where it is to be kept.",
    "won_beside_refund": "A dispute was won, and some of the payment went back while it was open. All its "
    "tickets are valid again: see whether some are to stop, then dismiss it.",
    "refund_unclear": "The provider did not say whether a refund was made.",
    "refund_ambiguous": "What went back at the provider is neither with nor without this refund. Look it up "
    "in its dashboard: choose refund if the money went back, dismiss if it did not.",
    "lost_create": "The provider did not say whether it opened this payment, and cannot be searched. Look it "
    "up there: hand over the goods if it was paid, dismiss it if it was not.",
    "end_unknown": "The time to pay is over, and nobody has said whether this was paid. Look at the bank's "
    "statement: confirm the payment on the order's page if it is there, dismiss it if it is not.",
    "told_twice": "Another payment was told for one that is paid already. Send it back at the bank, then "
    "dismiss it.",
    "unknown_payment": "The provider has a paid payment of ours that is not in the database.",
}


# What arrived is not what these are about: their sums are of refunds, of disputes, and of other money.
_OF_MONEY_BACK = (
    *("refund_ambiguous", "given_back_too_much", "kept_without_goods", "won_beside_refund"),
    "told_twice",
)


def open_incident(
    kind: str,
    order: Order,
    payment: Payment,
    report: Report,
    *,
    door: str,
    what: str = "",
) -> None:
    """Open an incident about a payment, once for each kind; move money that arrived into `suspense`."""
    amount = report.amount_minor
    evidence = _evidence(payment, report, what)
    hold_money(kind, order, payment, report)
    if order.state not in (OrderState.COMPLETED, OrderState.PARTIALLY_REFUNDED, OrderState.REFUNDED):
        order.state = OrderState.REVIEW
    before = db.session.scalars(
        select(Incident).where(Incident.payment_id == payment.id, Incident.kind == kind)
    ).all()
    waiting = next((incident for incident in before if incident.resolved_at is None), None)
    if waiting is not None:
        _tell_buyer(waiting.key, kind, order, payment, report)
        correct(order, payment, report)
        return
    # What was decided once stays decided: the same trouble again is another incident.
    key = f"{kind}:{payment.id}" + (f":{len(before) + 1}" if before else "")
    added = db.session.scalar(
        insert(Incident)
        .values(
            key=key,
            kind=kind,
            order_id=order.id,
            payment_id=payment.id,
            provider=payment.provider,
            charge_id=report.charge_id,
            amount_minor=amount,
            currency=report.currency,
            evidence=evidence,
            created_at=clock.now(),
            resolution="",
            resolution_reason="",
        )
        .on_conflict_do_nothing()
        .returning(Incident.id)
    )
    if added is None:
        return
    _tell_buyer(key, kind, order, payment, report)
    timeline.note(
        order,
        "incident",
        f"{KINDS[kind]}{f' It differs in: {what}.' if what else ''}",
        door=door,
        payment=payment,
        data=evidence,
    )
    if kind in ("mismatch", "changed_after_payment"):
        subject, text = alerts.amount_mismatch(order, payment, report.amount_minor, report.currency, what)
    else:
        subject, text = alerts.incident(order, KINDS[kind], amount, report.currency)
    outbox.alert(subject, text, key=f"incident:{key}", critical=True)


def _tell_buyer(key: str, kind: str, order: Order, payment: Payment, report: Report) -> None:
    """Owe the buyer the mail that their money arrived and waits for a decision, once for each incident."""
    if report.state != "paid" or payment.fulfilled:
        return
    how = config.get().late_money if kind == "late_money" else "person"
    if how == "wallet" and not house_account.holds(payment):
        # No wallet is credited with what an organiser was paid.
        how = "person"
    outbox.stage(
        "money_arrived",
        key=_arrived(key),
        to=order.email,
        order=order,
        context={
            "kind": kind,
            "how": how,
            "amount_minor": report.amount_minor,
            "currency": report.currency,
        },
    )


def _arrived(key: str) -> str:
    return f"money_arrived:{key}"


def was_told(incident: Incident) -> bool:
    """Whether the buyer was told that this money arrived, and so wants to hear how it ended."""
    told = select(OutboxMail.id).where(OutboxMail.key == _arrived(incident.key)[:200])
    return db.session.scalar(told) is not None


def is_waiting(payment: Payment) -> bool:
    """Whether anything about a payment waits for a person."""
    waiting = select(Incident.id).where(Incident.payment_id == payment.id, Incident.resolved_at.is_(None))
    return db.session.scalar(waiting.limit(1)) is not None


def hold_money(kind: str, order: Order, payment: Payment, report: Report) -> None:
    """Have in suspense what the report says has arrived and has bought nothing, whatever was said before."""
    if report.state != "paid" or payment.fulfilled:
        return
    source = ledger_accounts.provider_side(payment)
    before = db.session.scalars(select(Transfer).filter_by(payment_id=payment.id, kind="suspense")).all()
    lacking = Counter({report.currency: report.amount_minor})
    for transfer in before:
        lacking[transfer.currency] -= transfer.amount_minor * (
            1 if transfer.credit == transfers.SUSPENSE else -1
        )
    for number, (currency, minor) in enumerate(sorted(lacking.items()), start=len(before)):
        if minor:
            transfers.post(
                key=f"suspense:{payment.id}" + (f":{number}" if before else ""),
                debit=source if minor > 0 else transfers.SUSPENSE,
                credit=transfers.SUSPENSE if minor > 0 else source,
                amount_minor=abs(minor),
                currency=currency,
                kind="suspense",
                description=f"{kind} {order.code}",
                order_id=order.id,
                payment_id=payment.id,
                provider_reference=report.provider_id,
            )


def correct(order: Order, payment: Payment, report: Report) -> None:
    """Where a paid report names another sum than the one before, what waits to be decided is that sum."""
    waiting = db.session.scalars(
        select(Incident)
        .where(Incident.payment_id == payment.id, Incident.resolved_at.is_(None))
        .where(Incident.kind.not_in(_OF_MONEY_BACK))
    ).all()
    if report.state != "paid" or not waiting:
        return
    for incident in waiting:
        incident.amount_minor, incident.currency = report.amount_minor, report.currency
    hold_money("corrected", order, payment, report)


def money_returned(
    kind: str, order: Order, payment: Payment, amount_minor: int, currency: str, why: str, *, door: str
) -> None:
    """Money from the inbox that had left is there again (a refund failed in the end, a dispute was won).

    Nothing to do where it still waits there.
    """
    known = db.session.scalars(select(Incident).where(Incident.payment_id == payment.id)).all()
    if any(incident.resolved_at is None and incident.kind != "given_back_too_much" for incident in known):
        return
    if not any(other.fulfilled for other in order.payments):
        order.state = OrderState.REVIEW
    key = f"{kind}:{payment.id}:{len(known)}"
    _add(kind, key, order, payment, amount_minor, currency, {"what": why})
    timeline.note(order, "incident", f"{KINDS[kind]} {why}".strip(), door=door, payment=payment)
    subject, text = alerts.incident(order, KINDS[kind], amount_minor, currency)
    outbox.alert(subject, text, key=f"incident:{key}", critical=True)


def given_back_too_much(order: Order, payment: Payment, excess_minor: int, *, door: str) -> None:
    """More went back of a payment than came, by its provider's word. Told again only where it grows."""
    _of_sum("given_back_too_much", order, payment, excess_minor, door=door)


def kept_without_goods(order: Order, payment: Payment, left_minor: int, *, door: str) -> None:
    """The tickets of a payment are all void, and some of its money is still here."""
    _of_sum("kept_without_goods", order, payment, left_minor, door=door)


def won_beside_refund(order: Order, payment: Payment, amount_minor: int, *, door: str) -> None:
    """The tickets of a payment are valid again though some of it went back while a bank had the rest."""
    _of_sum("won_beside_refund", order, payment, amount_minor, door=door)


def _of_sum(kind: str, order: Order, payment: Payment, amount_minor: int, *, door: str) -> None:
    """Open an incident about a sum of a payment, or correct the one that waits. No commit."""
    known = db.session.scalars(
        select(Incident).where(Incident.payment_id == payment.id, Incident.kind == kind)
    ).all()
    waiting = next((incident for incident in known if incident.resolved_at is None), None)
    if waiting is not None:
        waiting.amount_minor = amount_minor
        return
    if any(incident.amount_minor >= amount_minor for incident in known if incident.resolution != "refund"):
        # A person has let as much be already. What was sent back instead is here no more, so that what is
        # told now is other money, or the same after its refund has failed.
        return
    key = f"{kind}:{payment.id}:{len(known)}"
    _add(kind, key, order, payment, amount_minor, payment.currency, {})
    timeline.note(order, "incident", KINDS[kind], door=door, payment=payment)
    subject, text = alerts.incident(order, KINDS[kind], amount_minor, payment.currency)
    outbox.alert(subject, text, key=f"incident:{key}", critical=True)


def _add(
    kind: str,
    key: str,
    order: Order,
    payment: Payment,
    amount_minor: int,
    currency: str,
    evidence: dict[str, Any],
) -> None:
    db.session.add(
        Incident(
            key=key,
            kind=kind,
            order_id=order.id,
            payment_id=payment.id,
            provider=payment.provider,
            charge_id=payment.charge_id,
            amount_minor=amount_minor,
            currency=currency,
            evidence=evidence,
            created_at=clock.now(),
        )
    )


# What ends by the word that is missing, whoever says it.
_OF_SILENCE = ("lost_create", "end_unknown")


def wait_for_word(kind: str, order: Order, payment: Payment, why: str, *, door: str) -> None:
    """Nobody can say whether a payment was made or paid: a person looks it up. No commit."""
    known = db.session.scalars(
        select(Incident).where(Incident.payment_id == payment.id, Incident.kind == kind)
    ).all()
    key = f"{kind}:{payment.id}" + (f":{len(known) + 1}" if known else "")
    _add(kind, key, order, payment, payment.amount_minor, payment.currency, {"what": why})
    timeline.note(order, "incident", f"{KINDS[kind]} {why}", door=door, payment=payment)
    subject, text = alerts.incident(order, KINDS[kind], payment.amount_minor, payment.currency)
    outbox.alert(subject, text, key=f"incident:{key}", critical=True)


def waits_for_word(payment: Payment) -> bool:
    """Whether a payment is in review for nothing but that nobody has said what became of it."""
    kinds = db.session.scalars(
        select(Incident.kind).where(Incident.payment_id == payment.id, Incident.resolved_at.is_(None))
    ).all()
    return bool(kinds) and all(kind in _OF_SILENCE for kind in kinds)


def word_came(order: Order, payment: Payment, said: str) -> None:
    """What such a payment waited for has been said: its incidents are over. No commit."""
    waiting = select(Incident).where(Incident.payment_id == payment.id, Incident.resolved_at.is_(None))
    for incident in db.session.scalars(waiting):
        incident.resolution, incident.resolved_at = "told", clock.now()
        incident.resolution_reason = f"It was said after all what became of it: {said}."
    if order.state is OrderState.REVIEW:
        order.state = OrderState.PENDING_VERIFICATION


def told_twice(order: Order, payment: Payment, report: Report, *, door: str) -> None:
    """Money under a name of its own came for a payment that is paid: it waits in suspense. No commit.

    `report` has the second sum, and its name as the charge.
    """
    key = f"told_twice:{payment.id}:{report.charge_id}"
    evidence = {"reference": report.charge_id, "told": dict(report.raw)}
    _add("told_twice", key, order, payment, report.amount_minor, report.currency, evidence)
    transfers.post(
        key=key,
        debit=ledger_accounts.provider_side(payment),
        credit=transfers.SUSPENSE,
        amount_minor=report.amount_minor,
        currency=report.currency,
        kind="told_twice",
        description=f"told_twice {order.code}",
        order_id=order.id,
        payment_id=payment.id,
        provider_reference=report.charge_id or "",
    )
    timeline.note(order, "incident", KINDS["told_twice"], door=door, payment=payment, data=evidence)
    subject, text = alerts.incident(order, KINDS["told_twice"], report.amount_minor, report.currency)
    outbox.alert(subject, text, key=f"incident:{key}", critical=True)


def refund_unclear(order: Order, refund: Refund) -> None:
    """Tell, once, of a refund that nobody has answered for. It is looked for further on. No commit."""
    words = KINDS["refund_unclear"]
    subject, text = alerts.incident(order, words, refund.amount_minor, refund.currency)
    outbox.alert(subject, text, key=f"refund_unclear:{refund.id}", critical=True)


def refund_ambiguous(order: Order, payment: Payment, refund: Refund, gone_minor: int) -> None:
    """A refund of which the provider's sums do not tell whether it was made. No commit."""
    words = KINDS["refund_ambiguous"]
    evidence = {
        "what": refund.idempotency_key,
        "refund_id": refund.id,
        "amount_minor": refund.amount_minor,
        "refunded_before_minor": refund.refunded_before_minor,
        "refunded_now_minor": gone_minor,
    }
    key = f"refund_ambiguous:{refund.id}"
    _add("refund_ambiguous", key, order, payment, refund.amount_minor, refund.currency, evidence)
    timeline.note(order, "incident", words, door="refund", payment=payment, data=evidence)
    subject, text = alerts.incident(order, words, refund.amount_minor, refund.currency)
    outbox.alert(subject, text, key=f"incident:{key}", critical=True)


# Every payment that is paid is asked about: made once.
_TRANSFER = select(Transfer.id).where(Transfer.key == bindparam("key"))


def holds_money(payment: Payment) -> bool:
    """Whether the payment's money was put into suspense as it arrived."""
    return db.session.scalar(_TRANSFER, {"key": f"suspense:{payment.id}"}) is not None


def was_given_away(payment: Payment) -> bool:
    """Whether a person has sent the payment's money back or credited it to a wallet already."""
    given = select(Incident.id).where(
        Incident.payment_id == payment.id, Incident.resolution.in_(["refund", "wallet"])
    )
    return db.session.scalar(given.limit(1)) is not None


_OF_PAYING = ("paid", "processing")


def was_accepted(payment: Payment, report: Report) -> bool:
    """Whether a person has decided about this payment, knowing that the provider says just this.

    Without it, the reading an hour after the decision would take the payment back into review.
    """
    # Of what has bought nothing, only that it is over is accepted: other money, or a bank at work, is news.
    closed = payment.state is PaymentState.PAID or report.state not in _OF_PAYING
    over = closed and not payment.is_active and payment.state is not PaymentState.REVIEW
    if not (payment.fulfilled or over) or report.provider_id != payment.provider_id:
        return False
    decided = db.session.scalars(
        select(Incident).where(Incident.payment_id == payment.id, Incident.resolved_at.is_not(None))
    ).all()
    return any(_told_the_same(incident, payment, report) for incident in decided)


def _told_the_same(incident: Incident, payment: Payment, report: Report) -> bool:
    theirs = incident.evidence.get("theirs", {})
    if (incident.amount_minor, incident.currency) != (report.amount_minor, report.currency):
        return False
    if any(theirs.get(name) != getattr(report, name) for name in ("reference", "account", "livemode")):
        return False
    # An incident from before the money came names its sum, too, once that waits in suspense. Of what has
    # bought nothing, the ways not to be paid are all one.
    unpaid = not payment.fulfilled and {theirs.get("state"), report.state}.isdisjoint(_OF_PAYING)
    same = theirs.get("state") == report.state or unpaid
    return same or (report.state == "paid" and holds_money(payment))


def open_unknown(report: Report) -> None:
    """Money for a payment that the database does not have, as after a restored backup. No commit.

    Nothing where all of it went back. It is told once, by whichever name: a checkout and its transaction have
    the charge in common.
    """
    back = sum(refund.amount_minor for refund in report.refunds if refund.state in ("pending", "succeeded"))
    left = report.amount_minor - back
    same = (Incident.kind == "unknown_payment") & (Incident.provider == report.provider)
    named = [Incident.key == f"unknown_payment:{report.provider_id}"]
    if report.charge_id is not None:
        named.append(Incident.charge_id == report.charge_id)
    if left <= 0 or db.session.scalar(select(Incident.id).where(same, or_(*named)).limit(1)) is not None:
        return
    key = f"unknown_payment:{report.charge_id or report.provider_id}"
    added = db.session.scalar(
        insert(Incident)
        .values(
            key=key,
            kind="unknown_payment",
            provider=report.provider,
            charge_id=report.charge_id,
            amount_minor=left,
            currency=report.currency,
            evidence={
                "reference": report.reference,
                "sent_back_minor": back,
                "payer": {"email": report.payer_email, "name": report.payer_name},
                "named": {"provider_id": report.provider_id, "account": report.account},
                "provider": dict(report.raw),
            },
            created_at=clock.now(),
            resolution="",
            resolution_reason="",
        )
        .on_conflict_do_nothing()
        .returning(Incident.id)
    )
    if added is None:
        return
    transfers.post(
        key=f"incident:{added}",
        debit=transfers.provider_account(report.provider, report.account),
        credit=transfers.SUSPENSE,
        amount_minor=left,
        currency=report.currency,
        kind="suspense",
        description=f"unknown_payment {report.reference}",
        provider_reference=report.provider_id,
    )
    subject, text = alerts.unknown_payment(report.reference, report.provider_id, left, report.currency, back)
    outbox.alert(subject, text, key=key, critical=True)


def _evidence(payment: Payment, report: Report, what: str) -> dict[str, Any]:
    """Ours and theirs side by side, as a person compares them."""
    return {
        "what": what,
        "ours": {
            "reference": payment.reference,
            "amount_minor": payment.amount_minor,
            "currency": payment.currency,
            "account": payment.account,
            "livemode": payment.livemode,
        },
        "theirs": {
            "reference": report.reference,
            "amount_minor": report.amount_minor,
            "currency": report.currency,
            "account": report.account,
            "livemode": report.livemode,
            "state": report.state,
        },
        "provider": dict(report.raw),
    }
