"""Rings that were left undone: their list, and looking again at what they told of.

A ring that ended in an error is answered with 503, so that the provider rings again, and mostly it is done
then. What is not done an hour after it came is told to a person, who may have it looked at again: nothing
waits for the provider to come by once more. Only rings that are signed are remembered; anybody could fill
a list of the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import joinedload

from domain import clock, paging
from domain.payments import webhooks
from domain.providers.contract import ProviderError, Ring
from extensions import db
from models import Payment, WebhookEvent

AFTER = timedelta(hours=1)
# Whoever has all looked at again waits so long at most; and not for a provider that is silent.
_SECONDS = 15
_MOST = 500
_SILENT = 3


@dataclass(frozen=True)
class DeadRing:
    """A ring, and the payment that it tells of, if it is ours."""

    event: WebhookEvent
    payment: Payment | None


@dataclass(frozen=True)
class Looked:
    """How many rings are done now, how many were looked at in vain, and what was in the way of the last."""

    done: int
    failed: int
    error: ProviderError | None


def dead(now: datetime) -> tuple[ColumnElement[bool], ...]:
    """The conditions of a ring that was left undone for too long."""
    return WebhookEvent.done_at.is_(None), WebhookEvent.received_at <= now - AFTER


def count() -> tuple[int, datetime | None]:
    """How many there are, and when the oldest came."""
    number, oldest = db.session.execute(
        select(func.count(), func.min(WebhookEvent.received_at)).where(*dead(clock.now()))
    ).one()
    return number, oldest


def page(before: int | None = None) -> paging.Rows[DeadRing]:
    """A page of them, the newest first, each with its payment, in two queries."""
    found = paging.page(select(WebhookEvent).where(*dead(clock.now())), WebhookEvent.id, before)
    rungs = {event.id: webhooks.remembered(event) for event in found.rows}
    known = _payments(rungs.values())
    rows = [DeadRing(event, _of(event.provider, rungs[event.id], known)) for event in found.rows]
    return paging.Rows(rows, found.more)


def _payments(rungs: Iterable[Ring]) -> dict[tuple[str, str], Payment]:
    """The payments that rings speak of, by provider and each of their names."""
    named: dict[str, set[str]] = {"provider_id": set(), "charge_id": set(), "reference": set()}
    for rung in rungs:
        for name, values in named.items():
            if value := getattr(rung, name):
                values.add(value)
    which = [getattr(Payment, name).in_(values) for name, values in named.items() if values]
    if not which:
        return {}
    query = select(Payment).where(or_(*which)).options(joinedload(Payment.order))
    return {
        (payment.provider, value): payment
        for payment in db.session.scalars(query)
        for name in named
        if (value := getattr(payment, name))
    }


def _of(provider: str, rung: Ring, known: dict[tuple[str, str], Payment]) -> Payment | None:
    names = (rung.provider_id, rung.charge_id, rung.reference)
    return next((known[provider, name] for name in names if name and (provider, name) in known), None)


def look_again(*, actor_id: int) -> Looked:
    """Look again at all of them, the oldest first, for as long as somebody waits. Commits for each."""
    now, ends = clock.now(), monotonic() + _SECONDS
    query = select(WebhookEvent.id).where(*dead(now)).order_by(WebhookEvent.received_at).limit(_MOST)
    done = failed = silent = 0
    error: ProviderError | None = None
    for event_id in list(db.session.scalars(query)):
        if monotonic() > ends or silent >= _SILENT:
            break
        told = webhooks.look_again(event_id, actor_id=actor_id)
        done, failed = done + (told is None), failed + (told is not None)
        silent = silent + 1 if told is not None and told.silent else 0
        error = told or error
    return Looked(done, failed, error)
