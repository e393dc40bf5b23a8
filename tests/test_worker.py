"""The time edge: its contexts and connections, and what it does where what it leans on is away."""

from __future__ import annotations

from contextlib import nullcontext
from threading import Thread

import click
import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

import config
import worker
from app import create_app
from domain import heartbeat
from domain.office import database_connections
from extensions import db
from models import SweepRun


def test_the_clock_outlives_its_database(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(name: str) -> None:
        raise OperationalError("INSERT", {}, Exception("no connection"))

    monkeypatch.setattr(heartbeat, "beat", away)
    worker._beat()


@pytest.mark.parametrize("command", ["worker", "clock", None])
def test_each_process_opens_as_many_connections_as_it_uses(
    app: Flask, environ: dict[str, str], command: str | None
) -> None:
    """Web a thread and one more; worker and clock, which are commands, a few whatever WEB_THREADS says."""
    settings = config.load({**environ, "WEB_THREADS": "7"})
    try:
        with click.Context(click.Command(command)) if command else nullcontext():
            made = create_app(settings)
    finally:
        config.use(config.load(environ))
    pool = made.config["SQLALCHEMY_ENGINE_OPTIONS"]["pool_size"]
    assert pool == (database_connections.JOBS_POOL if command else 8)


def test_a_job_has_a_context_of_its_own_and_leaves_its_caller_s_alone(app: Flask) -> None:
    """The worker's own context lasts for all jobs: what one of them holds must not be there for the next."""
    mine, seen = db.session(), []

    @worker._job
    def one() -> None:
        seen.append(db.session())

    one()
    one()
    assert len({id(session) for session in (mine, *seen)}) == 3 and db.session() is mine


def test_the_clock_sweeps_in_a_thread_of_its_own_context(app: Flask) -> None:
    thread = Thread(target=worker._sweep_at_start, args=(app,))
    thread.start()
    thread.join()
    assert db.session.scalars(select(SweepRun.trigger)).all() == ["start"]
