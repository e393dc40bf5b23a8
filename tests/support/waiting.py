"""Waiting for what another thread does in PostgreSQL."""

from __future__ import annotations

from time import sleep

import psycopg

_WAITING = """
    SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()
"""


def until_somebody_waits(connection: psycopg.Connection) -> None:
    """Until somebody waits for a lock, as `connection` sees it, which may be in a transaction."""
    for _ in range(1000):
        # Within a transaction PostgreSQL goes on showing what it showed first.
        connection.execute("SELECT pg_stat_clear_snapshot()")
        row = connection.execute(_WAITING).fetchone()
        if row is not None and row[0]:
            return
        sleep(0.01)
    raise AssertionError("Nobody waits.")
