"""How many rows there are of each state, without counting a million of them each time somebody asks.

Old rows that have come to an end are counted once a night. What is newer, and whatever is still to come to an
end however old it is, is counted when it is asked for: what an alarm is made of is exact. A table of few rows
is counted as a whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, false, func, select
from sqlalchemy.dialects.postgresql import insert

from domain import clock
from extensions import Base, db
from models import (
    PAYMENT_ACTIVE,
    MailState,
    Order,
    OrderState,
    OutboxMail,
    Payment,
    PaymentState,
    Tally,
    Ticket,
    WebhookEvent,
)

# The newest rows are always counted afresh; a table that has not more than these is.
RECENT = 5_000
_UNPAID = (OrderState.PENDING, OrderState.PENDING_VERIFICATION, OrderState.REVIEW)


@dataclass(frozen=True)
class Counted:
    """A table, by what its rows are counted, and which are still to come to an end, as an index has them."""

    model: type[Base]
    by: tuple[Any, ...]
    live: ColumnElement[bool]

    @property
    def name(self) -> str:
        return str(self.model.__tablename__)

    @property
    def id(self) -> Any:
        return self.model.__table__.c.id


PAYMENTS = Counted(
    Payment, (Payment.provider, Payment.state), Payment.state.in_((*PAYMENT_ACTIVE, PaymentState.REVIEW))
)
ORDERS = Counted(Order, (Order.state,), Order.state.in_(_UNPAID))
TICKETS = Counted(Ticket, (Ticket.state,), false())
OUTBOX = Counted(OutboxMail, (OutboxMail.state,), OutboxMail.state.in_((MailState.DUE, MailState.FAILED)))
RINGS = Counted(
    WebhookEvent, (WebhookEvent.provider, WebhookEvent.done_at.is_not(None)), WebhookEvent.done_at.is_(None)
)
ALL = (PAYMENTS, ORDERS, TICKETS, OUTBOX, RINGS)


def read(of: Counted) -> dict[tuple[Any, ...], int]:
    """How many rows there are, by the values of `of.by` as text, or as true and false."""
    kept = db.session.get(Tally, of.name, populate_existing=True)
    if kept is None:
        return _counts(of)
    found = Counter({tuple(row[:-1]): int(row[-1]) for row in kept.counts})
    found.update(_counts(of, of.id > kept.upto_id, ~of.live))
    found.update(_counts(of, of.live))
    return dict(found)


def renew() -> None:
    """Count the old rows of the tables that have many. No commit."""
    for of in ALL:
        last = db.session.scalar(select(func.max(of.id))) or 0
        if last <= RECENT:
            continue
        upto = last - RECENT
        counts = [[*labels, number] for labels, number in _counts(of, of.id <= upto, ~of.live).items()]
        row = {"upto_id": upto, "counted_at": clock.now(), "counts": counts}
        query = insert(Tally).values(name=of.name, **row)
        db.session.execute(query.on_conflict_do_update(index_elements=["name"], set_=row))


def _counts(of: Counted, *which: ColumnElement[bool]) -> dict[tuple[Any, ...], int]:
    query = select(*of.by, func.count()).where(*which).group_by(*of.by)
    return {_labels(labels): number for *labels, number in db.session.execute(query)}


def _labels(values: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(value if isinstance(value, bool) else str(value) for value in values)
