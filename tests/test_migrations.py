"""The migrations: one head, down and up again, and tables that are what models.py says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from time import monotonic
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import Flask
from flask_migrate import downgrade, upgrade
from sqlalchemy import Engine, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.event import listen, remove

import config
import extensions
from app import create_app
from domain import audit
from domain.office import person_export, person_map
from extensions import Base, db


@pytest.fixture
def empty(environ: dict[str, str], migrated: Flask) -> Iterator[Flask]:
    """An application over a database without tables. `migrated` comes first, since settings are global."""
    url = make_url(environ["DATABASE_URL"])
    name = f"{url.database}_migrations"
    admin = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    own = url.set(database=name).render_as_string(hide_password=False)
    app = create_app(config.load({**environ, "DATABASE_URL": own}))
    with app.app_context():
        yield app
        db.session.remove()
        db.engine.dispose()
    config.use(config.load(environ))
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def differences(engine: Engine) -> list[Any]:
    """What `flask db check` would put into a new migration."""
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, Base.metadata))


def everything(engine: Engine) -> list[tuple[Any, ...]]:
    """All that PostgreSQL tells of columns, indexes, constraints and triggers, but for alembic's table."""
    queries = (
        "SELECT table_name, column_name, data_type, is_nullable, column_default"
        " FROM information_schema.columns WHERE table_schema = 'public'",
        "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
        # Newer servers list NOT NULL here, too, by names that a renamed column leaves behind.
        " WHERE connamespace = 'public'::regnamespace AND contype <> 'n'",
        "SELECT tgrelid::regclass::text, tgname, pg_get_triggerdef(tg.oid), pg_get_functiondef(tgfoid)"
        " FROM pg_trigger tg WHERE NOT tgisinternal",
    )
    with engine.connect() as connection:
        rows = [tuple(row) for query in queries for row in connection.execute(text(query))]
    return sorted((row for row in rows if row[0] != "alembic_version"), key=str)


def test_there_is_one_head(migrated: Flask) -> None:
    scripts = ScriptDirectory(str(migrated.root_path) + "/migrations")
    assert len(scripts.get_heads()) == 1
    assert len(scripts.get_bases()) == 1


def test_flask_db_check_is_clean(app: Flask) -> None:
    result = app.test_cli_runner().invoke(args=["db", "check"])
    assert result.exit_code == 0, result.output


def test_models_and_migrations_agree(migrated: Flask) -> None:
    with migrated.app_context():
        assert differences(db.engine) == []


def test_migrations_make_what_the_models_would(empty: Flask) -> None:
    """Not only the columns: each index and constraint, with its condition, is the same both ways."""
    upgrade()
    by_migrations = everything(db.engine)
    downgrade(revision="base")
    Base.metadata.create_all(db.engine)
    by_models = everything(db.engine)
    assert [row for row in by_migrations if row not in by_models] == []
    assert [row for row in by_models if row not in by_migrations] == []
    assert len(by_models) > 100


def test_down_to_nothing_and_up_again(empty: Flask) -> None:
    upgrade()
    before = everything(db.engine)
    downgrade(revision="base")
    assert everything(db.engine) == []
    left = set(inspect(db.engine).get_table_names())
    assert left <= {"alembic_version"}
    with db.engine.connect() as connection:
        types = connection.scalars(text("SELECT typname FROM pg_type WHERE typtype = 'e'")).all()
    assert list(types) == []
    upgrade()
    assert everything(db.engine) == before


def test_each_step_down_has_its_step_up(empty: Flask) -> None:
    upgrade()
    steps = list(ScriptDirectory(str(empty.root_path) + "/migrations").walk_revisions())
    for step in steps:
        downgrade(revision=step.down_revision if isinstance(step.down_revision, str) else "base")
    for step in reversed(steps):
        upgrade(revision=step.revision)
    assert differences(db.engine) == []


# As many payments as a shop of some years has, of one order, at the first version.
_MANY = """
INSERT INTO orders (code, secret, email, name, currency, total_minor, state, stock_state, failure_reason,
                    client_address, created_at)
VALUES ('ORD-1', 's', 'a@example.org', '', 'EUR', 100, 'completed', 'none', '', '', now());
INSERT INTO payments (order_id, attempt, provider, account, livemode, reference, idempotency_key, params,
                      provider_id, fulfilled, amount_minor, currency, state, reason, created_at, state_since,
                      check_count, error_count, last_error)
SELECT 1, n, 'stripe', 'platform', false, 'ORD-1-' || n, 'key-' || n, '{}',
       CASE WHEN n % 20 = 0 THEN 'cs_' || n END, false, 100, 'EUR',
       'expired', '', now(), now(), 0, 0, ''
FROM generate_series(1, 200000) AS n
"""
_COLUMNS = (
    "SELECT table_name, column_name, data_type, is_nullable = 'YES' OR column_default IS NOT NULL"
    " OR is_identity = 'YES' FROM information_schema.columns WHERE table_schema = 'public'"
)


