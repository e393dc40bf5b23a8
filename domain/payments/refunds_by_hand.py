"""Refunds where no call sends money back: a person makes them at the bank, and writes down that it was done.

The intent is the same row as any other's, under the same locks, sums and constraints. It waits as `created`,
and whoever runs Kassa is told at once, and once a day while it waits. Only when it was made do tickets stop,
and does the buyer read that the money is on its way.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from domain import clock, locks, money, timeline
from domain.errors import DomainError, NotFound
from domain.payments import ledger_accounts, own_end, refund_outcomes
from domain.payments.refundable import UNRESOLVED
from domain.post import alerts, outbox
from domain.providers import registry
from domain.providers.contract import Confirmed, RefundReport
from extensions import db, queue
from models import Order, Payment, Refund

# How often whoever runs Kassa is reminded of one that nobody has made.
_REMINDED = timedelta(days=1)
_NAME = "by-hand"


def is_by_hand(refund: Refund) -> bool:
    """Whether a person has to make it, and has not yet."""
    waits = refund.state in UNRESOLVED and not refund.made_at_provider
    return waits and not own_end.able(refund.payment).refund


def wait(refund_id: int) -> None:
    """What following one up comes to: somebody is told of it, and is told again tomorrow. Commits."""

    def work() -> None:
        refund, payment, order = _locked(refund_id)
        refund.leased_until = None
        if not is_by_hand(refund):
            refund.next_check_at = None
            return
        now = clock.now()
        if refund.check_count == 0:
            words = (
                "No call sends this money back: a person makes the refund at the bank, and records it here."
            )
            timeline.note(order, "refund_waits", words, door="refund", payment=payment)
        refund.check_count += 1
        refund.next_check_at = now + _REMINDED
        told = alerts.refund_by_hand(order, refund.amount_minor, refund.currency, refund.created_at)
        outbox.alert(*told, key=f"refund_by_hand:{refund.id}:{refund.check_count}")

    locks.in_one_transaction(work)
    queue.soon("deliver_mail")


def of_payment(payment: Payment) -> Refund:
    """The refund of a payment that a person has to make. NotFound where there is none."""
    found = next((refund for refund in payment.refunds if is_by_hand(refund)), None)
    if found is None:
        raise NotFound("no_refund", "No refund of this payment waits for a person.")
    return found


def record(refund_id: int, *, reference: str, note: str, actor_id: int) -> Refund:
    """A person has made it at the bank, under its `reference`. Recorded; commits. DomainError in words."""
    if not note.strip():
        raise DomainError("note_needed", "Say how it was made: the note is kept on the order's timeline.")

    def work() -> None:
        refund, payment, order = _waiting(refund_id)
        name = _reference(payment, reference)
        shown = money.show(refund.amount_minor, refund.currency)
        timeline.note(
            order,
            "refund_made",
            f"{shown} was sent back at the bank, reference {name}: {note.strip()}",
            door="admin",
            payment=payment,
            actor_id=actor_id,
        )
        report = RefundReport(
            f"{_NAME}:{payment.provider}:{name}", refund.amount_minor, refund.currency, "succeeded"
        )
        refund_outcomes.apply(refund, payment, order, report, door="admin")
        refund.next_check_at = None

    try:
        locks.in_one_transaction(work)
    except IntegrityError as error:
        if "uq_refunds_provider_id" not in str(error.orig):
            raise
        raise DomainError(
            "reference_used",
            "Another refund was recorded with this reference before. Look at the bank which one is right.",
        ) from error
    queue.soon("deliver_mail")
    return db.session.get_one(Refund, refund_id, populate_existing=True)


def refuse(refund_id: int, *, why: str, actor_id: int) -> Refund:
    """It cannot be made, or is not to be: the money stays here. Recorded; commits. DomainError in words."""
    if not why.strip():
        raise DomainError("note_needed", "Say why: the note is kept on the order's timeline.")

    def work() -> None:
        refund, payment, order = _waiting(refund_id)
        said = why.strip()
        timeline.note(order, "refund_not_made", said, door="admin", payment=payment, actor_id=actor_id)
        refund_outcomes.failed(refund, payment, order, said, door="admin")

    locks.in_one_transaction(work)
    queue.soon("deliver_mail")
    return db.session.get_one(Refund, refund_id, populate_existing=True)


def _reference(payment: Payment, typed: str) -> str:
    provider = registry.get(payment.provider, payment.account)
    found = provider.bank_reference(typed) if isinstance(provider, Confirmed) else typed.strip()[:100]
    if not found:
        raise DomainError(
            "reference_form",
            f"“{typed.strip()[:40]}” does not look like a reference of the bank. Copy it from the receipt "
            "of the refund.",
        )
    return found


def _waiting(refund_id: int) -> tuple[Refund, Payment, Order]:
    refund, payment, order = _locked(refund_id)
    if not is_by_hand(refund):
        raise DomainError(
            "not_waiting",
            f"This refund is {refund.state} already, or is made by a call: nothing was changed.",
        )
    return refund, payment, order


def _locked(refund_id: int) -> tuple[Refund, Payment, Order]:
    payment_id = db.session.scalar(select(Refund.payment_id).where(Refund.id == refund_id))
    if payment_id is None:
        raise NotFound("no_refund", "There is no such refund.")
    payment, order = locks.payment_and_order(payment_id)
    ledger_accounts.lock(order, payment)
    return db.session.get_one(Refund, refund_id, populate_existing=True), payment, order
