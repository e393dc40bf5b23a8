"""Whether the call that opens a payment can have reached its provider: what was never asked for has no money.

An organiser's connection may break, for good, before their payment was opened. Nobody can ask the provider
then, so its last word never comes. Where a call may have arrived, the payment waits for the connection, and a
person is told; where certainly none did, it ends at its deadline. So a connected account's payment says since
when it may have been asked for, before it is. Other accounts cost no such commit: their silence passes.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import or_, update

from domain import clock
from domain.connections.credentials import NOT_CONNECTED
from domain.providers import bulkhead, registry
from domain.providers.contract import ProviderError
from extensions import db
from models import Connection, ConnectionState, Payment, PaymentState

# A call that was begun so recently may be under way still, in another process.
IN_FLIGHT = timedelta(seconds=60)


def is_over(payment: Payment) -> bool:
    """Whether the time has passed in which its page was to be paid."""
    return payment.closes_at is not None and payment.closes_at <= clock.now()


def begin(payment: Payment) -> ProviderError | None:
    """Write down that a call is about to be made; or say why none can be, and none ever was. Commits."""
    own = registry.get(payment.provider)
    if not own.connects or payment.account == own.account or payment.asked_at is not None:
        db.session.rollback()
        return None
    provider, account = payment.provider, payment.account
    state = db.session.query(Connection.state).filter_by(provider=provider, account=account).scalar()
    if state is None or state is ConnectionState.BROKEN:
        db.session.rollback()
        words = f"Account {account} is not connected to {provider}."
        return ProviderError(words, permanent=False, code=NOT_CONNECTED)
    _write(payment.id, asked=True)
    return None


def ask_for(payment: Payment) -> bool:
    """Its buyer asks for a payment that waited for them; False where it has ended. Commits.

    From here on it is finished by whoever comes, as any other, and the order is kept for as long as any other
    of its provider: a waiting line keeps it for a few minutes before that.
    """
    now = clock.now()
    minutes = timedelta(minutes=payment.max_poll_duration_minutes or 0)
    whole = payment.created_at + minutes
    ends = payment.closes_at
    if ends is not None and whole - ends > timedelta(minutes=1):
        ends = whole
    asked = db.session.scalar(
        update(Payment)
        .where(Payment.id == payment.id, Payment.state == PaymentState.CREATED, Payment.awaits_buyer)
        .where(or_(Payment.closes_at.is_(None), Payment.closes_at > now))
        .values(awaits_buyer=False, closes_at=ends, next_check_at=now + timedelta(seconds=20))
        .returning(Payment.id)
    )
    db.session.commit()
    return asked is not None


def claim(payment_id: int) -> bool:
    """Take the turn to make a call that is made once. False where another has it, or had it. Commits."""
    mine = db.session.scalar(
        update(Payment)
        .where(Payment.id == payment_id, Payment.state == PaymentState.CREATED, Payment.asked_at.is_(None))
        .values(asked_at=clock.now())
        .returning(Payment.id)
    )
    db.session.commit()
    return mine is not None


def was_not_asked(error: ProviderError) -> bool:
    """Whether a call that ended so was certainly not made, or did nothing."""
    return error.undone or error.code in (NOT_CONNECTED, bulkhead.NO_ROOM)


def take_back(payment_id: int, error: ProviderError) -> None:
    """The only attempt ended in `error`: without the right to speak, or room, nothing was asked. Commits."""
    if was_not_asked(error):
        _write(payment_id, asked=False)


def _write(payment_id: int, *, asked: bool) -> None:
    moment = clock.now() if asked else None
    db.session.execute(update(Payment).where(Payment.id == payment_id).values(asked_at=moment))
    db.session.commit()
