"""Reports that are told: what is read in place of a call, where a provider cannot be asked.

The only exception to "a doorbell is never evidence". A row is written by a person who has looked at the bank
(telling.py), or by a provider's call that says that it was paid (calls.py); one that awaits a second person,
or the bank's statement, is no evidence yet.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import joinedload

from domain import clock
from domain.providers.contract import Report
from extensions import db
from models import Payment, ToldReport, ToldState

# A bank names the day only, perhaps of another zone, and its clock is not ours.
_APART = timedelta(days=1)


def of(payment_ids: Collection[int]) -> list[ToldReport]:
    """All that was told of some payments, the oldest first."""
    query = select(ToldReport).where(ToldReport.payment_id.in_(payment_ids)).order_by(ToldReport.id)
    return list(db.session.scalars(query.execution_options(populate_existing=True)))


def by_reference(provider: str, reference: str) -> ToldReport | None:
    """The report that stands under the bank's name for some money."""
    return db.session.scalar(
        select(ToldReport).where(
            ToldReport.provider == provider,
            ToldReport.reference == reference,
            ToldReport.withdrawn_at.is_(None),
        )
    )


def by_references(references: Collection[str]) -> list[ToldReport]:
    """The reports that stand under any of these names of the bank's, with their payments and orders."""
    query = select(ToldReport).where(ToldReport.reference.in_(references), ToldReport.withdrawn_at.is_(None))
    return list(db.session.scalars(query.options(joinedload(ToldReport.payment).joinedload(Payment.order))))


def stands(payment: Payment) -> list[ToldReport]:
    """What was told to have come for a payment, and was not taken back; confirmed, or not yet."""
    rows = of([payment.id])
    return [row for row in rows if row.withdrawn_at is None and row.state is ToldState.PAID]


def may_be_paid_at(payment: Payment, moment: datetime | None) -> bool:
    """Whether a payment can have been paid at a moment that is told, as far as clocks and days agree."""
    return moment is None or payment.order.created_at - _APART <= moment <= clock.now() + _APART


def report_on(payment: Payment) -> Report:
    """What was told of a payment, as a provider's report.

    Paid, where somebody said so whose word is enough: the sum of all that came. Processing, where it has to
    be confirmed. Expired, where a person has looked and nothing came. Open, where nobody has said anything.
    """
    rows = [row for row in of([payment.id]) if row.withdrawn_at is None and row.state is not ToldState.EXTRA]
    evidence = [row for row in rows if row.state is ToldState.PAID and row.is_evidence]
    state, amount, currency = "open", payment.amount_minor, payment.currency
    if evidence:
        state, amount = "paid", sum(row.amount_minor for row in evidence)
        currency = evidence[-1].currency
    elif any(row.state is ToldState.PAID for row in rows):
        state = "processing"
    elif rows:
        state = "expired"
    return Report(
        provider=payment.provider,
        provider_id=payment.provider_id or "",
        state=state,
        amount_minor=amount,
        currency=currency,
        reference=payment.reference,
        account=payment.account,
        livemode=payment.livemode,
        url=payment.url if state == "open" else None,
        charge_id=evidence[0].reference if evidence else None,
        paid_at=evidence[-1].paid_at if evidence else None,
        raw={"told": [_shown(row) for row in rows]} if rows else {},
    )


def _shown(row: ToldReport) -> dict[str, Any]:
    """A row as evidence: who said what."""
    return {
        "state": row.state.value,
        "amount_minor": row.amount_minor,
        "currency": row.currency,
        "reference": row.reference,
        "paid_at": row.paid_at.isoformat() if row.paid_at is not None else "",
        "told_by": "the provider's call" if row.by_id is None else f"user {row.by_id}",
        "confirmed_by": f"user {row.confirmed_by_id}" if row.confirmed_by_id is not None else "",
        "note": row.note,
    }
