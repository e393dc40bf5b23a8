"""The time edge: thin RQ jobs, and `periodic()`, the list that rq-scheduler is reconciled to.

`flask worker` runs the jobs, `flask clock` enqueues them at their times. Each job opens a context of its own
of the application that the command runs in, makes one domain call, and says that the worker lives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import wraps
from threading import Event, Thread
from time import monotonic, sleep, time
from typing import ParamSpec

import structlog
from flask import Flask, current_app
from redis.exceptions import RedisError
from rq import SimpleWorker
from rq_scheduler import Scheduler
from sqlalchemy.exc import SQLAlchemyError

import config
from domain import acting, heartbeat
from domain.backups import lives, taking
from domain.office import (
    backfill,
    database_connections,
    invariants,
    retention,
    settings_seen,
    whole_checks,
)
from domain.orders import event_cancellation, line_turns
from domain.orders import moved_events as told_of_moves
from domain.post import outbox
from domain.sweep import sweeping
from extensions import JobText, PlainJob, connect_redis, queue

P = ParamSpec("P")
log = structlog.get_logger(__name__)

# The sweep's own budget is 240 seconds; RQ ends a job that forgot it.
JOB_TIMEOUT = 290
# Seconds after which the heartbeat from before a job is repeated after it.
_LONG = 5
# How often the clock looks for what is due, and how often it compares the schedule with `periodic()`.
_TICK = 2
_RECONCILE = 60
# How long to wait before Redis is tried again.
_REDIS_AGAIN = 3


@dataclass(frozen=True)
class Periodic:
    """A job that is enqueued every `seconds` under its own fixed id."""

    id: str
    function: str
    seconds: int


def periodic() -> tuple[Periodic, ...]:
    """What runs by itself, and how often; docs/operating.md lists it."""
    return (
        Periodic("kassa-sweep", "worker.sweep", config.get().sweep_interval),
        Periodic("kassa-mail", "worker.deliver_mail", 60),
        Periodic("kassa-lines", "worker.waiting_lines", 60),
        Periodic("kassa-checks", "worker.check_invariants", 600),
        Periodic("kassa-whole-check", "worker.check_everything", 60),
        Periodic("kassa-backfill", "worker.renew_rows", 600),
        Periodic("kassa-retention", "worker.forget", 3600),
        Periodic("kassa-backup", "worker.back_up", 3600),
    )


# --- Jobs -----------------------------------------------------------------------------------------------


def _job(work: Callable[P, None]) -> Callable[P, None]:
    """A job in its own application context, with the worker's heartbeat before it, and after a long one."""

    @wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with current_app.app_context(), acting.as_job(work.__name__):
            queue.begins(work.__name__)
            heartbeat.beat("worker")
            began = monotonic()
            work(*args, **kwargs)
            if monotonic() - began > _LONG:
                heartbeat.beat("worker")

    run.is_job = True  # type: ignore[attr-defined]
    return run


@_job
def sweep() -> None:
    """Reconcile what is due and deliver what is owed; before it, look whether the database was put back."""
    lives.notice()
    sweeping.run("clock")


@_job
def deliver_mail() -> None:
    """Deliver the outbox."""
    outbox.deliver_due()


@_job
def waiting_lines() -> None:
    """Give the turns of waiting lines, and end what was held there for long enough."""
    line_turns.look_after()


@_job
def cancelled_events() -> None:
    """Tell the buyers of cancelled events, and pay them back; the sweep does what this job did not."""
    event_cancellation.look_after()


@_job
def moved_events() -> None:
    """Tell whoever holds a ticket of an event that was moved; the sweep does what this job did not."""
    told_of_moves.tell_holders()


@_job
def check_invariants() -> None:
    """Run the invariants over the live data."""
    invariants.run()


@_job
def check_everything() -> None:
    """A few seconds of the night's check of everything, where there is too much to be asked about at once."""
    whole_checks.go_on()


@_job
def renew_rows() -> None:
    """Bring rows of earlier versions into today's forms; a few looks at indexes once that is done."""
    backfill.run()


@_job
def forget() -> None:
    """Forget what is not kept for ever."""
    retention.forget()


