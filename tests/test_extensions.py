"""The queue and the pool: what is asked of Redis and PostgreSQL, and what happens when they have gone."""

from __future__ import annotations

from pathlib import Path
from time import sleep

import pytest
from flask import Flask
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError

import extensions
from extensions import Limits, db, limited, queue
from tests.support.backends import backend, end_backend


def waiting() -> list[str | None]:
    return [job.func_name for job in queue.jobs().jobs]


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


def test_a_connection_that_died_in_the_pool_is_replaced(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extensions, "_TRUSTED_SECONDS", 0.0)
    db.session.rollback()
    db.engine.dispose()
    before = backend()
    db.session.rollback()
    end_backend(before)
    assert backend() != before


def test_a_connection_whose_command_was_left_half_done_is_given_up(app: Flask) -> None:
    """As where it ended in the midst of one. Nobody is given it again."""
    half_done = backend()
    connection = db.session.connection().connection.driver_connection
    assert connection is not None
    connection.pgconn.send_query(b"SELECT 1")
    with pytest.raises(OperationalError) as failed:
        db.session.commit()
    assert failed.value.connection_invalidated
    db.session.rollback()
    assert backend() != half_done


def test_a_connection_that_was_idle_for_too_long_has_ended(app: Flask) -> None:
    with limited(Limits(lock=1, statement=1, idle=0.05)):
        too_slow = backend()
        sleep(0.3)
        with pytest.raises(DBAPIError) as failed:
            backend()
    assert failed.value.connection_invalidated
    db.session.rollback()
    assert backend() != too_slow


# --- Limits of a transaction ----------------------------------------------------------------------------

SHOW = "SELECT current_setting('lock_timeout'), current_setting('statement_timeout'), "
SHOW += "current_setting('idle_in_transaction_session_timeout')"


def in_force() -> tuple[str, ...]:
    """What the server says of the transaction that asks."""
    db.session.rollback()
    return tuple(db.session.execute(text(SHOW)).one())


def test_each_edge_has_its_limits(app: Flask) -> None:
    assert in_force() == ("10s", "1min", "1min")
    with app.test_request_context("/"):
        assert in_force() == ("2s", "5s", "10s")
    with extensions.limited(extensions.CHECKS):
        assert in_force() == ("2s", "30s", "1min")
    assert in_force() == ("10s", "1min", "1min")


def test_the_limits_end_with_their_transaction(app: Flask) -> None:
    """So whoever gets the connection next from a pooler finds nothing of them."""
    in_force()
    db.session.commit()
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        assert set(connection.execute(text(SHOW)).one()) == {"0"}
    # Nor does the connection ask for anything as it starts, which a pooler would refuse.
    options = db.engine.raw_connection().driver_connection.info.get_parameters()  # type: ignore[union-attr]
    assert "options" not in options


def test_the_limits_cost_no_round_trip(app: Flask, tmp_path: Path) -> None:
    db.session.rollback()
    with db.engine.connect() as connection:
        wire = connection.connection.driver_connection.pgconn  # type: ignore[union-attr]
        with (tmp_path / "trace").open("w") as trace:
            wire.trace(trace.fileno())
            connection.execute(text("SELECT 1"))
            connection.execute(text("SELECT 2"))
            connection.commit()
            wire.untrace()
    said = (tmp_path / "trace").read_text()
    # BEGIN with its limits, two statements, COMMIT.
    assert said.count("ReadyForQuery") == 4
    assert said.count("SET LOCAL") == 3
