"""The backstop: everything that is due is claimed in batches, read, and given to settle.

A sweep works until nothing is due or its budget ends. What is due, and of whom, is told by `sweep/lanes.py`;
how it is read, by `domain/sweep/reading.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import monotonic

import structlog

import config
from domain import clock
from domain.connections import linked_accounts
from domain.ledger import wallet
from domain.orders import event_cancellation, line_turns, moved_events
from domain.payments import incident_decisions, refunds, replacements
from domain.post import outbox
from domain.providers import throttle
from domain.sweep import account_history, digests, lanes, reading
from domain.sweep.lanes import Work
from extensions import connections_ended, db, own_session
from models import SweepRun

log = structlog.get_logger(__name__)

# Refunds that are followed up before the next ones are looked for.
_BATCH = 16


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
    with own_session():
        run_id = _run(trigger, tell, verbose=verbose, everything=everything)
    return db.session.get_one(SweepRun, run_id)


def _run(trigger: str, tell: Callable[[str], None], *, verbose: bool, everything: bool) -> int:
    settings = config.get()
    now = clock.now()
    record = SweepRun(trigger=trigger, started_at=now)
    db.session.add(record)
    db.session.commit()
    calls_before = throttle.calls.total
    ends = monotonic() + settings.sweep_budget
    work = Work(record.id, now, ends, tell, verbose, everything, settings.sweep_cap)
    tell("Starting payment polling service...")
    record.found = lanes.count_due(work)
    tell(f"Found {record.found} pending orders to verify")
    db.session.commit()
    try:
        accounts = lanes.find(work)
        for lane in accounts:
            _also(work, f"{lane.key} listed", partial(reading.listed, work, lane))
        _also(work, "by id", partial(reading.by_id, work, accounts))
        _also(work, "refunds", partial(_refunds, work))
        _also(work, "cancelled_events", event_cancellation.look_after)
        _also(work, "not_replaced", replacements.tell_ended)
        _also(work, "moved_events", moved_events.tell_holders)
        _also(work, "waiting_lines", line_turns.look_after)
        _also(work, "late_money", incident_decisions.decide_late_money)
        _also(work, "wallet_holds", lambda: wallet.expire_holds(clock.now()))
        _also(work, "connections", linked_accounts.tend)
        _also(work, "stuck", digests.raise_stuck)
        _also(work, "expired", digests.raise_expired)
        _also(work, "dead_rings", digests.raise_dead_rings)
        _also(work, "what happened since", partial(account_history.ask_accounts, work))
        delivered = outbox.deliver_due(budget_seconds=30)
    except BaseException as error:
        db.session.rollback()
        db.session.get_one(SweepRun, work.run_id).error = f"{type(error).__name__}: {error}"[:1000]
        db.session.commit()
        raise
    _finish(work, throttle.calls.total - calls_before, work.mails + delivered.sent)
    return work.run_id


def _also(work: Work, name: str, do: Callable[[], object]) -> None:
    """One of a sweep's duties. If it fails, that is logged and counted, and the others are still done."""
    ended = connections_ended()
    try:
        do()
    except Exception:
        db.session.rollback()
        log.exception("sweep_duty_failed", duty=name)
        work.failed_duties += 1
    if connections_ended() > ended:
        # Also where the duty went on with its next row, as most do.
        work.cut_off.append(name)


def _finish(work: Work, calls: int, mails: int) -> None:
    run, counts = db.session.get_one(SweepRun, work.run_id), work.counts
    run.finished_at = clock.now()
    if work.cut_off:
        # Nobody may believe that all that was due was looked at: this is no sweep that a watch counts.
        run.error = f"The database ended the connection during: {', '.join(work.cut_off)}"[:1000]
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


# --- What else a sweep owes -----------------------------------------------------------------------------


def _refunds(work: Work) -> None:
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
