"""Payments as an admin looks for them: by status, way to pay, tournament and day. Only reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, Select, select, tuple_
from sqlalchemy.orm import contains_eager, joinedload, selectinload

import config
from domain import paging
from domain.payments import status_words
from domain.payments.status_words import PaymentStatus, in_status
from extensions import EXPORTS, db, limited
from models import Event, Order, Participant, Payment

# So many of the newest are looked through for what no index has.
_FAR = 500


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
    """A page of payments, the newest first, in few queries however many there are.

    Indexes have those of a status, of a day, and of a tournament, whose newest orders are first. What else is
    asked for is looked for in the newest `_FAR` of these, and the next page goes on behind them: a page may
    hold few, or none, where others follow.
    """
    with limited(EXPORTS):
        listed = _listed(wanted, before)
        if listed is None:
            return paging.Rows([], None)
        most = _FAR if listed.among else paging.PAGE + 1
        ids = db.session.scalars(listed.ids.order_by(*listed.order).limit(most)).all()
        rows = list(db.session.scalars(_whole(listed, ids)))
        theirs = _participants([payment.order_id for payment in rows])
    beyond = ids[-1] if listed.among and len(ids) == most else None
    more = rows[paging.PAGE - 1].id if len(rows) > paging.PAGE else beyond
    found = [Found(payment, theirs.get(payment.order_id)) for payment in rows[: paging.PAGE]]
    return paging.Rows(found, more)


@dataclass(frozen=True)
class _Listed:
    """What an index has of what is wanted, in which order; and what is to be looked for among that."""

    ids: Select[int]
    order: tuple[Any, ...]
    among: list[ColumnElement[bool]]


def _listed(wanted: Wanted, before: int | None) -> _Listed | None:
    last = db.session.get(Payment, before) if before is not None else None
    if before is not None and last is None:
        return None
    among = [Payment.method == wanted.method] if wanted.method is not None else []
    if wanted.tournament is not None:
        return _of_tournament(wanted, wanted.tournament, last, [*among, *_days(wanted)])
    ids = select(Payment.id).where(*_days(wanted))
    if last is not None:
        behind = tuple_(Payment.created_at, Payment.id) < tuple_(last.created_at, last.id)
        ids = ids.where(Payment.created_at <= last.created_at, behind)
    if wanted.status is not None:
        states, rest = status_words.by_index(wanted.status)
        ids, among = ids.where(*states), [*among, *rest]
    return _Listed(ids, (Payment.created_at.desc(), Payment.id.desc()), among)


def _of_tournament(
    wanted: Wanted, slug: str, last: Payment | None, among: list[ColumnElement[bool]]
) -> _Listed | None:
    event_id = db.session.scalar(select(Event.id).filter_by(slug=slug))
    if event_id is None:
        return None
    ids = select(Payment.id).join(Order, Order.id == Payment.order_id).where(Order.event_id == event_id)
    if last is not None:
        behind = tuple_(Order.id, Payment.id) < tuple_(last.order_id, last.id)
        ids = ids.where(Order.id <= last.order_id, behind)
    if wanted.status is not None:
        among = [*among, in_status(wanted.status)]
    # An index has the orders of an event by their number.
    return _Listed(ids, (Order.id.desc(), Payment.id.desc()), among)


def _days(wanted: Wanted) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if wanted.since is not None:
        found.append(Payment.created_at >= _midnight(wanted.since))
    if wanted.until is not None:
        found.append(Payment.created_at < _midnight(wanted.until + timedelta(days=1)))
    return found


def _whole(listed: _Listed, ids: Sequence[int]) -> Select[Payment]:
    return (
        select(Payment)
        .join(Order, Order.id == Payment.order_id)
        .where(Payment.id.in_(ids), *listed.among)
        .order_by(*listed.order)
        .limit(paging.PAGE + 1)
        .options(
            contains_eager(Payment.order).joinedload(Order.event),
            selectinload(Payment.refunds),
            selectinload(Payment.disputes),
        )
    )


def _participants(order_ids: list[int]) -> dict[int, Participant]:
    query = select(Participant).where(Participant.order_id.in_(order_ids))
    return {one.order_id: one for one in db.session.scalars(query.options(joinedload(Participant.athlete)))}


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), ZoneInfo(config.get().timezone))
