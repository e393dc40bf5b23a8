"""The backstop: everything that is due is claimed in batches, read, and given to settle.

Any number of sweeps on any number of machines share the work, because rows are claimed with SKIP LOCKED
and a lease. Where a provider can list, payments are read a hundred a call; what the list does not hold is
read by id, several at a time. A sweep works until nothing is due or its budget ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from time import monotonic

import structlog
from sqlalchemy import ColumnElement, Select, and_, func, or_, select, update
from sqlalchemy.orm import contains_eager, joinedload

import config
from domain import (
    alerts,
    cancelling,
    clock,
    connections,
    decisions,
    outbox,
    payments,
    polling,
    providers,
    refunds,
    wallet,
)
from domain.providers import ProviderError, Report
from extensions import db
from models import PAYMENT_ACTIVE, Order, OrderState, OutboxMail, Payment, PaymentState, SweepRun

log = structlog.get_logger(__name__)

# Rows that one listing tries to cover, rows read by id in one claim, and calls under way at once.
_WINDOW = 20_000
_BATCH = 16
_THREADS = 8
# A list is given up as sparse when its pages hold fewer due payments than this on average.
_WORTH_A_PAGE = 3
# How far before the last digest a payment may have expired without having been seen by it.
_OVERLAP = timedelta(hours=1)
# A sweep lets waiting mail leave this often (seconds), for so long: one worker does both.
_GIVE_WAY = 10.0
_GIVE_WAY_FOR = 5
# A provider that left this many calls in a row unanswered is left alone until the next sweep.
_SILENT = 10


@dataclass
class _Work:
    """One run: its clock, its counts, and where its lines go."""

    run_id: int
    started_at: datetime
    ends: float
    tell: Callable[[str], None]
    verbose: bool
    everything: bool
    cap: int
    counts: Counter[str] = field(default_factory=Counter)
    failed_duties: int = 0
    # Unanswered calls in a row, by provider.
    silent: Counter[str] = field(default_factory=Counter)
    mails: int = 0
    # When mail may leave next (monotonic); for ever, once it could not.
    gives_way_at: float = field(default_factory=lambda: monotonic() + _GIVE_WAY)

    @property
    def has_time(self) -> bool:
        within_cap = not self.cap or sum(self.counts.values()) < self.cap
        return monotonic() < self.ends and within_cap

    def may_ask(self, provider: str) -> bool:
        """Whether there is time, and the provider was not silent too often to go on asking in this run."""
        return self.has_time and self.silent[provider] < _SILENT

    def unanswered(self, provider: str) -> None:
        self.silent[provider] += 1

    def give_way(self) -> None:
        """Let mail leave that became due meanwhile. Outside of any transaction."""
        if monotonic() < self.gives_way_at:
            return
        delivered = outbox.deliver_due(budget_seconds=_GIVE_WAY_FOR)
        self.mails += delivered.sent
        # A mail server that does not answer is waited for at the end, and not between the payments.
        self.gives_way_at = float("inf") if delivered.retried else monotonic() + _GIVE_WAY

    def count(self, order_code: str, verdict: str, detail: str) -> None:
        self.counts[verdict] += 1
        self.tell(f"Order {order_code}: {verdict}" + (f" ({detail})" if self.verbose else ""))


def _to_nobody(line: str) -> None:
    """Where the lines of a run go that nobody watches."""


def run(
    trigger: str,
    *,
    tell: Callable[[str], None] = _to_nobody,
    verbose: bool = False,
    everything: bool = False,
) -> SweepRun:
    """Reconcile everything that is due, deliver what is owed, raise what is stuck. Commits as it goes.

    `trigger` is kept with the run ('clock', 'command'); `tell` gets the lines of the report; `everything`
    asks about every payment that is not final, whenever it is due.
    """
    settings = config.get()
    now = clock.now()
    record = SweepRun(trigger=trigger, started_at=now)
    db.session.add(record)
    db.session.commit()
    calls_before = providers.calls.total
    ends = monotonic() + settings.sweep_budget
    work = _Work(record.id, now, ends, tell, verbose, everything, settings.sweep_cap)
    tell("Starting payment polling service...")
    record.found = _count_due(work)
    tell(f"Found {record.found} pending orders to verify")
    db.session.commit()
    try:
        for name in _due_providers(work):
            _also(work, f"{name} listed", partial(_listed, work, name))
            _also(work, f"{name} by id", partial(_by_id, work, name))
        _also(work, "refunds", partial(_refunds, work))
        _also(work, "cancelled_events", cancelling.refund_due)
        _also(work, "late_money", decisions.decide_late_money)
        _also(work, "wallet_holds", lambda: wallet.expire_holds(clock.now()))
        _also(work, "connections", connections.tend)
        _also(work, "stuck", _raise_stuck)
        _also(work, "expired", _raise_expired)
        delivered = outbox.deliver_due(budget_seconds=30)
    except BaseException as error:
        db.session.rollback()
        db.session.get_one(SweepRun, work.run_id).error = f"{type(error).__name__}: {error}"[:1000]
        db.session.commit()
        raise
    return _finish(work, providers.calls.total - calls_before, work.mails + delivered.sent)


def _also(work: _Work, name: str, do: Callable[[], object]) -> None:
    """One of a sweep's duties. If it fails, that is logged and counted, and the others are still done."""
    try:
        do()
    except Exception:
        db.session.rollback()
        log.exception("sweep_duty_failed", duty=name)
        work.failed_duties += 1


