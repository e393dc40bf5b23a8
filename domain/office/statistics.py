"""What is measured of payments, over a time: how many succeed by which method, how long they take, why others
fail, and what tournaments and events earned. Only reads.

The same numbers are on a page, in files, in the API, and for the last day on /metrics. Every question reads
what an index finds of the time that is asked for, and no time is longer than `LONGEST`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from enum import StrEnum
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, Select, case, exists, func, not_, or_, select
from sqlalchemy.orm import aliased

import config
from domain import clock, money, spreadsheets
from domain.catalogue.takings import counted_disputes, for_tickets
from domain.errors import DomainError, NotFound
from domain.kept_answers import KeptAnswers
from domain.office import changes
from domain.providers import failure_reasons
from domain.providers.failure_reasons import Reason
from extensions import EXPORTS, db, limited
from models import Dispute, Event, EventKind, Order, Payment, PaymentState, Refund, RefundState

# In days; a month is counted as 31, so that a whole number of them is allowed.
LONGEST = {"day": 92, "week": 2 * 366, "month": 5 * 366}
USUAL_DAYS = 30
# So many events are named in revenue, those that earned most; the others are one line.
MOST_EVENTS = 40
_CHOICES = 200
_ENDED = (PaymentState.PAID, PaymentState.FAILED, PaymentState.EXPIRED, PaymentState.CANCELLED)
_GOING = (RefundState.PENDING, RefundState.SUCCEEDED)


class Step(StrEnum):
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


@dataclass(frozen=True)
class Span:
    """From a moment until another, which is not in it any more; of one event, or of all."""

    since: datetime
    until: datetime
    step: Step = Step.DAY
    event: Event | None = None

    @property
    def first(self) -> date:
        """Its first day, by the box office's clock."""
        return self.since.astimezone(_zone()).date()

    @property
    def last(self) -> date:
        """Its last day, which is in it."""
        return (self.until - timedelta(microseconds=1)).astimezone(_zone()).date()


@dataclass(frozen=True)
class Method:
    """The payments that were begun by one method, by how they ended; seconds from begin to paid."""

    method: str
    paid: int
    failed: int
    expired: int
    cancelled: int
    waiting: int
    median_seconds: float | None
    p95_seconds: float | None

    @property
    def ended(self) -> int:
        return self.paid + self.failed + self.expired + self.cancelled

    @property
    def success(self) -> float | None:
        """The share of those that came to an end which were paid; None while none has."""
        return self.paid / self.ended if self.ended else None


@dataclass(frozen=True)
class Failure:
    """How many payments failed for one reason by one method. `words` are those that the buyer read."""

    code: str
    method: str
    count: int

    @property
    def words(self) -> str:
        return failure_reasons.words(self.code) or "No reason was given."


@dataclass(frozen=True)
class Revenue:
    """What one event took in one step of time and one currency, in minor units, and what of it went back.

    `begins` is the step's first day, None where all steps are one. `event_id` is None for all events that are
    not named, or where all are one.
    """

    begins: date | None
    event_id: int | None
    title: str
    # Its address, by which two events of one title are told apart; "" where it is not one event's.
    slug: str
    currency: str
    payments: int
    taken_minor: int
    back_minor: int

    @property
    def net_minor(self) -> int:
        return self.taken_minor - self.back_minor


@dataclass(frozen=True)
class Statistics:
    """All of it."""

    span: Span
    methods: Sequence[Method]
    failures: Sequence[Failure]
    revenue: Sequence[Revenue]


# --- The time -------------------------------------------------------------------------------------------


def _zone() -> ZoneInfo:
    return ZoneInfo(config.get().timezone)


