"""What is not kept for ever.

An athlete's weight is forgotten some weeks after the tournament it was for; the answers of named requests
after a day; programs' logins when they are over; budgets of mail after a day. Rings, sweeps, links and
heartbeats go at an age that is a setting. A mail that was sent keeps to whom, what, when and for which order,
and after some years loses what it was written from; orders, payments, refunds, disputes, tickets, transfers
and timelines stay. Who asked to be forgotten is, when that is due; and by whom buyers of past events were
reached goes by its age.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from time import monotonic
from typing import Any

import structlog
from sqlalchemy import ColumnElement, and_, delete, func, literal_column, or_, select, update

import config
from domain import clock, repeated_requests
from domain.office import erasures, thinning
from domain.orders import waiting_line
from domain.post import budgets
from domain.security import api_tokens
from extensions import db
from models import (
    Athlete,
    Dispute,
    Event,
    Heartbeat,
    OneTimeLink,
    Order,
    OutboxMail,
    Participant,
    Payment,
    SweepRun,
    TicketType,
    WebhookEvent,
    WholeCheck,
)

log = structlog.get_logger(__name__)

# Rows in one statement, and seconds for one kind of row in one run.
_BATCH = 5_000
_SECONDS = 20
_CHECKS_KEPT = timedelta(days=30)


def forget() -> int:
    """Forget what is due; how many rows that changed. Commits."""
    forgotten = _weights() + repeated_requests.forget() + api_tokens.forget() + budgets.forget()
    forgotten += waiting_line.forget() + _aged() + _thinned_mails()
    return forgotten + erasures.run_due() + thinning.run()


def _aged() -> int:
    """Delete what only told of the past, some at a time. What was left undone, or is the last one, stays."""
    kept, now = config.get(), clock.now()
    last_check = select(func.max(WholeCheck.id)).scalar_subquery()
    last_sweep = select(func.max(SweepRun.id)).scalar_subquery()
    old: tuple[tuple[Any, ColumnElement[bool]], ...] = (
        (
            WebhookEvent.id,
            and_(WebhookEvent.received_at < _days(kept.rings_kept_days), WebhookEvent.done_at.is_not(None)),
        ),
        (SweepRun.id, and_(SweepRun.started_at < _days(kept.sweeps_kept_days), SweepRun.id < last_sweep)),
        (OneTimeLink.id, OneTimeLink.expires_at < _days(kept.links_kept_days)),
        (Heartbeat.name, Heartbeat.at < _days(kept.heartbeats_kept_days)),
        (WholeCheck.id, and_(WholeCheck.began_at < now - _CHECKS_KEPT, WholeCheck.id < last_check)),
    )
    return sum(_delete(key, which) for key, which in old)


def _days(number: int) -> datetime:
    return clock.now() - timedelta(days=number)


def _delete(key: Any, which: ColumnElement[bool]) -> int:
    def some() -> int:
        first = select(key).where(which).limit(_BATCH)
        query = delete(key.class_).where(key.in_(first)).execution_options(synchronize_session=False)
        return len(db.session.execute(query.returning(key)).all())

    return _in_batches(key.class_.__tablename__, some)


def _thinned_mails() -> int:
    """Empty what old mails were written from: after some years, or sooner where nobody can dispute it."""
    kept = config.get()
    whole = and_(OutboxMail.state == literal_column("'sent'"), OutboxMail.context != literal_column("'{}'"))
    over = Event.ends_at < _days(kept.disputable_days)
    # However old it is: what the buyer was told is what a bank is shown.
    disputed = select(Payment.order_id).join(Dispute, Dispute.payment_id == Payment.id)
    disputed = disputed.where(Dispute.closed_at.is_(None))
    whole = and_(whole, or_(OutboxMail.order_id.is_(None), OutboxMail.order_id.not_in(disputed)))
    of_events = select(Order.id).join(Event, Event.id == Order.event_id).where(over)
    ways = (
        OutboxMail.sent_at < _days(kept.mails_kept_days),
        # Nothing is sent long before its event, so that the index leaves out the most.
        and_(OutboxMail.sent_at < _days(kept.disputable_days), OutboxMail.order_id.in_(of_events)),
    )
    return sum(_in_batches("outbox", partial(_thin, whole, which)) for which in ways)


def _thin(whole: ColumnElement[bool], which: ColumnElement[bool]) -> int:
    first = select(OutboxMail.id).where(whole, which).limit(_BATCH)
    query = update(OutboxMail).where(OutboxMail.id.in_(first)).values(context={})
    query = query.execution_options(synchronize_session=False)
    return len(db.session.execute(query.returning(OutboxMail.id)).all())


def _in_batches(table: str, some: Callable[[], int]) -> int:
    """Do `some` of the work until none is left, or for a while; the next run goes on. Commits for each."""
    ends, gone = monotonic() + _SECONDS, 0
    while monotonic() < ends:
        done = some()
        db.session.commit()
        gone += done
        if done < _BATCH:
            break
    if gone:
        log.info("aged_rows", table=table, rows=gone)
    return gone


def _weights() -> int:
    before = clock.now() - timedelta(days=config.get().weight_kept_days)
    kinds = select(TicketType.id).join(Event, Event.id == TicketType.event_id)
    over = kinds.where(Event.ends_at < before)
    entered = db.session.scalars(
        update(Participant)
        .where(Participant.weight_g.is_not(None), Participant.ticket_type_id.in_(over))
        .values(weight_g=None)
        .returning(Participant.id)
        .execution_options(synchronize_session=False)
    ).all()
    still = select(Participant.athlete_id).where(
        Participant.ticket_type_id.in_(kinds.where(Event.ends_at >= before))
    )
    kept = db.session.scalars(
        update(Athlete)
        .where(Athlete.weight_g.is_not(None), Athlete.weight_at < before, Athlete.id.not_in(still))
        .values(weight_g=None, weight_at=None)
        .returning(Athlete.id)
        .execution_options(synchronize_session=False)
    ).all()
    db.session.commit()
    if entered or kept:
        log.info("weights_forgotten", entries=len(entered), athletes=len(kept))
    return len(entered) + len(kept)