def _buy_beside(url: str, stop: Event, waits: list[float]) -> None:
    """Write to payments again and again, as a shop that sells meanwhile; how long each took, in seconds."""
    with psycopg.connect(url, autocommit=True) as shop:
        while not stop.wait(0.02):
            began = monotonic()
            shop.execute(
                "UPDATE payments SET error_count = error_count WHERE id = %s", [len(waits) % 999 + 1]
            )
            waits.append(monotonic() - began)


# Tables that grow with what is sold, but for those that a migration has made itself.
_GROW = "orders|order_lines|payments|tickets|outbox|timeline|transfers|refunds|webhook_events|check_ins"
# What reads or writes all of a table while others wait for it.
_HOLDS = re.compile(
    rf"\s*(CREATE (UNIQUE )?INDEX (?!CONCURRENTLY)\S+ ON ({_GROW}) "
    rf"|ALTER TABLE ({_GROW}) ADD CONSTRAINT (?!.*(NOT VALID|USING INDEX))"
    rf"|UPDATE ({_GROW}) (?!.*id BETWEEN)|DELETE FROM ({_GROW})\b)",
    re.DOTALL | re.IGNORECASE,
)


@contextmanager
def statements() -> Iterator[list[str]]:
    """What a block asks of the database."""
    found: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        found.append(statement)

    listen(db.engine, "after_cursor_execute", note)
    try:
        yield found
    finally:
        remove(db.engine, "after_cursor_execute", note)


