"""The RQ jobs that failed and the ones rq-scheduler will start, for whoever looks after them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from redis.exceptions import RedisError
from rq.exceptions import InvalidJobOperation, NoSuchJobError
from rq.job import Job

from domain.errors import DomainError, NotFound
from extensions import PlainJob, queue

SHOWN = 50
# Where rq-scheduler keeps its jobs: a sorted set of job ids by the time they are due.
SCHEDULED = "rq:scheduler:scheduled_jobs"


@dataclass(frozen=True)
class FailedJob:
    """A job that ended in an error; `error` is the last line of it."""

    id: str
    function: str
    at: datetime | None
    error: str


@dataclass(frozen=True)
class ScheduledJob:
    """A job that starts by itself, and when next."""

    id: str
    due_at: datetime


def failed() -> list[FailedJob]:
    """The failed jobs, newest first. DomainError when Redis does not answer."""
    try:
        registry = queue.jobs().failed_job_registry
        ids = registry.get_job_ids(desc=True)[:SHOWN]
        jobs = PlainJob.fetch_many(ids, connection=queue.redis)
        return [_failed(job) for job in jobs if job is not None]
    except RedisError as error:
        raise DomainError("redis_down", "Redis does not answer, so the jobs cannot be read.") from error


def _failed(job: Job) -> FailedJob:
    result = job.latest_result()
    lines = (result.exc_string if result is not None else "") or ""
    return FailedJob(job.id, job.func_name or "", job.ended_at, lines.strip().rsplit("\n", 1)[-1][:300])


def scheduled() -> list[ScheduledJob]:
    """What starts by itself, the next one first. DomainError when Redis does not answer."""
    try:
        members: Any = queue.redis.zrange(SCHEDULED, 0, SHOWN, withscores=True)
    except RedisError as error:
        raise DomainError("redis_down", "Redis does not answer, so the jobs cannot be read.") from error
    return [ScheduledJob(job.decode(), datetime.fromtimestamp(due, UTC)) for job, due in members]


def requeue(job_id: str) -> None:
    """Let a failed job run again. NotFound when it is gone; DomainError when Redis does not answer."""
    try:
        queue.jobs().failed_job_registry.requeue(job_id)
    except (NoSuchJobError, InvalidJobOperation) as error:
        raise NotFound("no_job", "That job is not among the failed ones any more.") from error
    except RedisError as error:
        raise DomainError("redis_down", "Redis does not answer. Try again when it does.") from error