def span(first: str = "", last: str = "", step: str = "", event: str = "") -> Span:
    """A time as somebody typed it: days such as 2026-11-29, a step, an event's slug; "" is the usual.

    DomainError in words.
    """
    today = clock.now().astimezone(_zone()).date()
    ends = _day(last) or today
    begins = _day(first) or ends - timedelta(days=USUAL_DAYS - 1)
    if begins > ends:
        raise DomainError("span", "The first day is after the last one.")
    by = Step(step) if step in set(Step) else Step.DAY
    if (ends - begins).days >= LONGEST[by]:
        raise DomainError(
            "span",
            f"That is too long to be shown by {by}: choose {LONGEST[by]} days at most, or longer steps.",
        )
    return Span(_midnight(begins), _midnight(ends + timedelta(days=1)), by, _event(event) if event else None)


def last_day() -> Span:
    """The last 24 hours, of all events."""
    now = clock.now()
    return Span(now - timedelta(days=1), now)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time.min, _zone())


def _day(text: str) -> date | None:
    if not text.strip():
        return None
    try:
        found = date.fromisoformat(text.strip())
    except ValueError:
        raise DomainError("span", "Type each day such as 2026-11-29.") from None
    if not 2000 <= found.year <= 2200:
        raise DomainError("span", "There are no payments of such a year.")
    return found


def _event(slug: str) -> Event:
    found = db.session.scalar(select(Event).filter_by(slug=slug))
    if found is None:
        raise NotFound("no_event", "There is no event at this address.")
    return found


def choices() -> list[Event]:
    """The events to choose from: tournaments first, then the others, the newest first."""
    tournaments_first = case((Event.kind == EventKind.TOURNAMENT, 0), else_=1)
    query = select(Event).order_by(tournaments_first, Event.starts_at.desc()).limit(_CHOICES)
    return list(db.session.scalars(query))


# --- Reading --------------------------------------------------------------------------------------------


_kept: KeptAnswers[tuple[Any, ...], Statistics] = KeptAnswers()


def read(asked: Span) -> Statistics:
    """Everything about a time. In a large shop it may be some minutes old."""
    if not changes.is_large():
        return _measure(asked)
    event_id = asked.event.id if asked.event is not None else None
    return _kept.get((asked.since, asked.until, asked.step, event_id), partial(_measure, asked))


def _measure(asked: Span) -> Statistics:
    """The same, in three questions."""
    with limited(EXPORTS):
        db.session.rollback()
        found = Statistics(asked, methods(asked), failures(asked), revenue(asked))
        db.session.rollback()
    return found


def _method() -> ColumnElement[str]:
    """What was used where the provider told, else what was chosen; before there was a choice, who took it."""
    known = func.coalesce(func.nullif(Payment.used_method, ""), func.nullif(Payment.method, ""))
    return func.coalesce(known, Payment.provider)


def _begun(asked: Span, states: Iterable[PaymentState]) -> list[ColumnElement[bool]]:
    """The conditions of payments that were begun in that time, as the index on state and begin has them.

    An attempt that was never opened, and that another took the place of, was nobody's failure. One that the
    provider never opened, and that ended there, was.
    """
    later = aliased(Payment)
    replaced = exists().where(later.order_id == Payment.order_id, later.attempt > Payment.attempt)
    return [
        Payment.state.in_(tuple(states)),
        Payment.created_at >= asked.since,
        Payment.created_at < asked.until,
        or_(
            Payment.reason_code != Reason.NOT_OPENED,
            Payment.state != PaymentState.FAILED,
            not_(replaced),
        ),
    ]


def _of_event(query: Any, asked: Span) -> Any:
    if asked.event is None:
        return query
    return query.join(Order, Order.id == Payment.order_id).where(Order.event_id == asked.event.id)