def test_a_migration_that_died_is_begun_again(empty: Flask) -> None:
    """It dies behind each step that is done outside of a transaction, one after the other."""
    upgrade(revision="0001")
    died: set[str] = set()

    def die(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        alone = re.match(r"\s*(VALIDATE|ALTER TABLE \w+ VALIDATE|UPDATE|.*CONCURRENTLY)", statement)
        if alone and statement not in died:
            died.add(statement)
            raise InterruptedError(statement)

    listen(db.engine, "after_cursor_execute", die)
    try:
        for _ in range(100):
            with suppress(InterruptedError):
                upgrade()
                break
    finally:
        remove(db.engine, "after_cursor_execute", die)
    assert len(died) > 20
    assert differences(db.engine) == []
    with db.engine.connect() as connection:
        assert connection.scalars(text("SELECT indexrelid FROM pg_index WHERE NOT indisvalid")).all() == []
        loose = "SELECT conname FROM pg_constraint WHERE NOT convalidated"
        assert connection.scalars(text(loose)).all() == []


def test_what_holds_a_table_is_known() -> None:
    for held in (
        "CREATE INDEX one ON orders (id)",
        "ALTER TABLE payments ADD CONSTRAINT one CHECK (id > 0)",
        "UPDATE outbox SET state = 'sent'",
    ):
        assert _HOLDS.match(held)
    for fine in (
        "CREATE INDEX CONCURRENTLY one ON orders (id)",
        "ALTER TABLE payments ADD CONSTRAINT one CHECK (id > 0) NOT VALID",
        "UPDATE outbox SET state = 'sent' WHERE id BETWEEN 1 AND 9",
        "CREATE INDEX one ON audit_log (id)",
    ):
        assert not _HOLDS.match(fine)


def test_a_shop_of_200_000_payments_sells_while_it_is_migrated(empty: Flask) -> None:
    """Nobody waits long at any step; and the version before goes on: no column is gone, or must be filled."""
    upgrade(revision="0001")
    with db.engine.begin() as connection:
        connection.execute(text(_MANY))
        began = monotonic()
        connection.execute(text("UPDATE payments SET error_count = error_count"))
        all_at_once = monotonic() - began
    waits: list[float] = []
    stop = Event()
    url = db.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    shop = Thread(target=_buy_beside, args=(url, stop, waits))
    shop.start()
    try:
        with statements() as asked:
            upgrade(revision="0015")
            with db.engine.connect() as connection:
                before = {tuple(row) for row in connection.execute(text(_COLUMNS))}
            upgrade()
    finally:
        stop.set()
        shop.join()
    assert [one for one in asked if _HOLDS.match(one)] == []
    # This machine's own measure: a table that is changed in one transaction is locked for longer than that.
    assert len(waits) > 20 and max(waits) < all_at_once, (len(waits), max(waits), all_at_once)
    with db.engine.connect() as connection:
        after = {tuple(row) for row in connection.execute(text(_COLUMNS))}
        filled = "SELECT count(DISTINCT public_id), count(polling_started_at) FROM payments"
        assert connection.execute(text(filled)).one() == (200_000, 10_000)
    known = {row[:2] for row in before}
    tables = {row[0] for row in before}
    assert {row[:3] for row in before} <= {row[:3] for row in after}
    assert [row for row in after if row[0] in tables and row[:2] not in known and not row[3]] == []


def test_a_table_that_somebody_holds_ends_a_migration_in_words(
    app: Flask, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extensions, "MIGRATIONS", extensions.Limits(lock=0.2, statement=0, idle=0))
    monkeypatch.setattr(extensions, "MIGRATION_TRIES", 2)
    run = app.test_cli_runner()
    db.session.rollback()
    with psycopg.connect(database_url) as stranger:
        stranger.execute("LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE")
        told = run.invoke(args=["db", "upgrade"])
    assert told.exit_code == 1
    assert "`flask doctor` names who it is" in told.output
    assert run.invoke(args=["db", "upgrade"]).exit_code == 0


# --- What a new table or column has to be placed in -----------------------------------------------------

# Tables whose rows are no role, price, text, setting, event, connection or key: what was bought and paid has
# its own history, and the rest is what Kassa itself keeps.
NOT_AUDITED = frozenset(
    ("orders", "order_lines", "timeline", "payments", "refunds", "disputes", "incidents", "tickets", "outbox")
    + ("transfers", "wallets", "wallet_holds", "webhook_events", "sweep_runs", "account_cursors")
    + ("told_reports", "biller_answers", "check_ins", "check_runs", "heartbeats", "pictures", "audit_log")
    + ("logins", "one_time_links", "api_sessions", "api_refresh_tokens", "api_requests")
    + ("devices", "login_codes", "recovery_codes", "second_factors")
    + ("athletes", "consents", "participants", "order_words", "mail_budgets", "mail_requests")
    + ("tallies", "whole_checks", "erasures", "settings_seen", "line_places")
    + ("backups",)
)


def test_every_table_is_in_the_audit_log_or_said_not_to_be() -> None:
    watched = {model.__tablename__ for model in audit.WATCHED}
    assert not watched & NOT_AUDITED
    known = watched | NOT_AUDITED
    new = sorted(set(Base.metadata.tables) - known)
    assert not new, f"Watch these in domain/audit.py, or name them in NOT_AUDITED: {new}"


def test_every_column_of_what_is_watched_is_placed() -> None:
    """A new column is noted, or said to be nobody's decision; one that is secret is never noted."""
    for model, watch in audit.WATCHED.items():
        columns = {column.key for column in model.__mapper__.column_attrs}
        placed = [*watch.all, *watch.besides]
        assert columns == set(placed), f"{model.__name__}: say in domain/audit.py what becomes of these"
        assert len(placed) - len(set(placed)) == 0, model.__name__
        secret = [name for name in watch.all if any(part in name for part in ("hash", "token", "secret"))]
        assert secret == []


def test_every_column_that_can_hold_a_person_is_on_the_map() -> None:
    """Whether it goes when its person asks, stays for the books, or holds nobody: somebody has to say."""
    new, gone = [], []
    for table in Base.metadata.sorted_tables:
        persons, nobody = (
            person_map.PERSONS.get(table.name, {}),
            person_map.NOBODY.get(table.name, frozenset()),
        )
        assert not set(persons) & nobody, table.name
        holding = {column.name for column in table.columns if person_map.can_hold_a_person(column)}
        new += [f"{table.name}.{name}" for name in sorted(holding - set(persons) - nobody)]
        gone += [f"{table.name}.{name}" for name in sorted((set(persons) | nobody) - holding)]
    assert not new, f"Say in domain/office/person_map.py what becomes of these: {new}"
    assert not gone, f"These are no such columns: {gone}"


def test_whoever_asks_is_told_every_column_that_they_are_in() -> None:
    """Each that goes or stays of a person is in their file, or it is said why it is not."""
    told = {model.__tablename__: set(fields) for model, fields in person_export.FIELDS.items()}
    for table, columns in person_map.PERSONS.items():
        of_them = {name for name, fate in columns.items() if fate is not person_map.Fate.LEADS}
        untold = person_export.NOT_TOLD.get(table, frozenset())
        assert of_them - told.get(table, set()) - untold - {"user_id"} == set(), table
        assert not untold & told.get(table, set()) and untold <= set(columns), table
