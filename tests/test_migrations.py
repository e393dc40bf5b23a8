"""The migrations: one head, down and up again, and tables that are what models.py says."""

from __future__ import annotations

from collections.abc import Iterator
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

import config
import extensions
from app import create_app
from domain import audit
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
    """All columns, indexes and constraints as PostgreSQL tells them, without alembic's own table."""
    queries = (
        "SELECT table_name, column_name, data_type, is_nullable, column_default"
        " FROM information_schema.columns WHERE table_schema = 'public'",
        "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
        # Newer servers list NOT NULL here, too, by names that a renamed column leaves behind.
        " WHERE connamespace = 'public'::regnamespace AND contype <> 'n'",
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


def test_a_table_that_somebody_holds_ends_a_migration_in_words(
    app: Flask, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extensions, "MIGRATIONS", extensions.Limits(lock=0.2, statement=0, idle=0))
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
    + ("athletes", "consents", "participants")
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