def _finish(work: _Work, calls: int, mails: int) -> SweepRun:
    run, counts = db.session.get_one(SweepRun, work.run_id), work.counts
    run.finished_at = clock.now()
    run.verified, run.failed = counts["verified"], counts["failed"] + counts["review"]
    run.pending, run.errors = counts["still_pending"], counts["error"] + work.failed_duties
    run.provider_calls, run.mails = calls, mails
    db.session.commit()
    work.tell("")
    work.tell("Polling cycle complete!")
    work.tell(f"  Verified: {run.verified}")
    work.tell(f"  Failed: {run.failed}")
    work.tell(f"  Still Pending: {run.pending}")
    work.tell(f"  Errors: {run.errors}")
    if work.verbose:
        work.tell(f"  Provider calls: {run.provider_calls}")
        work.tell(f"  Mails sent: {run.mails}")
    work.tell("")
    work.tell(f"✓ Processed {sum(counts.values())} orders")
    log.info(
        "sweep", found=run.found, verified=run.verified, pending=run.pending, errors=run.errors, calls=calls
    )
    return run


# --- What is due ----------------------------------------------------------------------------------------


def _due(work: _Work) -> list[ColumnElement[bool]]:
    """The conditions of a payment that this run should look at."""
    free = or_(Payment.leased_until.is_(None), Payment.leased_until <= clock.now())
    if work.everything:
        unread = or_(Payment.last_polled_at.is_(None), Payment.last_polled_at < work.started_at)
        return [Payment.state.in_(PAYMENT_ACTIVE), unread, free]
    return [Payment.next_check_at <= work.started_at, free]


def _count_due(work: _Work) -> int:
    active = Payment.state.in_(PAYMENT_ACTIVE)
    return db.session.scalars(select(func.count()).select_from(Payment).where(*_due(work), active)).one()


def _due_providers(work: _Work) -> list[str]:
    return sorted(db.session.scalars(select(Payment.provider).where(*_due(work)).distinct()))


