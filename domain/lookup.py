"""Finding a payment by any of the names that a person, a page or a provider has for it."""

from __future__ import annotations

from sqlalchemy import func, or_, select

from extensions import db
from models import Order, Payment


def by_provider_id(provider: str, provider_id: str) -> Payment | None:
    """The payment that has this id at its provider."""
    return db.session.scalar(select(Payment).filter_by(provider=provider, provider_id=provider_id))


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
