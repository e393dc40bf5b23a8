"""How a sweep reads what is due: by the provider's list where there is one, then one by one.

What a list holds is read a hundred a call; what it does not hold is read by id, several at a time. Threads
ask and touch no database; what they bring is settled here, one after the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import structlog
from sqlalchemy import select, update

from domain import clock
from domain.payments import (
    declines,
    own_end,
    poll_schedule,
    question_log,
    reconciling,
    report_matching,
    settling,
)
from domain.providers.contract import ProviderError, Report
from domain.sweep import lanes
from domain.sweep.lanes import Lane, Work
from extensions import db
from models import Payment, PaymentState

log = structlog.get_logger(__name__)

# Rows that one listing tries to cover, rows read by id in one claim, and calls under way at once: to one
# account, and to all of them.
_WINDOW = 20_000
_BATCH = 16
_THREADS = 8
_THREADS_IN_ALL = 16
# A page of a list is worth its call when it holds so many due payments; fewer are asked about one by one. A
# page of so many reports is full. After so many listings in a row that were not worth it, none is tried any
# more.
_WORTH_A_PAGE = 3
_FULL = 100
_POOR = 3


@dataclass(frozen=True)
class Window:
    """Due payments that a listing may find: by the provider's id, when each was made there."""

    made: dict[str, datetime]

    @property
    def first(self) -> datetime:
        return min(self.made.values())

    @property
    def last(self) -> datetime:
        return max(self.made.values())


def listed(work: Work, lane: Lane) -> None:
    """Read due payments by the provider's list, a window of creation times at a time, oldest due first.

    What is made far from the others is not looked for page by page: a listing ends where its next page would
    find too few, and another one begins at the newest that is left. One that finds too few itself is no
    better than asking one by one, which is done with the rest.
    """
    if lane.adapter.pages(work.started_at, work.started_at) is None:
        return
    poor = 0
    while work.may_ask(lane) and poor < _POOR:
        window = _window(work, lane)
        if len(window.made) < _WORTH_A_PAGE:
            return
        pages = lane.adapter.pages(window.first - timedelta(minutes=1), window.last)
        found = 0 if pages is None else _read_pages(work, lane, pages, dict(window.made))
        if not found:
            return
        poor = poor + 1 if found < _WORTH_A_PAGE else 0


def _window(work: Work, lane: Lane) -> Window:
    """The oldest due payments that are not final."""
    oldest = (
        select(Payment.provider_id, Payment.provider_created_at)
        .where(*lanes.due(work), *lane.its, Payment.provider_created_at.is_not(None))
        .where(Payment.state.in_([PaymentState.OPEN, PaymentState.PROCESSING]))
        .order_by(Payment.next_check_at, Payment.id)
        .limit(_WINDOW)
    )
    made = {name: moment for name, moment in db.session.execute(oldest) if name and moment}
    db.session.commit()
    return Window(made)


def _read_pages(work: Work, lane: Lane, pages: Iterator[list[Report]], left: dict[str, datetime]) -> int:
    """Settle page after page while the next one is on its way; how many of those `left` were found."""
    found = read = 0
    with ThreadPoolExecutor(1) as ahead:
        coming = ahead.submit(next, pages, None)
        while work.has_time:
            try:
                page = coming.result()
            except ProviderError as error:
                work.unanswered(lane, error)
                work.tell(f"{lane.key}: the list could not be read ({error}); reading one by one.")
                return 0
            if page is None:
                return found
            here = [report for report in page if left.pop(report.provider_id, None) is not None]
            found, read = found + len(here), read + 1
            goes_on = _is_worth_it(page, len(here), left) and found >= (read - 3) * _WORTH_A_PAGE
            if goes_on:
                coming = ahead.submit(next, pages, None)
            _settle_page(work, lane, page)
            if not goes_on:
                return found
    return 0


def _is_worth_it(page: list[Report], here: int, left: dict[str, datetime]) -> bool:
    """Whether the page behind this one will hold enough of what is left.

    A page that is not full is the last of a list, and another list of the account may follow it.
    """
    if len(left) < _WORTH_A_PAGE:
        return False
    times = [report.created_at for report in page if report.created_at is not None]
    if len(page) < _FULL or not times:
        return True
    # As far back again as this page goes, and a little further: the next page's part of time.
    reach = min(times) - 2 * (max(times) - min(times)) - timedelta(seconds=1)
    return sum(moment >= reach for moment in left.values()) >= _WORTH_A_PAGE


def _settle_page(work: Work, lane: Lane, page: list[Report]) -> int:
    """Claim the due payments on a page of the list and settle them; how many there were."""
    reports = {report.provider_id: report for report in page}
    claimed = lanes.claim(
        select(Payment.id).where(
            *lanes.due(work),
            *lane.its,
            Payment.provider_id.in_(reports),
            Payment.state.in_([PaymentState.OPEN, PaymentState.PROCESSING]),
        )
    )
    now = clock.now()
    same = [p for p in claimed if _says_nothing_new(p, reports[p.provider_id or ""], now)]
    others = [(p.id, reports[p.provider_id or ""]) for p in claimed if p not in same]
    _touch(work, same, now)
    question_log.listed(lane.provider, lane.account, len(claimed), door="sweep")
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
        and report_matching.mismatch(payment, report) is None
        and declines.tells_nothing_new(report, declines.known(payment))
        and (report.state != "open" or payment.closes_at is None or payment.closes_at > now)
    )