@_job
def back_up() -> None:
    """Back the database up, where that is due and asked for.

    In a thread beside the jobs: a large database takes minutes, and neither mails nor sweeps wait for it. One
    that ends with its worker is begun anew later, by the rows.
    """
    app = current_app._get_current_object()  # type: ignore[attr-defined]

    def work() -> None:
        with app.app_context(), acting.as_job("back_up"):
            try:
                taking.take_if_due()
            except Exception:
                # Nobody waits for this thread: the error is told here, and stands in the backup's row.
                log.exception("backup_failed")

    Thread(target=work, name="kassa-backup", daemon=True).start()


# --- Processes ------------------------------------------------------------------------------------------


def run_worker() -> None:
    """Run jobs until told to stop; a Redis that is away is waited for.

    Jobs run in this process, not in a fork of it: the ticket's fonts and stylesheet stay loaded, which makes
    a PDF several times cheaper, and a job that dies takes only a worker that is started again.
    """
    acting.only_jobs("worker")
    _compare_connections()
    while True:
        connection = connect_redis(config.get().redis_url, timeout=None)
        try:
            worker = SimpleWorker(
                [queue.jobs(connection)], connection=connection, job_class=PlainJob, serializer=JobText
            )
            worker.work(logging_level="WARNING")
            return
        except (RedisError, OSError) as error:
            log.warning("worker_without_redis", error=type(error).__name__)
            sleep(_REDIS_AGAIN)


def run_clock() -> None:
    """Sweep once, then keep the schedule and enqueue what is due, until told to stop.

    The schedule lives in Redis. It is compared with `periodic()` every minute, so that a flushed Redis heals.
    """
    acting.only_jobs("clock")
    _compare_connections()
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    _compare_settings()
    Thread(target=_sweep_at_start, args=(app,), name="first-sweep", daemon=True).start()
    connection = connect_redis(config.get().redis_url, timeout=10)
    scheduler = Scheduler(queue_name=queue.name, connection=connection, interval=_TICK, job_class=PlainJob)
    reconciled_at = float("-inf")
    wake = Event()
    while not wake.wait(_TICK):
        try:
            if monotonic() - reconciled_at >= _RECONCILE:
                reconcile_schedule(scheduler)
                reconciled_at = monotonic()
                _beat()
            # Only one of several clocks holds this lock at a time.
            if scheduler.acquire_lock():
                scheduler.enqueue_jobs()
                scheduler.remove_lock()
        except RedisError as error:
            log.warning("clock_without_redis", error=type(error).__name__)
            reconciled_at = float("-inf")
            sleep(_REDIS_AGAIN)


def _compare_connections() -> None:
    with current_app.app_context():
        database_connections.warn_at_start()


def _compare_settings() -> None:
    with current_app.app_context():
        try:
            settings_seen.compare()
        except SQLAlchemyError as error:
            # Compared at the next start: no sweep waits for it.
            log.warning("settings_not_compared", error=type(error).__name__)


def _sweep_at_start(app: Flask) -> None:
    with app.app_context():
        sweeping.run("start")


def _beat() -> None:
    with current_app.app_context():
        try:
            heartbeat.beat("clock")
        except SQLAlchemyError as error:
            # The clock needs no database: it goes on, and is seen again when the database is.
            log.warning("clock_without_database", error=type(error).__name__)


def reconcile_schedule(scheduler: Scheduler) -> None:
    """Make the schedule in Redis what `periodic()` says: add what is missing or changed, drop the rest."""
    wanted = {job.id: job for job in periodic()}
    for job in list(scheduler.get_jobs()):
        expected = wanted.get(job.id)
        same = (
            expected is not None
            and job.func_name == expected.function
            and job.meta.get("interval") == expected.seconds
        )
        if same:
            wanted.pop(job.id)
        else:
            scheduler.cancel(job)
    for missing in wanted.values():
        scheduler.schedule(
            # rq-scheduler wants naive UTC, and real time: a clock moved for tests does not move Redis.
            scheduled_time=datetime.fromtimestamp(time(), UTC).replace(tzinfo=None),
            func=missing.function,
            interval=missing.seconds,
            id=missing.id,
            result_ttl=600,
            timeout=JOB_TIMEOUT,
        )
