"""Somebody's transaction that holds rows and does nothing: nobody waits for long, and it is named."""

from __future__ import annotations

import re
from collections.abc import Iterator
from time import monotonic

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from psycopg import errors
from sqlalchemy import func, select, update
from sqlalchemy.exc import DBAPIError

import extensions
from domain import blocking
from domain.office import doctor, health
from domain.payments import starting
from domain.sweep import sweeping
from extensions import db
from models import Event, Order, OrderState, Payment, PaymentState, Role, Ticket, WebhookEvent
from tests.support.people import log_in, make_member
from tests.support.sandbox import Sandbox
from tests.support.shop import address, make_event, place
from tests.support.tills import Till
from tests.support.web import buy, newest_order


@pytest.fixture
def stranger(app: Flask, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[psycopg.Connection]:
    """Somebody's console. Tests wait half a second where a buyer waits two, and a job ten."""
    for name in ("WEB", "JOBS"):
        short = extensions.Limits(lock=0.5, statement=5, idle=60)
        monkeypatch.setattr(extensions, name, short)
    with psycopg.connect(database_url, application_name="somebody's console") as connection:
        yield connection
        if not connection.closed:
            connection.rollback()


def count(table: type[Order | Ticket | WebhookEvent]) -> int:
    db.session.rollback()
    return db.session.scalars(select(func.count()).select_from(table)).one()


def test_a_buyer_reads_what_to_do_and_nothing_is_half_done(
    client: FlaskClient, stranger: psycopg.Connection
) -> None:
    event = make_event()
    stranger.execute("UPDATE ticket_types SET name = name")
    began = monotonic()
    answer = buy(client, event)
    assert monotonic() - began < 5
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert "nothing is bought or charged twice" in answer.text
    assert count(Order) == 0
    assert client.get("/livez").status_code == 200
    stranger.rollback()
    assert buy(client, event).status_code == 303
    assert count(Order) == 1


@pytest.mark.parametrize("held", ["orders", "payments", "ticket_types", "events"])
def test_a_ring_is_to_come_again(
    client: FlaskClient, stranger: psycopg.Connection, sandbox: Sandbox, till: Till, held: str
) -> None:
    """Whatever is held, the provider hears 503, the event is not done, and the buyer's page says so, too."""
    order = place(make_event(providers=[till.name]), provider=till.name)
    payment = starting.open_at_provider(order)
    assert payment is not None and payment.provider_id is not None
    sandbox.do(payment.provider_id, "pay")
    path = address(order)
    db.session.refresh(payment)
    db.session.expunge(payment)
    db.session.rollback()
    stranger.execute(f"LOCK TABLE {held} IN ACCESS EXCLUSIVE MODE")
    assert till.ring(client, payment) == 503
    # Where only what comes last is held, the page shows what is known, as somebody asked just now.
    assert client.get(f"{path}.json").status_code in (200, 503)
    stranger.rollback()
    assert count(Ticket) == 0
    done = select(func.count()).where(WebhookEvent.done_at.is_not(None))
    assert db.session.scalars(done).one() == 0
    db.session.execute(update(Payment).values(last_polled_at=None))
    db.session.commit()
    assert till.ring(client, payment) == 200
    assert client.get(f"{path}.json").get_json()["payment_state"] == "paid"
    assert newest_order().state is OrderState.COMPLETED


def test_a_sweep_goes_past_what_is_held(app: Flask, stranger: psycopg.Connection, sandbox: Sandbox) -> None:
    event, other = make_event(), make_event("other")
    for sold in (event, event, event, event, other):
        payment = starting.open_at_provider(place(db.session.get_one(Event, sold.id)))
        assert payment is not None and payment.provider_id is not None
        sandbox.do(payment.provider_id, "pay")
    stranger.execute("UPDATE orders SET name = name WHERE event_id = %s", (event.id,))
    run = sweeping.run("command")
    # Each of the four is met twice: as due, and in what happened at the account. No duty failed.
    assert (run.verified, run.errors) == (1, 8)
    stranger.rollback()
    db.session.execute(update(Payment).values(leased_until=None))
    db.session.commit()
    assert sweeping.run("command").verified == 4
    assert {p.state for p in db.session.scalars(select(Payment))} == {PaymentState.PAID}


def test_it_is_named_with_the_command_that_ends_it(
    client: FlaskClient, stranger: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_event()
    assert blocking.hung() == []
    stranger.execute("UPDATE ticket_types SET name = name")
    assert blocking.hung() == []
    monkeypatch.setattr(blocking, "HUNG_SECONDS", 0.0)
    told = client.get("/healthz").get_json()
    pid = stranger.info.backend_pid
    assert told["status"] == "degraded"
    assert told["checks"]["transactions"]["state"] == health.DEGRADED
    assert "somebody's console" in told["checks"]["transactions"]["words"]
    assert f"`flask doctor --end {pid}`" in told["checks"]["transactions"]["words"]
    # What it did may carry somebody's name: that is for the operator.
    assert "UPDATE" not in told["checks"]["transactions"]["words"]
    finding = next(f for f in doctor.findings() if f.code == "transactions")
    assert finding.state == doctor.FAIL
    assert "UPDATE ticket_types" in finding.words
    command = re.search(r"`flask (doctor --end \d+)`", finding.fix)
    assert command is not None
    runner = client.application.test_cli_runner()
    done = runner.invoke(args=command[1].split())
    assert done.exit_code == 0, done.output
    with pytest.raises(psycopg.OperationalError):
        stranger.execute("SELECT 1")
    assert blocking.hung() == []
    assert "left alone" in runner.invoke(args=command[1].split()).output


def test_health_is_told_while_a_table_is_held(client: FlaskClient, stranger: psycopg.Connection) -> None:
    stranger.execute("LOCK TABLE incidents, outbox IN ACCESS EXCLUSIVE MODE")
    began = monotonic()
    answer = client.get("/healthz")
    assert monotonic() - began < 5
    assert answer.status_code == 200
    checks = answer.get_json()["checks"]
    assert {checks[name]["state"] for name in ("incidents", "outbox")} == {"degraded"}
    assert "LockNotAvailable" in checks["incidents"]["words"]


def test_a_statement_that_takes_too_long_is_busy_too(
    client: FlaskClient, stranger: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = make_event()
    monkeypatch.setattr(extensions, "WEB", extensions.Limits(lock=0, statement=0.3, idle=10))
    stranger.execute("UPDATE ticket_types SET name = name")
    answer = buy(client, event)
    assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)
    assert count(Order) == 0


def test_who_is_cut_off_reads_words_though_nothing_can_be_read(
    client: FlaskClient, stranger: psycopg.Connection
) -> None:
    """The page itself would show who is logged in."""
    boss = make_member("boss@example.org", role=Role.ADMIN)
    log_in(client, boss.email)
    db.session.rollback()
    stranger.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
    answer = client.get("/account/")
    assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)
    assert "nothing is bought or charged twice" in answer.text


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (errors.DeadlockDetected, True),
        (errors.SerializationFailure, True),
        (errors.LockNotAvailable, True),
        (errors.QueryCanceled, True),
        (errors.IdleInTransactionSessionTimeout, True),
        (errors.AdminShutdown, True),
        (errors.TooManyConnections, True),
        (errors.UniqueViolation, False),
        (errors.UndefinedTable, False),
        (errors.InternalError, False),
    ],
)
def test_what_passes_and_what_is_a_fault_of_ours(error: type[psycopg.Error], passes: bool) -> None:
    raised = DBAPIError.instance("SELECT 1", {}, error("said so"), psycopg.Error)
    assert isinstance(raised, DBAPIError)
    assert blocking.passes(raised) is passes


def test_no_file_is_read_from_an_open_transaction(client: FlaskClient, database_url: str) -> None:
    """Who reads the export a byte at a time holds nothing but the memory that it takes."""
    event = make_event(organiser_id=make_member("org@example.org", role=Role.ORGANISER).id)
    log_in(client, "org@example.org")
    for path in (f"/organiser/events/{event.slug}/attendees.csv", f"/events/{event.slug}"):
        answer = client.get(path, buffered=False)
        assert answer.status_code == 200
    # The test's own.
    db.session.rollback()
    with psycopg.connect(database_url, autocommit=True) as outside:
        open_ones = "SELECT query FROM pg_stat_activity WHERE datname = current_database() "
        rows = outside.execute(open_ones + "AND state LIKE 'idle in transaction%'").fetchall()
    assert rows == []