def _claim(ids: Select[int]) -> list[Payment]:
    """Lease the rows that `ids` selects, skipping what another sweep has, and read them with their orders."""
    claimed = list(
        db.session.scalars(
            update(Payment)
            .where(Payment.id.in_(ids.with_for_update(skip_locked=True)))
            .values(leased_until=clock.now() + payments.LEASE)
            .returning(Payment.id)
            .execution_options(synchronize_session=False)
        )
    )
    db.session.commit()
    if not claimed:
        return []
    return list(
        db.session.scalars(
            select(Payment)
            .where(Payment.id.in_(claimed))
            .options(joinedload(Payment.order))
            .execution_options(populate_existing=True)
        )
    )


# --- Reading them ---------------------------------------------------------------------------------------


def _listed(work: _Work, name: str) -> None:
    """Read due payments by the provider's list, a window of creation times at a time, oldest due first."""
    while work.may_ask(name):
        window = _window(work, name)
        if window is None or window[2] < _WORTH_A_PAGE:
            return
        first, last, count = window
        pages = providers.get(name).pages(first - timedelta(minutes=1), last)
        if pages is None or not _read_pages(work, name, pages, count):
            return


def _window(work: _Work, name: str) -> tuple[datetime, datetime, int] | None:
    """When the oldest due payments that are not final were created: first, last, and how many there are."""
    oldest = (
        select(Payment.provider_created_at.label("at"))
        .where(*_due(work), Payment.provider == name, Payment.provider_created_at.is_not(None))
        .where(Payment.state.in_([PaymentState.OPEN, PaymentState.PROCESSING]))
        .order_by(Payment.next_check_at, Payment.id)
        .limit(_WINDOW)
        .subquery()
    )
    first, last, count = db.session.execute(
        select(func.min(oldest.c.at), func.max(oldest.c.at), func.count()).select_from(oldest)
    ).one()
    db.session.commit()
    return (first, last, count) if count else None


def _read_pages(work: _Work, name: str, pages: Iterator[list[Report]], count: int) -> bool:
    """Settle page after page while the next one is on its way. False when the list is not worth more."""
    hits = read = 0
    with ThreadPoolExecutor(1) as ahead:
        coming = ahead.submit(next, pages, None)
        while work.has_time:
            try:
                page = coming.result()
            except ProviderError as error:
                work.unanswered(name)
                work.tell(f"{name}: the list could not be read ({error}); reading one by one.")
                return False
            if page is None:
                return hits > 0
            wanted_more = hits + len(page) < count
            if wanted_more:
                coming = ahead.submit(next, pages, None)
            hits += _settle_page(work, name, page)
            read += 1
            if hits >= count:
                return True
            if read >= 3 and hits < read * _WORTH_A_PAGE:
                return False
            if not wanted_more:
                coming = ahead.submit(next, pages, None)
    return False


def _settle_page(work: _Work, name: str, page: list[Report]) -> int:
    """Claim the due payments on a page of the list and settle them; how many there were."""
    reports = {report.provider_id: report for report in page}
    claimed = _claim(
        select(Payment.id).where(
            *_due(work),
            Payment.provider == name,
            Payment.provider_id.in_(reports),
            Payment.state.in_([PaymentState.OPEN, PaymentState.PROCESSING]),
        )
    )
    now = clock.now()
    same = [p for p in claimed if _says_nothing_new(p, reports[p.provider_id or ""], now)]
    others = [(p.id, reports[p.provider_id or ""]) for p in claimed if p not in same]
    _touch(work, same, now)
    for payment_id, report in others:
        if report.state == "open" or report.incomplete:
            _reconcile(work, name, payment_id)
        else:
            _settle(work, name, payment_id, partial(_same, report))
    work.give_way()
    return len(claimed)


def _same(report: Report) -> Report:
    return report


def _says_nothing_new(payment: Payment, report: Report, now: datetime) -> bool:
    """Whether settling the report would only write down that it was read."""
    return (
        report.state == payment.state.value
        and payments.mismatch(payment, report) is None
        and report.reason in ("", payment.reason)
        and (report.state != "open" or payment.closes_at is None or payment.closes_at > now)
    )


