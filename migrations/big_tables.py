"""Changing tables that are big and in use: nobody waits for longer than one short lock.

A migration's own statements are for what takes a moment, such as a column with a constant default. They wait
for a table no longer than the lock limit, and the whole migration is tried again (env.py). What reads or
writes every row is done here, outside of its transaction: beside whoever buys, in batches that each commit.
All of it may be begun again where it was interrupted.
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import text

BATCH = 10_000


def create_index(name, table, columns, *, where=None, unique=False):
    """An index, made while rows are written. One that was left half made is made anew."""
    listed = ", ".join(columns)
    with op.get_context().autocommit_block():
        connection = op.get_bind()
        known = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)"
        if connection.scalar(text(known), {"name": name}) is False:
            connection.execute(text(f"DROP INDEX CONCURRENTLY {name}"))
        rows = f" WHERE {where}" if where else ""
        kind = "UNIQUE INDEX" if unique else "INDEX"
        connection.execute(
            text(f"CREATE {kind} CONCURRENTLY IF NOT EXISTS {name} ON {table} ({listed}){rows}")
        )


def drop_index(name):
    """Take an index away once nobody reads by it any more, and let others go on meanwhile."""
    with op.get_context().autocommit_block():
        op.get_bind().execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS {name}"))


def update(table, values, where):
    """`UPDATE table SET values WHERE where`, a few rows at a time; `where` must not hold for what is done."""
    with op.get_context().autocommit_block():
        connection = op.get_bind()
        last = connection.scalar(text(f"SELECT coalesce(max(id), 0) FROM {table}"))
        change = text(f"UPDATE {table} SET {values} WHERE id BETWEEN :first AND :last AND ({where})")
        for first in range(1, last + 1, BATCH):
            connection.execute(change, {"first": first, "last": first + BATCH - 1})


def foreign_key(name, table, column, other):
    """A reference to `other` that holds for new rows at once; `validate` has the old ones read."""
    op.execute(
        f"ALTER TABLE {table} ADD CONSTRAINT {name} FOREIGN KEY ({column}) REFERENCES {other} (id) NOT VALID"
    )


def check(name, table, condition):
    """A CHECK, likewise."""
    op.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} CHECK ({condition}) NOT VALID")


def validate(name, table):
    """Read all rows for a constraint, beside whoever writes."""
    with op.get_context().autocommit_block():
        op.get_bind().execute(text(f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}"))


def not_null(table, column):
    """NOT NULL without reading the table under its strongest lock: a CHECK that is valid says it already."""
    name = f"{table}_{column}_there"
    op.execute(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {name}")
    check(name, table, f"{column} IS NOT NULL")
    validate(name, table)
    op.execute(f"ALTER TABLE {table} ALTER COLUMN {column} SET NOT NULL")
    op.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")


def unique(name, table, column):
    """A unique constraint over an index that is made while rows are written."""
    create_index(name, table, [column], unique=True)
    op.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} UNIQUE USING INDEX {name}")


def is_new(table, column):
    """Whether a column is still to be added: what comes before the work in batches is committed with it."""
    query = (
        "SELECT NOT EXISTS (SELECT FROM information_schema.columns WHERE table_schema = current_schema()"
        " AND table_name = :table AND column_name = :column)"
    )
    return op.get_bind().scalar(text(query), {"table": table, "column": column})