def methods(asked: Span) -> list[Method]:
    """Each method's payments that were begun in that time, the most used first."""
    method = _method()
    is_paid = Payment.state == PaymentState.PAID
    counts = [func.count().filter(Payment.state == state) for state in _ENDED]
    waiting_still = func.count().filter(Payment.state.not_in(_ENDED))
    took = func.extract("epoch", Payment.paid_at - Payment.created_at)
    quantiles = [func.percentile_cont(share).within_group(took).filter(is_paid) for share in (0.5, 0.95)]
    sums: list[Any] = [*counts, waiting_still, *quantiles]
    query: Select[Any] = select(method, *sums).where(*_begun(asked, PaymentState))
    rows = db.session.execute(_of_event(query, asked).group_by(method).order_by(func.count().desc(), method))
    return [
        Method(name, paid, failed, expired, cancelled, waiting, _seconds(median), _seconds(p95))
        for name, paid, failed, expired, cancelled, waiting, median, p95 in rows
    ]


def _seconds(value: Any) -> float | None:
    return max(0.0, float(value)) if value is not None else None


def failures(asked: Span) -> list[Failure]:
    """Why payments that were begun in that time failed, the most frequent reason first."""
    method = _method()
    count: Any = func.count()
    begun = select(Payment.reason_code, method, count).where(*_begun(asked, [PaymentState.FAILED]))
    query = _of_event(begun, asked).group_by(Payment.reason_code, method)
    rows = db.session.execute(query.order_by(func.count().desc(), Payment.reason_code, method))
    return [Failure(*row) for row in rows]


def revenue(asked: Span) -> list[Revenue]:
    """What places and tickets earned that were paid in that time, step by step.

    Top-ups of wallets and listing fees are no revenue of an event. What went back, or is with a bank, is
    counted with the payment that it went back from, whenever it went.
    """
    taken = func.sum(func.coalesce(Payment.received_minor, Payment.amount_minor))
    found = _bought(asked, Payment.currency, func.count(), taken)
    back: Counter[tuple[Any, ...]] = Counter()
    refunds = _bought(asked, Refund.currency, func.sum(Refund.amount_minor)).join(
        Refund, Refund.payment_id == Payment.id
    )
    disputes = _bought(asked, Dispute.currency, func.sum(Dispute.amount_minor)).join(
        Dispute, Dispute.payment_id == Payment.id
    )
    for query in (refunds.where(Refund.state.in_(_GOING)), disputes.where(*counted_disputes())):
        for *key, minor in db.session.execute(query):
            back[tuple(key)] += int(minor)
    rows = []
    for begins, event_id, title, slug, currency, count, minor in db.session.execute(found):
        gone = back[begins, event_id, title, slug, currency]
        rows.append(Revenue(begins, event_id, title, slug, currency, count, int(minor), gone))
    return sorted(_fewer(rows), key=lambda row: (row.begins or date.min, -row.taken_minor, row.title))


def _bought(asked: Span, currency: Any, *sums: Any) -> Select[Any]:
    """Sums over the payments that bought places and tickets in that time: by step, event and currency."""
    begins = func.date(func.date_trunc(asked.step.value, func.timezone(_zone().key, Payment.paid_at)))
    groups = (begins, Order.event_id, Event.title, Event.slug, currency)
    query = (
        select(*groups, *sums)
        .select_from(Payment)
        .join(Order, Order.id == Payment.order_id)
        .join(Event, Event.id == Order.event_id)
        .where(Payment.fulfilled, Payment.paid_at >= asked.since, Payment.paid_at < asked.until)
        .where(for_tickets())
        .group_by(*groups)
    )
    return query.where(Order.event_id == asked.event.id) if asked.event is not None else query


def _fewer(rows: Sequence[Revenue]) -> list[Revenue]:
    """The same, with all events beyond the first `MOST_EVENTS` as one."""
    places: dict[int | None, int] = {}
    for currency in {row.currency for row in rows}:
        of_currency = by_event([row for row in rows if row.currency == currency])
        for place, row in enumerate(of_currency):
            places[row.event_id] = min(place, places.get(row.event_id, place))
    named = set(sorted(places, key=lambda event_id: places[event_id])[:MOST_EVENTS])
    others = [row for row in rows if row.event_id not in named]
    kept = [row for row in rows if row.event_id in named]
    return kept + [replace(row, title="Other events") for row in by_step(others)]


