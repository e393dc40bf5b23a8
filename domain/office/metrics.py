"""The business numbers that /metrics shows, read from the database, so that every process tells the same.

`METRICS` is the list of them; docs/operating.md explains each, and a test compares. One read of them all is a
handful of grouped counts, bounded in time, and kept for a few seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from threading import Lock
from time import monotonic

from sqlalchemy import func, or_, select

import config
from domain import clock
from domain.office import statistics, tallies
from domain.payments import dead_rings
from extensions import CHECKS, db, limited
from models import (
    PAYMENT_ACTIVE,
    CheckRun,
    Dispute,
    Heartbeat,
    Incident,
    Payment,
    Refund,
    SweepRun,
)

SECONDS = 5
KEEP_SECONDS = 10.0


@dataclass(frozen=True)
class Metric:
    """A gauge: its name, what it tells, and the names of its labels."""

    name: str
    help: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sample:
    """A metric's value for one set of label values, in the order of the metric's labels."""

    metric: Metric
    values: tuple[str, ...]
    number: float


PAYMENTS = Metric("kassa_payments", "Payments by provider and state.", ("provider", "state"))
ORDERS = Metric("kassa_orders", "Orders by state.", ("state",))
REFUNDS = Metric("kassa_refunds", "Refunds by state.", ("state",))
DISPUTES = Metric("kassa_disputes", "Disputes by state.", ("state",))
TICKETS = Metric("kassa_tickets", "Tickets by state.", ("state",))
OUTBOX = Metric("kassa_outbox", "Mails by state.", ("state",))
WEBHOOKS = Metric(
    "kassa_webhook_events", "Webhook events by provider, and whether acted on.", ("provider", "done")
)
DEAD_RINGS = Metric("kassa_rings_dead", "Rings that were not acted on within an hour.")
INCIDENTS = Metric("kassa_incidents_open", "Incidents that wait in the money inbox.")
OLDEST = Metric("kassa_oldest_pending_seconds", "Age of the oldest payment without a final word.")
DUE = Metric("kassa_payments_due", "Payments whose next check is due.")
SWEEP_AGE = Metric("kassa_sweep_age_seconds", "Seconds since the last finished sweep began.")
SWEEP_SECONDS = Metric("kassa_sweep_duration_seconds", "How long the last finished sweep took.")
SWEEP = Metric(
    "kassa_sweep_payments", "Payments of the last finished sweep, by what it came to.", ("outcome",)
)
SWEEP_CALLS = Metric("kassa_sweep_provider_calls", "Provider calls of the last finished sweep.")
SWEEPS_WORKED = Metric(
    "kassa_sweeps_worked_ratio", "Of the sweeps of the last day that should be over, the share that worked."
)
TO_TICKETS = Metric(
    "kassa_payment_to_tickets_seconds",
    "From the buyer's payment, by the provider's clock, to the tickets, of the last day.",
    ("quantile",),
)
SUCCESS = Metric(
    "kassa_payment_success_ratio",
    "Of the payments begun in the last day that came to an end, the share that was paid, by method.",
    ("method",),
)
COMPLETION = Metric(
    "kassa_payment_completion_seconds",
    "From the begin of a payment to its being paid, of those begun in the last day, by method.",
    ("method", "quantile"),
)
FAILURES = Metric(
    "kassa_payment_failures", "Payments begun in the last day that failed, by reason.", ("reason",)
)
REVENUE = Metric(
    "kassa_revenue_minor",
    "What places and tickets that were paid in the last day earned, in minor units, by event.",
    ("event", "currency"),
)
HEARTBEAT = Metric("kassa_heartbeat_age_seconds", "Seconds since a process last reported.", ("process",))
VIOLATIONS = Metric("kassa_invariant_violations", "Invariants that did not hold when last checked.")
METRICS = (
    PAYMENTS,
    ORDERS,
    REFUNDS,
    DISPUTES,
    TICKETS,
    OUTBOX,
    WEBHOOKS,
    DEAD_RINGS,
    INCIDENTS,
    OLDEST,
    DUE,
    SWEEP_AGE,
    SWEEP_SECONDS,
    SWEEP,
    SWEEP_CALLS,
    SWEEPS_WORKED,
    TO_TICKETS,
    SUCCESS,
    COMPLETION,
    FAILURES,
    REVENUE,
    HEARTBEAT,
    VIOLATIONS,
)


class _Kept:
    """The last read, so that eager scrapers do not load the database."""

    lock = Lock()
    until = 0.0
    samples: tuple[Sample, ...] = ()


def read(*, fresh: bool = False) -> tuple[Sample, ...]:
    """Every sample, at most ten seconds old; `fresh` reads anew. Leaves no transaction open."""
    with _Kept.lock:
        if fresh or monotonic() >= _Kept.until:
            db.session.rollback()
            try:
                with limited(replace(CHECKS, statement=SECONDS)):
                    parts = (_counts(), _gauges(), _sweep(), _day(), _measured())
                    _Kept.samples = tuple(sample for part in parts for sample in part)
            finally:
                db.session.rollback()
            _Kept.until = monotonic() + KEEP_SECONDS
        return _Kept.samples


def _counts() -> Iterable[Sample]:
    tallied = (
        (PAYMENTS, tallies.PAYMENTS),
        (ORDERS, tallies.ORDERS),
        (TICKETS, tallies.TICKETS),
        (OUTBOX, tallies.OUTBOX),
        (WEBHOOKS, tallies.RINGS),
    )
    for metric, of in tallied:
        for labels, number in tallies.read(of).items():
            yield Sample(metric, tuple(_label(label) for label in labels), number)
    for metric, column in ((REFUNDS, Refund.state), (DISPUTES, Dispute.state)):
        for state, number in db.session.execute(select(column, func.count()).group_by(column)):
            yield Sample(metric, (str(state),), number)


def _label(value: object) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _gauges() -> Iterable[Sample]:
    now = clock.now()
    oldest = select(func.min(Payment.created_at)).where(Payment.state.in_(PAYMENT_ACTIVE))
    due = select(func.count()).select_from(Payment).where(Payment.next_check_at <= now)
    waiting = select(func.count()).select_from(Incident).where(Incident.resolved_at.is_(None))
    created = db.session.scalar(oldest)
    yield Sample(OLDEST, (), (now - created).total_seconds() if created is not None else 0)
    yield Sample(DUE, (), db.session.scalar(due) or 0)
    yield Sample(INCIDENTS, (), db.session.scalar(waiting) or 0)
    yield Sample(DEAD_RINGS, (), dead_rings.count()[0])
    for name, at in db.session.execute(select(Heartbeat.name, Heartbeat.at)):
        yield Sample(HEARTBEAT, (name,), (now - at).total_seconds())
    violations = db.session.scalar(select(CheckRun.violations).order_by(CheckRun.at.desc()).limit(1))
    if violations is not None:
        yield Sample(VIOLATIONS, (), len(violations))


def _sweep() -> Iterable[Sample]:
    query = select(SweepRun).where(SweepRun.finished_at.is_not(None)).order_by(SweepRun.started_at.desc())
    last = db.session.scalar(query.limit(1))
    if last is None or last.finished_at is None:
        return
    yield Sample(SWEEP_AGE, (), (clock.now() - last.started_at).total_seconds())
    yield Sample(SWEEP_SECONDS, (), (last.finished_at - last.started_at).total_seconds())
    yield Sample(SWEEP_CALLS, (), last.provider_calls)
    for outcome in ("found", "verified", "failed", "pending", "errors"):
        yield Sample(SWEEP, (outcome,), getattr(last, outcome))


_DAY = timedelta(days=1)
# Half were quicker, nearly all were, and the slowest.
_QUANTILES = (0.5, 0.95, 1.0)


def _day() -> Iterable[Sample]:
    """How the last day went: whether sweeps worked, and how long buyers waited for what they paid."""
    since = clock.now() - _DAY
    # One that is still within its budget is neither good nor bad.
    over = or_(
        SweepRun.finished_at.is_not(None),
        SweepRun.error != "",
        SweepRun.started_at < clock.now() - timedelta(seconds=2 * config.get().sweep_budget),
    )
    worked = func.count().filter(SweepRun.finished_at.is_not(None), SweepRun.error == "")
    all_, good = db.session.execute(
        select(func.count(), worked).where(SweepRun.started_at > since, over)
    ).one()
    if all_:
        yield Sample(SWEEPS_WORKED, (), good / all_)
    waited = func.extract("epoch", Payment.paid_at - Payment.provider_paid_at)
    shares = [func.percentile_cont(share).within_group(waited) for share in _QUANTILES]
    told = select(*shares).where(
        Payment.fulfilled, Payment.paid_at > since, Payment.provider_paid_at.is_not(None)
    )
    for share, seconds in zip(_QUANTILES, db.session.execute(told).one(), strict=True):
        if seconds is not None:
            # Clocks differ a little: nobody has tickets before they have paid.
            yield Sample(TO_TICKETS, (f"{share:g}",), max(0.0, float(seconds)))


def _measured() -> Iterable[Sample]:
    """The last day's numbers of statistics.py, which tells them of any time, and by event."""
    day = statistics.last_day()
    for one in statistics.methods(day):
        if one.success is not None:
            yield Sample(SUCCESS, (one.method,), one.success)
        for share, seconds in (("0.5", one.median_seconds), ("0.95", one.p95_seconds)):
            if seconds is not None:
                yield Sample(COMPLETION, (one.method, share), seconds)
    reasons: Counter[str] = Counter()
    for failure in statistics.failures(day):
        reasons[failure.code or "none"] += failure.count
    for reason, count in reasons.items():
        yield Sample(FAILURES, (reason,), count)
    earned: Counter[tuple[str, str]] = Counter()
    for row in statistics.revenue(day):
        # Of the events that earned most; see statistics.MOST_EVENTS.
        earned[row.slug or "other", row.currency] += row.net_minor
    for labels, minor in earned.items():
        yield Sample(REVENUE, labels, minor)
