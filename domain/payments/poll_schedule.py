"""When a payment is asked about: by the sweep, by whoever waits for it, and by a person's decision."""

from __future__ import annotations

from datetime import datetime, timedelta
from math import ceil

from sqlalchemy import or_, update

import config
from domain import clock, locks, timeline
from domain.errors import DomainError
from domain.providers import registry
from domain.providers.failure_reasons import Reason
from extensions import db
from models import PAYMENT_ACTIVE, Order, Payment, PaymentState

# Whoever waits, or rings without a signature, makes us ask the provider at most this often.
ASK_EVERY = timedelta(seconds=2)
# How often a payment is read that a person has stopped polling, and that cannot end by its age.
STOPPED = timedelta(hours=6)
# A person may give a payment so many minutes at a time.
MOST_MINUTES = 24 * 60
# A payment that is final is read again for late money, refunds and disputes.
REREADS = (timedelta(hours=1), timedelta(days=1))
# When a closed payment is asked about again that was not, or could not be, settled: soon, and after so many
# calls in vain seldom. One whose account is gone for good is not asked about for ever.
ASK_AGAIN = timedelta(minutes=15)
_OFTEN = 12
# So many calls in a row are more than a stumble.
_IN_VAIN = 3
_GIVEN_UP = timedelta(days=14)
# The slowest ways to pay are confirmed within so long.
_SLOW_BANKS = timedelta(days=30)
# For so long after its end a paid payment is read again soon where the reading did not tell what went back.
_REPEATED_FOR = timedelta(days=2)


def next_check(payment: Payment, now: datetime) -> datetime | None:
    """When the sweep looks again, after a check at `now`. None: at rest.

    Young payments are asked about in every sweep; older ones ever less often. One whose polling was stopped
    is read when it ends, because unknown is not unpaid.
    """
    if payment.state in PAYMENT_ACTIVE:
        if not payment.should_poll and payment.closes_at is not None and payment.closes_at > now:
            return payment.closes_at
        if not payment.should_poll and payment.state is PaymentState.PROCESSING:
            return now + STOPPED
        age = now - payment.created_at
        if age < timedelta(hours=3):
            return now
        return now + (timedelta(minutes=15) if age < timedelta(days=1) else timedelta(minutes=30))
    if payment.provider_id is None or registry.get(payment.provider, payment.account).immediate:
        # There is nothing to read: it ended before it was anywhere but here.
        return None
    if payment.reason_code == Reason.STAFF_ENDED and now - payment.state_since < _SLOW_BANKS:
        # The bank may still confirm it.
        return now + timedelta(days=1)
    later = (payment.state_since + delay for delay in REREADS)
    soonest = next((moment for moment in later if moment > now), None)
    if soonest is None and payment.has_open_ends:
        return now + timedelta(days=1)
    return soonest


def is_unreadable(payment: Payment, now: datetime) -> bool:
    """Whether a payment is past its end, and call after call about it found no answer.

    It is never closed for that by a rule. A person may, who has looked it up at the provider.
    """
    ended = payment.closes_at is not None and payment.closes_at <= now
    return payment.state in PAYMENT_ACTIVE and ended and payment.error_count >= _IN_VAIN


def is_stuck(payment: Payment, now: datetime) -> bool:
    """Whether a bank has been confirming it for so long that a person may end it."""
    slow = now - payment.state_since >= timedelta(minutes=config.get().stuck_minutes)
    return payment.state is PaymentState.PROCESSING and slow


def after_silence(payment: Payment, now: datetime, *, permanent: bool) -> datetime | None:
    """When the sweep looks again, after a call at `now` that found no answer. None: at rest."""
    if payment.state in PAYMENT_ACTIVE or permanent or now - payment.state_since > _GIVEN_UP:
        return next_check(payment, now)
    # The reading that is due an hour or a day after the end is not lost to an outage.
    return now + (ASK_AGAIN if payment.error_count < _OFTEN else STOPPED)


def read_soon(payment: Payment) -> None:
    """The report told that a payment is paid, and not what went back of it: the reading is not used up."""
    now = clock.now()
    soon = now + ASK_AGAIN
    if now - payment.state_since < _REPEATED_FOR and (
        payment.next_check_at is None or payment.next_check_at > soon
    ):
        payment.next_check_at = soon


def may_ask(payment: Payment) -> bool:
    """Take the turn to ask about a payment: somebody gets it every two seconds. Commits."""
    now = clock.now()
    mine = db.session.scalar(
        update(Payment)
        .where(
            Payment.id == payment.id,
            Payment.state == payment.state,
            or_(Payment.last_polled_at.is_(None), Payment.last_polled_at <= now - ASK_EVERY),
        )
        .values(last_polled_at=now)
        .returning(Payment.id)
    )
    db.session.commit()
    return mine is not None


def stop_polling(payment_id: int, reason: str, actor_id: int | None, *, door: str = "admin") -> None:
    """Sweeps stop asking about a payment until it ends; then it is read once more. Recorded; commits."""
    said = _note(reason)

    def work() -> None:
        payment, order = _polled(payment_id)
        if not payment.should_poll:
            raise DomainError("already_stopped", "Polling of this payment was stopped before.")
        payment.should_poll = False
        payment.next_check_at = next_check(payment, clock.now())
        timeline.note(order, "polling_stopped", said, door=door, payment=payment, actor_id=actor_id)

    locks.in_one_transaction(work)


def extend(payment_id: int, minutes: int, actor_id: int | None, note: str, *, door: str = "admin") -> None:
    """Give an unpaid payment `minutes` more before it is closed; polling goes on. Recorded; commits.

    What the order holds stays held so much longer. The provider's own page may still close before.
    """
    said = _note(note)
    if not 1 <= minutes <= MOST_MINUTES:
        raise DomainError("minutes", f"Give it between 1 and {MOST_MINUTES} minutes.")

    def work() -> None:
        payment, order = _polled(payment_id)
        if payment.cancel_asked_at is not None:
            raise DomainError("cancelling", "This payment is being cancelled, so it gets no more time.")
        now = clock.now()
        closes_at = max(payment.closes_at or now, now) + timedelta(minutes=minutes)
        payment.closes_at = closes_at
        began = payment.polling_started_at or payment.created_at
        payment.max_poll_duration_minutes = ceil((closes_at - began).total_seconds() / 60)
        payment.should_poll = True
        payment.next_check_at = now
        timeline.note(
            order,
            "polling_extended",
            f"{minutes} minutes more: {said}",
            door=door,
            payment=payment,
            actor_id=actor_id,
            data={"closes_at": closes_at.isoformat()},
        )

    locks.in_one_transaction(work)


def _note(text: str) -> str:
    if not text.strip():
        raise DomainError("note_needed", "Say why: the note is kept on the order's timeline.")
    return text.strip()


def _polled(payment_id: int) -> tuple[Payment, Order]:
    """The payment and its order, locked, while sweeps ask about it."""
    payment, order = locks.payment_and_order(payment_id)
    if payment.state not in PAYMENT_ACTIVE:
        raise DomainError("not_polled", f"This payment is {payment.state}: it is not waited for any more.")
    return payment, order
