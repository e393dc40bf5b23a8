"""When the database makes everybody wait: which errors pass, and whose transaction is in the way.

Our own transactions are bounded (extensions.py), so what hangs for longer is somebody else's: a person's
console, a report, a backup. Nothing here waits for a lock.
"""

from __future__ import annotations

from dataclasses import dataclass

from psycopg.errors import IdleInTransactionSessionTimeout
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, InternalError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoConnection

from domain.errors import DomainError, NotFound
from extensions import db

# So many seconds without a statement are no pause any more; and whoever was waited for so long is in the way.
HUNG_SECONDS = 30.0
WAITED_SECONDS = 1.0
SHOWN = 5
# What a request is asked to wait before it comes again, in seconds.
RETRY_AFTER = 5


def passes(error: SQLAlchemyError) -> bool:
    """Whether what failed may succeed in a moment: nothing of it was done, and the request was not wrong.

    A lock or a statement that took too long, a deadlock, a serialisation failure, a lost connection, a
    server that starts, stops or has no connection left: PostgreSQL's classes for what it cannot do just now.
    """
    if isinstance(error, InternalError):
        return isinstance(error.orig, IdleInTransactionSessionTimeout)
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    return isinstance(error, OperationalError | NoConnection)


def forget() -> None:
    """End what is left of a transaction that failed."""
    db.session.rollback()


@dataclass(frozen=True)
class Hung:
    """A transaction that does not end. `waiting` others wait for it; `command` ends it."""

    words: str
    statement: str
    command: str
    waiting: int


_SESSIONS = text(
    """
    WITH waits AS (
      SELECT unnest(pg_blocking_pids(pid)) AS blocker FROM pg_stat_activity
      WHERE datname = current_database() AND wait_event_type = 'Lock'
        AND query_start < clock_timestamp() - make_interval(secs => :waited))
    SELECT a.pid, a.usename, a.application_name, host(a.client_addr) AS address, left(a.query, 120) AS query,
           a.state, round(extract(epoch FROM clock_timestamp() - a.xact_start)) AS age,
           (SELECT count(*) FROM waits w WHERE w.blocker = a.pid) AS waiting
    FROM pg_stat_activity a
    WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()
      AND (a.state LIKE 'idle in transaction%'
             AND a.state_change < clock_timestamp() - make_interval(secs => :hung)
           OR a.wait_event_type IS DISTINCT FROM 'Lock' AND a.pid IN (SELECT blocker FROM waits)
             AND coalesce(a.xact_start < clock_timestamp() - make_interval(secs => :hung), true))
    ORDER BY waiting DESC, a.xact_start LIMIT :most
    """
)
_PREPARED = text(
    """
    SELECT gid, owner, round(extract(epoch FROM clock_timestamp() - prepared)) AS age FROM pg_prepared_xacts
    WHERE database = current_database() AND prepared < clock_timestamp() - make_interval(secs => :hung)
    ORDER BY prepared LIMIT :most
    """
)


def hung() -> list[Hung]:
    """The transactions that are in everybody's way, those that most wait for first. Ends its own."""
    db.session.rollback()
    values = {"hung": HUNG_SECONDS, "waited": WAITED_SECONDS, "most": SHOWN}
    sessions = db.session.execute(_SESSIONS, values).mappings().all()
    prepared = db.session.execute(_PREPARED, values).mappings().all()
    db.session.rollback()
    found = []
    for row in sessions:
        who = (
            f"{row['usename'] or 'an unknown role'}, {row['application_name'] or 'a program without a name'}"
        )
        who += f", from {row['address']}" if row["address"] else ""
        age = f"for {row['age']} seconds" if row["age"] is not None else "for an unknown time"
        does = "does nothing" if (row["state"] or "").startswith("idle") else "is at work"
        found.append(
            Hung(
                f"Connection {row['pid']} ({who}) has a transaction open {age}, and {does}",
                row["query"] or "",
                f"flask doctor --end {row['pid']}",
                row["waiting"],
            )
        )
    for row in prepared:
        words = f"A prepared transaction of {row['owner']} waits for its end for {row['age']} seconds"
        quoted = row["gid"].replace("'", "''")
        found.append(Hung(words, "", f'psql "$DATABASE_URL" -c "ROLLBACK PREPARED \'{quoted}\'"', 0))
    return found


def end(pid: int) -> None:
    """Close the connection `pid`, and with it its transaction, if it is one that hangs.

    NotFound when it is not among them; DomainError where this role may not.
    """
    command = f"flask doctor --end {pid}"
    if not any(each.command == command for each in hung()):
        raise NotFound("not_hung", f"Connection {pid} is in nobody's way, so it was left alone.")
    try:
        db.session.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
    except DBAPIError as error:
        raise DomainError(
            "not_allowed", f"This role may not end connection {pid}: ask whoever runs the database."
        ) from error
    finally:
        db.session.rollback()