def _touch(work: _Work, same: list[Payment], now: datetime) -> None:
    """Write down for many payments at once that they were read and are as they were."""
    by_next: dict[datetime | None, list[int]] = {}
    for payment in same:
        by_next.setdefault(polling.next_check(payment, now), []).append(payment.id)
        work.count(payment.order.code, "still_pending", _poll_data(payment))
    for moment, ids in by_next.items():
        db.session.execute(
            update(Payment)
            .where(Payment.id.in_(ids), Payment.state.in_([PaymentState.OPEN, PaymentState.PROCESSING]))
            .values(
                last_polled_at=now,
                poll_count=Payment.poll_count + 1,
                error_count=0,
                last_error="",
                leased_until=None,
                next_check_at=moment,
            )
            .execution_options(synchronize_session=False)
        )
    db.session.commit()
    db.session.expunge_all()


def _by_id(work: _Work, name: str) -> None:
    """Read what is still due one by one, several at a time."""
    while work.may_ask(name):
        claimed = _claim(
            select(Payment.id)
            .where(*_due(work), Payment.provider == name)
            .order_by(Payment.next_check_at, Payment.id)
            .limit(_BATCH)
        )
        if not claimed:
            return
        plain = {p.id: p.provider_id for p in claimed if p.provider_id is not None and _is_plain_read(p)}
        others = [p.id for p in claimed if p.id not in plain]
        _fetch_and_settle(work, name, plain)
        for position, payment_id in enumerate(others):
            if not work.may_ask(name):
                _give_back(others[position:])
                return
            _reconcile(work, name, payment_id)
            work.give_way()
        work.give_way()


def _is_plain_read(payment: Payment) -> bool:
    """Whether one call tells all: nothing to open, nothing to close, no refunds to ask about."""
    if payment.state is PaymentState.OPEN:
        return payment.closes_at is None or payment.closes_at > clock.now()
    return payment.state is not PaymentState.CREATED and not payment.refunds


def _fetch_and_settle(work: _Work, name: str, wanted: dict[int, str]) -> None:
    """Fetch in threads, which touch no database; settle here, one after the other."""
    adapter = providers.get(name)
    with ThreadPoolExecutor(_THREADS) as pool:
        calls = {
            payment_id: pool.submit(adapter.fetch, pid, patient=True) for payment_id, pid in wanted.items()
        }
        for payment_id, call in calls.items():
            _settle(work, name, payment_id, call.result)


def _settle(work: _Work, name: str, payment_id: int, read: Callable[[], Report]) -> None:
    def settle() -> payments.Outcome:
        try:
            return payments.settle(payment_id, read(), door="sweep")
        except ProviderError as error:
            return payments.unanswered(payment_id, error, door="sweep")

    _guarded(work, name, payment_id, settle)


def _reconcile(work: _Work, name: str, payment_id: int) -> None:
    def reconcile() -> payments.Outcome:
        return payments.reconcile(payment_id, door="sweep", patient=True)

    _guarded(work, name, payment_id, reconcile)


def _guarded(work: _Work, name: str, payment_id: int, act: Callable[[], payments.Outcome]) -> None:
    """One payment that cannot be settled must not keep the others from it: it is logged, and asked again."""
    try:
        outcome = act()
    except Exception as error:
        db.session.rollback()
        log.exception("payment_not_settled", payment=payment_id)
        failure = ProviderError(f"{type(error).__name__}: {error}", permanent=True, code="internal")
        outcome = payments.unanswered(payment_id, failure, door="sweep")
    _tell(work, name, outcome)


def _give_back(ids: list[int]) -> None:
    """End the lease of rows that this run will not get to."""
    db.session.execute(update(Payment).where(Payment.id.in_(ids)).values(leased_until=None))
    db.session.commit()


