"""The queue and the pool: what is asked of Redis and PostgreSQL, and what happens when they have gone."""

from __future__ import annotations

import psycopg
import pytest
from flask import Flask
from rq import Queue
from sqlalchemy import text

import extensions
from extensions import db, queue


def waiting() -> list[str | None]:
    return [job.func_name for job in Queue(queue.name, connection=queue.redis).jobs]


def test_one_waiting_job_is_enough(app: Flask) -> None:
    assert [queue.soon("deliver_mail") for _ in range(3)] == [True, True, True]
    assert waiting() == ["worker.deliver_mail"]


def test_what_is_owed_after_a_job_began_needs_another(app: Flask) -> None:
    queue.soon("deliver_mail")
    queue.begins("deliver_mail")
    queue.soon("deliver_mail")
    assert waiting() == ["worker.deliver_mail"] * 2


def test_a_job_that_was_lost_keeps_no_other_out_for_long(app: Flask) -> None:
    queue.soon("deliver_mail")
    assert 0 < queue.redis.ttl("kassa:waiting:deliver_mail") <= 10


def test_jobs_with_arguments_are_all_enqueued(app: Flask) -> None:
    queue.soon("look", 1)
    queue.soon("look", 2)
    assert len(waiting()) == 2


def test_a_connection_that_died_in_the_pool_is_replaced(
    app: Flask, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extensions, "_TRUSTED_SECONDS", 0.0)
    db.session.rollback()
    db.engine.dispose()
    before = db.session.scalar(text("SELECT pg_backend_pid()"))
    db.session.rollback()
    with psycopg.connect(database_url, autocommit=True) as outside:
        outside.execute("SELECT pg_terminate_backend(%s, 5000)", (before,))
    assert db.session.scalar(text("SELECT pg_backend_pid()")) != before