def by_event(rows: Iterable[Revenue]) -> list[Revenue]:
    """All steps of an event as one, those that earned most first."""
    summed = _summed(rows, lambda row: replace(row, begins=None))
    return sorted(summed, key=lambda row: (row.currency, -row.taken_minor, row.title))


def by_step(rows: Iterable[Revenue]) -> list[Revenue]:
    """All events of a step as one, in the order of time."""
    summed = _summed(rows, lambda row: replace(row, event_id=None, title="", slug=""))
    return sorted(summed, key=lambda row: (row.begins or date.min, row.currency))


def _summed(rows: Iterable[Revenue], into: Callable[[Revenue], Revenue]) -> list[Revenue]:
    sums: dict[tuple[Any, ...], Revenue] = {}
    for row in rows:
        made = into(row)
        key = (made.begins, made.event_id, made.title, made.currency)
        before = sums.get(key)
        sums[key] = made if before is None else _together(before, made)
    return list(sums.values())


def _together(one: Revenue, other: Revenue) -> Revenue:
    names = ("payments", "taken_minor", "back_minor")
    return replace(one, **{name: getattr(one, name) + getattr(other, name) for name in names})


# --- Writing it down ------------------------------------------------------------------------------------


def as_dict(found: Statistics) -> dict[str, Any]:
    """The same as JSON tells it: days as 2026-11-29, times in seconds, shares of 1, money in minor units."""
    asked = found.span
    return {
        "from": asked.first.isoformat(),
        "to": asked.last.isoformat(),
        "step": str(asked.step),
        "methods": [_method_told(one) for one in found.methods],
        "failures": [
            {"reason": one.code, "method": one.method, "count": one.count} for one in found.failures
        ],
        "revenue": [_revenue_told(one) for one in found.revenue],
    }


def _method_told(one: Method) -> dict[str, Any]:
    counts = ("paid", "failed", "expired", "cancelled", "waiting")
    return {
        "method": one.method,
        **{name: getattr(one, name) for name in counts},
        "success_rate": round(one.success, 4) if one.success is not None else None,
        "median_seconds": _rounded(one.median_seconds),
        "p95_seconds": _rounded(one.p95_seconds),
    }


def _rounded(seconds: float | None) -> float | None:
    return round(seconds, 1) if seconds is not None else None


def _revenue_told(one: Revenue) -> dict[str, Any]:
    return {
        "begins": one.begins.isoformat() if one.begins is not None else None,
        "event": one.title,
        "slug": one.slug,
        "currency": one.currency,
        "payments": one.payments,
        "taken_minor": one.taken_minor,
        "back_minor": one.back_minor,
    }


FILES = ("methods", "failures", "revenue")


def as_csv(found: Statistics, what: str) -> bytes:
    """One of `FILES`, for a spreadsheet: amounts in whole and decimal units of their currency."""
    if what == "methods":
        counts = ("Paid", "Failed", "Expired", "Cancelled", "Waiting")
        columns: Sequence[str] = ("Method", *counts, "Success", "Median seconds", "95% within seconds")
        rows: Iterable[Iterable[Any]] = [_method_told(one).values() for one in found.methods]
    elif what == "failures":
        columns = ("Reason", "Words", "Method", "Payments")
        rows = [(one.code, one.words, one.method, one.count) for one in found.failures]
    else:
        columns = ("From", "Event", "Slug", "Currency", "Payments", "Taken", "Went back", "Left")
        rows = [
            (one.begins, one.title, one.slug, one.currency, one.payments, *_amounts(one))
            for one in found.revenue
        ]
    return spreadsheets.as_csv(columns, ([_cell(value) for value in row] for row in rows))


def _amounts(one: Revenue) -> list[str]:
    return [money.plain(minor, one.currency) for minor in (one.taken_minor, one.back_minor, one.net_minor)]


def _cell(value: Any) -> str:
    return "" if value is None else str(value)
