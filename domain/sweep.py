"""The backstop: everything that is due is claimed in batches, read, and given to settle.

Any number of sweeps on any number of machines share the work, because rows are claimed with SKIP LOCKED
and a lease. Where a provider can list, payments are read a hundred a call; what the list does not hold is
read by id, several at a time. A sweep works until nothing is due or its budget ends.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from time import monotonic

import structlog
from sqlalchemy import ColumnElement, Select, func, or_, select, update
from sqlalchemy.orm import joinedload

import config
from domain import (
    cancelling,
    clock,
    connections,
    decisions,
    outbox,
    overdue,
    payments,
    polling,
    providers,
    refunds,
    wallet,
)
from domain.providers import Provider, ProviderError, Report
from extensions import db
from models import PAYMENT_ACTIVE, Payment, PaymentState, SweepRun

log = structlog.get_logger(__name__)

# Rows that one listing tries to cover, rows read by id in one claim, and calls under way at once: to one
# account, and to all of them.
_WINDOW = 20_000
_BATCH = 16
_THREADS = 8
_THREADS_IN_ALL = 16
# A list is given up as sparse when its pages hold fewer due payments than this on average.
_WORTH_A_PAGE = 3
# A sweep lets waiting mail leave this often (seconds), for so long: one worker does both.
_GIVE_WAY = 10.0
_GIVE_WAY_FOR = 5
# A provider that left this many calls in a row unanswered is left alone until the next sweep, and so is one
# of several accounts.
_SILENT = 10
_SILENT_ACCOUNT = 3


@dataclass
class _Lane:
    """The due payments of one account, claimed a few at a time: no account keeps another one waiting."""

    provider: str
    # "" is every account of a provider that connects none.
    account: str
    patience: int
    claimed: deque[Payment] = field(default_factory=deque)
    under_way: int = 0
    done: bool = False

    @property
    def key(self) -> str:
        return f"{self.provider} {self.account}".strip()

    @property
    def adapter(self) -> Provider:
        return providers.get(self.provider, self.account)

    @property
    def its(self) -> list[ColumnElement[bool]]:
        """The conditions of its payments."""
        mine = [Payment.provider == self.provider]
        return [*mine, Payment.account == self.account] if self.account else mine


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
    # Unanswered calls in a row, of a lane and of a provider.
    silent: Counter[str] = field(default_factory=Counter)
    mails: int = 0
    # When mail may leave next (monotonic); for ever, once it could not.
    gives_way_at: float = field(default_factory=lambda: monotonic() + _GIVE_WAY)

    @property
    def has_time(self) -> bool:
        within_cap = not self.cap or sum(self.counts.values()) < self.cap
        return monotonic() < self.ends and within_cap

    def speaks(self, lane: _Lane) -> bool:
        """Whether neither account nor provider was silent too often in this run."""
        return self.silent[lane.provider] < _SILENT and self.silent[lane.key] < lane.patience

    def may_ask(self, lane: _Lane) -> bool:
        return self.has_time and self.speaks(lane)

    def answered(self, lane: _Lane) -> None:
        self.silent.pop(lane.provider, None)
        self.silent.pop(lane.key, None)

    def unanswered(self, lane: _Lane, error: ProviderError) -> None:
        self.silent[lane.key] += 1
        # A connection that is broken says nothing about the provider.
        if error.code != "not_connected":
            self.silent[lane.provider] += 1

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
        lanes = _lanes(work)
        for lane in lanes:
            _also(work, f"{lane.key} listed", partial(_listed, work, lane))
        _also(work, "by id", partial(_by_id, work, lanes))
        _also(work, "refunds", partial(_refunds, work))
        _also(work, "cancelled_events", cancelling.look_after)
        _also(work, "late_money", decisions.decide_late_money)
        _also(work, "wallet_holds", lambda: wallet.expire_holds(clock.now()))
        _also(work, "connections", connections.tend)
        _also(work, "stuck", overdue.raise_stuck)
        _also(work, "expired", overdue.raise_expired)
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


def _lanes(work: _Work) -> list[_Lane]:
    """Whose payments are due: an account each, where a provider connects several."""
    due = select(Payment.provider, Payment.account).where(*_due(work)).distinct()
    known: dict[str, _Lane] = {}
    for name, account in db.session.execute(due.order_by(Payment.provider, Payment.account)):
        if name not in providers.names():
            log.error("provider_gone", provider=name)
            continue
        several = providers.get(name).connects
        lane = _Lane(name, account if several else "", _SILENT_ACCOUNT if several else _SILENT)
        known.setdefault(lane.key, lane)
    db.session.commit()
    return list(known.values())


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


def _listed(work: _Work, lane: _Lane) -> None:
    """Read due payments by the provider's list, a window of creation times at a time, oldest due first."""
    if lane.adapter.pages(work.started_at, work.started_at) is None:
        return
    while work.may_ask(lane):
        window = _window(work, lane)
        if window is None or window[2] < _WORTH_A_PAGE:
            return
        first, last, count = window
        pages = lane.adapter.pages(first - timedelta(minutes=1), last)
        if pages is None or not _read_pages(work, lane, pages, count):
            return