def _tell(work: _Work, name: str, outcome: payments.Outcome) -> None:
    """Count an outcome and print its order's line."""
    if outcome.error is not None and not outcome.error.permanent:
        work.unanswered(name)
    else:
        work.silent.pop(name, None)
    payment = db.session.get_one(Payment, outcome.payment_id)
    if outcome.state in PAYMENT_ACTIVE or outcome.changed or outcome.error is not None:
        work.count(payment.order.code, outcome.verdict, _poll_data(payment))
    db.session.rollback()
    db.session.expunge_all()


def _poll_data(payment: Payment) -> str:
    age = (clock.now() - payment.created_at).total_seconds() / 60
    words = f"{payment.reference} {payment.state}, {payment.poll_count} checks, {age:.1f} minutes old"
    return words + (f", {payment.last_error}" if payment.last_error else "")


# --- What else a sweep owes -----------------------------------------------------------------------------


def _refunds(work: _Work) -> None:
    """Follow up the refunds whose end is not known."""
    while work.has_time:
        ids = refunds.due(work.started_at, _BATCH)
        if not ids:
            return
        for refund_id in ids:
            try:
                refunds.follow_up(refund_id, patient=True)
            except Exception:
                db.session.rollback()
                log.exception("refund_not_followed_up", refund=refund_id)
            work.give_way()


def _raise_stuck() -> None:
    """One digest of the payments that take suspiciously long, each named once."""
    now = clock.now()
    late = now - timedelta(minutes=config.get().stuck_minutes)
    told = Payment.stuck_alerted_at
    # One that was named when it expired, and is being paid late, is named again.
    untold = or_(told.is_(None), told < Payment.state_since)
    slow = and_(Payment.state == PaymentState.PROCESSING, Payment.state_since <= late, untold)
    unread = and_(
        told.is_(None),
        Payment.state.in_([PaymentState.CREATED, PaymentState.OPEN]),
        Payment.closes_at <= now,
        Payment.error_count > 0,
    )
    stuck = list(
        db.session.scalars(
            select(Payment)
            .where(or_(slow, unread))
            .order_by(Payment.id)
            .limit(200)
            .options(joinedload(Payment.order))
            .with_for_update(skip_locked=True, key_share=True, of=Payment)
        )
    )
    if stuck:
        for payment in stuck:
            payment.stuck_alerted_at = now
        subject, text = alerts.stuck([payment.order for payment in stuck])
        outbox.alert(subject, text, key=f"stuck:{stuck[0].id}-{stuck[-1].id}:{now:%Y%m%d%H%M%S}")
    db.session.commit()


def _raise_expired() -> None:
    """One digest of the orders that expired since the last one."""
    now = clock.now()
    last = db.session.scalar(
        select(func.max(OutboxMail.created_at)).where(
            OutboxMail.key.startswith("expired:"), OutboxMail.kind == "alert"
        )
    )
    told = Payment.stuck_alerted_at
    query = (
        select(Payment)
        .join(Payment.order)
        .where(
            Payment.state == PaymentState.EXPIRED,
            or_(told.is_(None), told < Payment.state_since),
            Order.state == OrderState.EXPIRED,
        )
        .order_by(Payment.id)
        # The mail shows the first of them.
        .limit(_WINDOW)
        .options(contains_eager(Payment.order))
        # Each row is marked as told under its lock, so that of two sweeps one names it; and one that was
        # being written while a digest was made is found by the next.
        .with_for_update(skip_locked=True, key_share=True, of=Payment)
    )
    if last is not None:
        query = query.where(Payment.state_since > last - _OVERLAP)
    expired = list(db.session.scalars(query))
    if expired:
        for payment in expired:
            payment.stuck_alerted_at = max(now, payment.state_since)
        orders = {payment.order_id: payment.order for payment in expired}
        subject, text = alerts.expired(list(orders.values()))
        outbox.alert(subject, text, key=f"expired:{expired[0].id}-{expired[-1].id}:{now:%Y%m%d%H%M%S%f}")
    db.session.commit()
