"""What the sandbox remembers, in one SQLite file under $KASSA_HOME, so that it survives a restart.

One connection and one lock: a transaction is the only unit of work, and no two run at once. Nothing sleeps
or talks to a network while it holds the lock. Commits are not synced to the disk (the state need not
survive a power cut), which keeps a write at some 50 microseconds.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Body = dict[str, Any]

SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    created INTEGER NOT NULL,
    body TEXT NOT NULL,
    inner TEXT NOT NULL DEFAULT '{}',
    status TEXT,
    payment_intent TEXT,
    charge TEXT
);
CREATE INDEX IF NOT EXISTS objects_by_time ON objects (kind, created, seq);
CREATE INDEX IF NOT EXISTS objects_by_status ON objects (kind, status, created, seq);
CREATE INDEX IF NOT EXISTS objects_by_intent ON objects (payment_intent, kind);
CREATE INDEX IF NOT EXISTS objects_by_charge ON objects (charge, kind);
CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT, due REAL NOT NULL, action TEXT NOT NULL, object_id TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS jobs_by_due ON jobs (due);
CREATE INDEX IF NOT EXISTS jobs_by_object ON jobs (object_id);
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, status INTEGER NOT NULL, body TEXT NOT NULL,
    created REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS deliveries (
    id TEXT PRIMARY KEY, seq INTEGER NOT NULL UNIQUE, event_id TEXT NOT NULL, type TEXT NOT NULL,
    object_id TEXT NOT NULL, url TEXT NOT NULL, lane INTEGER NOT NULL, state TEXT NOT NULL,
    attempts INTEGER NOT NULL, last_status INTEGER, last_error TEXT, created REAL NOT NULL, due REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS deliveries_by_due ON deliveries (state, lane, due);
CREATE TABLE IF NOT EXISTS mails (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, summary TEXT NOT NULL, raw BLOB NOT NULL
);
"""


@dataclass
class Stored:
    """An object as the provider would answer it (`body`), and what the provider knows besides (`inner`)."""

    id: str
    kind: str
    seq: int
    created: int
    body: Body
    inner: Body


class Store:
    """The file. Every method must be called inside `transaction()`."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._depth = 0
        self._stays: dict[str, str] = {}
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.executescript(SCHEMA)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing. Nested ones belong to the outermost."""
        with self._lock:
            if self._depth:
                self._depth += 1
                try:
                    yield
                finally:
                    self._depth -= 1
                return
            self._db.execute("BEGIN IMMEDIATE")
            self._depth = 1
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            finally:
                self._depth = 0

    def execute(self, sql: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> sqlite3.Cursor:
        """Plain SQL, for the modules that keep tables of their own here."""
        return self._db.execute(sql, values)

    def define(self, schema: str, stays: Mapping[str, str] | None = None) -> None:
        """Make the tables that a module keeps of its own.

        `empty` clears them with the others, but for the rows that `stays` names: table -> an SQL condition.
        """
        with self._lock:
            self._db.executescript(schema)
            self._stays |= stays or {}

    # API objects

    def add(self, kind: str, body: Body, inner: Body | None = None) -> None:
        """Keep a new object under `body["id"]`."""
        self._db.execute(
            "INSERT INTO objects (id, kind, created, body, inner, status, payment_intent, charge) "
            "VALUES (?,?,?,?,?,?,?,?)",
            (
                body["id"],
                kind,
                body["created"],
                json.dumps(body),
                json.dumps(inner or {}),
                *_columns(kind, body),
            ),
        )

    def save(self, stored: Stored) -> None:
        """Write back a changed object."""
        self._db.execute(
            "UPDATE objects SET body = ?, inner = ?, status = ?, payment_intent = ?, charge = ? WHERE id = ?",
            (
                json.dumps(stored.body),
                json.dumps(stored.inner),
                *_columns(stored.kind, stored.body),
                stored.id,
            ),
        )

    def find(self, kind: str, object_id: str) -> Stored | None:
        row = self._db.execute(
            "SELECT * FROM objects WHERE id = ? AND kind = ?", (object_id, kind)
        ).fetchone()
        return _stored(row) if row else None

    def bodies(self, ids: Sequence[str]) -> dict[str, Body]:
        """The bodies of many objects at once, by id; unknown ids are left out."""
        found: dict[str, Body] = {}
        for start in range(0, len(ids), 500):
            chunk = ids[start : start + 500]
            marks = ",".join("?" * len(chunk))
            for row in self._db.execute(f"SELECT id, body FROM objects WHERE id IN ({marks})", chunk):
                found[row["id"]] = json.loads(row["body"])
        return found

    def select(self, kind: str, where: str = "", values: Sequence[Any] = (), limit: int = -1) -> list[Stored]:
        """Objects of a kind, newest first. `where` is SQL over the table's columns and `body`."""
        sql = f"SELECT * FROM objects WHERE kind = ? {'AND ' + where if where else ''}"
        rows = self._db.execute(f"{sql} ORDER BY created DESC, seq DESC LIMIT ?", (kind, *values, limit))
        return [_stored(row) for row in rows]

    def oldest_first(self, kind: str, where: str, values: Sequence[Any], limit: int) -> list[Stored]:
        """As `select`, from the other end."""
        sql = f"SELECT * FROM objects WHERE kind = ? {'AND ' + where if where else ''}"
        rows = self._db.execute(f"{sql} ORDER BY created, seq LIMIT ?", (kind, *values, limit))
        return [_stored(row) for row in rows]

    # Work for later

    def schedule(self, due: float, action: str, object_id: str) -> None:
        self._db.execute("INSERT INTO jobs (due, action, object_id) VALUES (?,?,?)", (due, action, object_id))

    def unschedule(self, object_id: str, action: str) -> None:
        self._db.execute("DELETE FROM jobs WHERE object_id = ? AND action = ?", (object_id, action))

    def take_due(
        self, now: float, limit: int, object_id: str | None = None, but: str = ""
    ) -> list[tuple[str, str]]:
        """Remove and return up to `limit` due (action, object id), oldest first, without the action `but`."""
        only = "AND object_id = :object_id" if object_id else "AND action <> :but"
        rows = self._db.execute(
            f"SELECT id, action, object_id FROM jobs WHERE due <= :now {only} ORDER BY due, id LIMIT :limit",
            {"now": now, "limit": limit, "object_id": object_id, "but": but},
        ).fetchall()
        self._db.executemany("DELETE FROM jobs WHERE id = ?", [(row["id"],) for row in rows])
        return [(row["action"], row["object_id"]) for row in rows]

    def empty(self) -> None:
        """Forget everything but what stays."""
        tables = self._db.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        ).fetchall()
        for (table,) in tables:
            self._db.execute(f"DELETE FROM {table} WHERE NOT ({self._stays.get(table, 'FALSE')})")


def _columns(kind: str, body: Body) -> tuple[str | None, str | None, str | None]:
    """What lists are filtered by. An event is found by its type."""
    status = body.get("type") if kind == "event" else body.get("status")
    return status, body.get("payment_intent"), body.get("charge")


def _stored(row: sqlite3.Row) -> Stored:
    return Stored(
        row["id"], row["kind"], row["seq"], row["created"], json.loads(row["body"]), json.loads(row["inner"])
    )