def _touch(work: Work, same: list[Payment], now: datetime) -> None:
    """Write down for many payments at once that they were read and are as they were."""
    by_next: dict[datetime | None, list[int]] = {}
    for payment in same:
        by_next.setdefault(poll_schedule.next_check(payment, now), []).append(payment.id)
        # As it will be written down below: read once more, and answered.
        work.count(payment.order.code, "still_pending", lanes.poll_data(payment, payment.poll_count + 1))
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


def by_id(work: Work, accounts: list[Lane]) -> None:
    """Read what is still due one by one, several at a time, each account in turn.

    Threads ask and touch no database; here, one after the other, is settled.
    """
    threads = _THREADS if len(accounts) == 1 else _THREADS_IN_ALL
    turn, same = deque(accounts), []
    calls: dict[Future[Report], tuple[Lane, Payment]] = {}
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


def _next_lane(work: Work, turn: deque[Lane], threads: int) -> Lane | None:
    """The next account in turn that has a payment to ask about and does not use more than its share."""
    for _ in range(len(turn)):
        lane = turn.popleft()
        if not work.may_ask(lane):
            lanes.give_back(work, lane)
            lane.done = True
        if not lane.done and not lane.claimed:
            lane.claimed.extend(_claim_some(work, lane))
            lane.done = not lane.claimed
        if lane.done:
            continue
        turn.append(lane)
        if lane.under_way < min(_THREADS, max(1, threads // len(turn))):
            return lane
    return None


def _claim_some(work: Work, lane: Lane) -> list[Payment]:
    """Some of an account's due payments, the longest due first, as they are now."""
    claimed = lanes.claim(
        select(Payment.id)
        .where(*lanes.due(work), *lane.its)
        .order_by(Payment.next_check_at, Payment.id)
        .limit(_BATCH)
    )
    for payment in claimed:
        # Whether there are refunds decides how a payment is asked about; read while it is still attached.
        _ = payment.state is PaymentState.PAID and (payment.refunds, payment.disputes)
    db.session.expunge_all()
    # No transaction stays open while the provider is waited for.
    db.session.rollback()
    return sorted(
        claimed, key=lambda payment: (payment.next_check_at is None, payment.next_check_at, payment.id)
    )


def _begin(
    work: Work, lane: Lane, pool: ThreadPoolExecutor, calls: dict[Future[Report], tuple[Lane, Payment]]
) -> None:
    """Ask about the account's next payment in a thread; one that was not opened yet is opened here."""
    payment = lane.claimed.popleft()
    adapter = lane.adapter
    told = adapter.immediate or not adapter.can.ask
    if payment.state is PaymentState.CREATED or payment.provider_id is None or told:
        # There is nobody to be called, or first something to be opened.
        _reconcile(work, lane, payment.id)
        return
    ask = partial(
        reconciling.ask,
        adapter,
        payment.provider_id,
        count=payment.poll_count,
        closing=own_end.is_due(payment, adapter.can),
        known=declines.known(payment),
        thorough=payment.state is PaymentState.PAID and payment.has_reversals,
        patient=True,
    )
    lane.under_way += 1
    calls[pool.submit(ask)] = (lane, payment)


def _is_unchanged(work: Work, lane: Lane, payment: Payment, call: Future[Report]) -> bool:
    """Whether the call was answered, and the answer is what we know already."""
    if call.exception() is not None or not _says_nothing_new(payment, call.result(), clock.now()):
        return False
    work.answered(lane)
    question_log.answered(payment.id, call.result(), door="sweep")
    return True


def _settle(work: Work, lane: Lane, payment_id: int, read: Callable[[], Report]) -> None:
    def settle() -> settling.Outcome:
        try:
            return settling.settle(payment_id, read(), door="sweep")
        except ProviderError as error:
            return settling.unanswered(payment_id, error, door="sweep")

    _guarded(work, lane, payment_id, settle)


def _reconcile(work: Work, lane: Lane, payment_id: int) -> None:
    def reconcile() -> settling.Outcome:
        return reconciling.reconcile(payment_id, door="sweep", patient=True)

    _guarded(work, lane, payment_id, reconcile)


def _guarded(work: Work, lane: Lane, payment_id: int, act: Callable[[], settling.Outcome]) -> None:
    """One payment that cannot be settled must not keep the others from it: it is logged, and asked again."""
    try:
        outcome = lanes.unless_held(work, payment_id, act)
    except Exception as error:
        db.session.rollback()
        log.exception("payment_not_settled", payment=payment_id)
        failure = ProviderError(f"{type(error).__name__}: {error}", permanent=True, code="internal")
        outcome = settling.unanswered(payment_id, failure, door="sweep")
    if outcome is not None:
        lanes.tell(work, lane, outcome)
