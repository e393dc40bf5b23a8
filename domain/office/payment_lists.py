"""Payments as an admin looks for them: by status, way to pay, tournament and day. Only reads."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import exists, select
from sqlalchemy.orm import contains_eager, joinedload, selectinload

import config
from domain import paging
from domain.payments.status_words import PaymentStatus, in_status
from extensions import EXPORTS, db, limited
from models import Event, Order, Participant, Payment


@dataclass(frozen=True)
class Wanted:
    """What is looked for; None is anything. Days are the house's own, both of them included."""

    status: PaymentStatus | None = None
    method: str | None = None
    tournament: str | None = None
    since: date | None = None
    until: date | None = None


@dataclass(frozen=True)
class Found:
    """A payment, and whose place it pays for; None where it is about something else."""

    payment: Payment
    participant: Participant | None


def find(wanted: Wanted, before: int | None = None) -> paging.Rows[Found]:
    """A page of payments, the newest first, in three queries however many there are."""
    query = (
        select(Payment)
        .join(Order, Order.id == Payment.order_id)
        .options(
            contains_eager(Payment.order).joinedload(Order.event),
            selectinload(Payment.refunds),
            selectinload(Payment.disputes),
        )
    )
    if wanted.status is not None:
        query = query.where(in_status(wanted.status))
    if wanted.method is not None:
        query = query.where(Payment.method == wanted.method)
    if wanted.tournament is not None:
        own = exists().where(Event.id == Order.event_id, Event.slug == wanted.tournament)
        query = query.where(own)
    if wanted.since is not None:
        query = query.where(Payment.created_at >= _midnight(wanted.since))
    if wanted.until is not None:
        query = query.where(Payment.created_at < _midnight(wanted.until + timedelta(days=1)))
    with limited(EXPORTS):
        page = paging.page(query, Payment.id, before)
    theirs = _participants([payment.order_id for payment in page.rows])
    return paging.Rows([Found(payment, theirs.get(payment.order_id)) for payment in page.rows], page.more)


def _participants(order_ids: list[int]) -> dict[int, Participant]:
    query = select(Participant).where(Participant.order_id.in_(order_ids))
    return {one.order_id: one for one in db.session.scalars(query.options(joinedload(Participant.athlete)))}


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), ZoneInfo(config.get().timezone))
