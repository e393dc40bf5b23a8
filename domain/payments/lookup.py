"""Finding a payment by any of the names that a person, a page or a provider has for it."""

from __future__ import annotations

from sqlalchemy import func, or_, select

from domain.providers.contract import Report
from extensions import db
from models import Order, Payment


def by_provider_id(provider: str, provider_id: str) -> Payment | None:
    """The payment that has this id at its provider."""
    return db.session.scalar(select(Payment).filter_by(provider=provider, provider_id=provider_id))


def on_record(report: Report) -> bool:
    """Whether a payment of ours has the id or the charge that a report names."""
    names = [Payment.provider_id == report.provider_id]
    if report.charge_id is not None:
        names.append(Payment.charge_id == report.charge_id)
    known = select(Payment.id).where(Payment.provider == report.provider, or_(*names))
    return db.session.scalar(known.limit(1)) is not None


def by_code(code: str) -> Payment | None:
    """The newest payment of an order code, or the payment of a reference or provider id."""
    return db.session.scalar(
        select(Payment)
        .join(Order)
        .where(
            or_(
                func.upper(Order.code) == code.upper(),
                Payment.reference == code.upper(),
                Payment.provider_id == code,
            )
        )
        .order_by(Payment.attempt.desc())
        .limit(1)
    )