def _window(work: _Work, lane: _Lane) -> tuple[datetime, datetime, int] | None:
    """When the oldest due payments that are not final were created: first, last, and how many there are."""
    oldest = (
        select(Payment.provider_created_at.label("at"))
        .where(*_due(work), *lane.its, Payment.provider_created_at.is_not(None))
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


def _read_pages(work: _Work, lane: _Lane, pages: Iterator[list[Report]], count: int) -> bool:
    """Settle page after page while the next one is on its way. False when the list is not worth more."""
    hits = read = 0
    with ThreadPoolExecutor(1) as ahead:
        coming = ahead.submit(next, pages, None)
        while work.has_time:
            try:
                page = coming.result()
            except ProviderError as error:
                work.unanswered(lane, error)
                work.tell(f"{lane.key}: the list could not be read ({error}); reading one by one.")
                return False
            if page is None:
                return hits > 0
            wanted_more = hits + len(page) < count
            if wanted_more:
                coming = ahead.submit(next, pages, None)
            hits += _settle_page(work, lane, page)
            read += 1
            if hits >= count:
                return True
            if read >= 3 and hits < read * _WORTH_A_PAGE:
                return False
            if not wanted_more:
                coming = ahead.submit(next, pages, None)
    return False


def _settle_page(work: _Work, lane: _Lane, page: list[Report]) -> int:
    """Claim the due payments on a page of the list and settle them; how many there were."""
    reports = {report.provider_id: report for report in page}
    claimed = _claim(
        select(Payment.id).where(
            *_due(work),
            *lane.its,
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
            _reconcile(work, lane, payment_id)
        else:
            _settle(work, lane, payment_id, partial(_same, report))
    work.give_way()
    return len(claimed)


def _same(report: Report) -> Report:
    return report


def _says_nothing_new(payment: Payment, report: Report, now: datetime) -> bool:
    """Whether settling the report would only write down that it was read."""
    return (
        payment.state in (PaymentState.OPEN, PaymentState.PROCESSING)
        and report.state == payment.state.value
        and payments.mismatch(payment, report) is None
        and report.reason in ("", payment.reason)
        and (report.state != "open" or payment.closes_at is None or payment.closes_at > now)
    )


def _touch(work: _Work, same: list[Payment], now: datetime) -> None:
    """Write down for many payments at once that they were read and are as they were."""
    by_next: dict[datetime | None, list[int]] = {}
    for payment in same:
        by_next.setdefault(polling.next_check(payment, now), []).append(payment.id)
        # As it will be written down below: read once more, and answered.
        work.count(payment.order.code, "still_pending", _poll_data(payment, payment.poll_count + 1))
    if not same:
        return
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


def _by_id(work: _Work, lanes: list[_Lane]) -> None:
    """Read what is still due one by one, several at a time, each account in turn.

    Threads ask and touch no database; here, one after the other, is settled.
    """
    threads = _THREADS if len(lanes) == 1 else _THREADS_IN_ALL
    turn, same = deque(lanes), []
    calls: dict[Future[Report], tuple[_Lane, Payment]] = {}
    with ThreadPoolExecutor(threads) as pool:
        while True:
            while len(calls) < threads:
                lane = _next_lane(work, turn, threads)
                if lane is None:
                    break
                _begin(work, lane, pool, calls)
            if not calls:
                break
            for call in wait(calls, return_when=FIRST_COMPLETED).done:
                lane, payment = calls.pop(call)
                lane.under_way -= 1
                if _is_unchanged(work, lane, payment, call):
                    same.append(payment)
                else:
                    _settle(work, lane, payment.id, call.result)
            if len(same) >= _BATCH:
                _touch(work, same, clock.now())
                same = []
            work.give_way()
    _touch(work, same, clock.now())


def _next_lane(work: _Work, turn: deque[_Lane], threads: int) -> _Lane | None:
    """The next account in turn that has a payment to ask about and does not use more than its share."""
    for _ in range(len(turn)):
        lane = turn.popleft()
        if not work.may_ask(lane):
            _give_back([payment.id for payment in lane.claimed])
            lane.claimed.clear()
            lane.done = True
            if not work.speaks(lane):
                _put_off(work, lane)
        if not lane.done and not lane.claimed:
            lane.claimed.extend(_claim_some(work, lane))
            lane.done = not lane.claimed
        if lane.done:
            continue
        turn.append(lane)
        if lane.under_way < min(_THREADS, max(1, threads // len(turn))):
            return lane
    return None


def _claim_some(work: _Work, lane: _Lane) -> list[Payment]:
    """Some of an account's due payments, the longest due first, as they are now."""
    claimed = _claim(
        select(Payment.id)
        .where(*_due(work), *lane.its)
        .order_by(Payment.next_check_at, Payment.id)
        .limit(_BATCH)
    )
    for payment in claimed:
        # Whether there are refunds decides how a payment is asked about; read while it is still attached.
        _ = payment.state is PaymentState.PAID and payment.refunds
    db.session.expunge_all()
    return sorted(
        claimed, key=lambda payment: (payment.next_check_at is None, payment.next_check_at, payment.id)
    )


def _begin(
    work: _Work, lane: _Lane, pool: ThreadPoolExecutor, calls: dict[Future[Report], tuple[_Lane, Payment]]
) -> None:
    """Ask about the account's next payment in a thread; one that was not opened yet is opened here."""
    payment = lane.claimed.popleft()
    adapter = lane.adapter
    if payment.state is PaymentState.CREATED or payment.provider_id is None or adapter.immediate:
        _reconcile(work, lane, payment.id)
        return
    ask = partial(
        payments.ask,
        adapter,
        payment.provider_id,
        count=payment.poll_count,
        closing=payment.closes_at is not None and payment.closes_at <= clock.now(),
        thorough=payment.state is PaymentState.PAID and bool(payment.refunds),
        patient=True,
    )
    lane.under_way += 1
    calls[pool.submit(ask)] = (lane, payment)


def _is_unchanged(work: _Work, lane: _Lane, payment: Payment, call: Future[Report]) -> bool:
    """Whether the call was answered, and the answer is what we know already."""
    if call.exception() is not None or not _says_nothing_new(payment, call.result(), clock.now()):
        return False
    work.answered(lane)
    return True


def _settle(work: _Work, lane: _Lane, payment_id: int, read: Callable[[], Report]) -> None:
    def settle() -> payments.Outcome:
        try:
            return payments.settle(payment_id, read(), door="sweep")
        except ProviderError as error:
            return payments.unanswered(payment_id, error, door="sweep")

    _guarded(work, lane, payment_id, settle)


def _reconcile(work: _Work, lane: _Lane, payment_id: int) -> None:
    def reconcile() -> payments.Outcome:
        return payments.reconcile(payment_id, door="sweep", patient=True)

    _guarded(work, lane, payment_id, reconcile)


def _guarded(work: _Work, lane: _Lane, payment_id: int, act: Callable[[], payments.Outcome]) -> None:
    """One payment that cannot be settled must not keep the others from it: it is logged, and asked again."""
    try:
        outcome = act()
    except Exception as error:
        db.session.rollback()
        log.exception("payment_not_settled", payment=payment_id)
        failure = ProviderError(f"{type(error).__name__}: {error}", permanent=True, code="internal")
        outcome = payments.unanswered(payment_id, failure, door="sweep")
    _tell(work, lane, outcome)


def _give_back(ids: list[int]) -> None:
    """End the lease of rows that this run will not get to."""
    if not ids:
        return
    db.session.execute(update(Payment).where(Payment.id.in_(ids)).values(leased_until=None))
    db.session.commit()


def _put_off(work: _Work, lane: _Lane) -> None:
    """Nobody answers for the account. The rest of what is due was thought of: it is first in the next run."""
    rest = select(Payment.id).where(*_due(work), *lane.its, Payment.next_check_at < work.started_at)
    rows = Payment.id.in_(rest.with_for_update(skip_locked=True))
    put_off = update(Payment).where(rows).values(next_check_at=work.started_at)
    db.session.execute(put_off.execution_options(synchronize_session=False))
    db.session.commit()


def _tell(work: _Work, lane: _Lane, outcome: payments.Outcome) -> None:
    """Count an outcome and print its order's line."""
    if outcome.error is not None and not outcome.error.permanent:
        work.unanswered(lane, outcome.error)
    else:
        work.answered(lane)
    payment = db.session.get_one(Payment, outcome.payment_id)
    if outcome.state in PAYMENT_ACTIVE or outcome.changed or outcome.error is not None:
        words = _poll_data(payment, payment.poll_count, payment.last_error)
        work.count(payment.order.code, outcome.verdict, words)
    db.session.rollback()
    db.session.expunge_all()


def _poll_data(payment: Payment, polls: int, last_error: str = "") -> str:
    """What is told of a payment with --verbose: its account, its polls, for how long, and what went wrong."""
    now = clock.now()
    words = [
        f"{payment.reference} {payment.state} at {payment.provider}",
        f"account {payment.account}",
        f"{polls} {'poll' if polls == 1 else 'polls'}",
        f"{payment.polling_elapsed_minutes(now):.1f} of {payment.max_poll_duration_minutes} minutes",
    ]
    if not payment.should_poll:
        words.append("polling stopped")
    if last_error:
        words.append(f"last error {last_error}")
    return ", ".join(words)


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
