"""The way back: a backup into an empty database, which then is a shop that is closed and in another epoch."""

from __future__ import annotations

import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import simplejson
from psycopg import sql
from sqlalchemy.engine import make_url

from domain import clock
from domain.backups import keys, places, programs, sealing
from domain.errors import DomainError
from domain.post import outbox

STDIN = places.PIPE
# Accounts are asked for what happened since the backup, and a little before: clocks differ.
_BEFORE = timedelta(hours=1)


@dataclass(frozen=True)
class Noted:
    """What a backup says of itself: when it was begun, and the keys of its shop."""

    began_at: datetime
    keys: dict[str, list[str]]


@contextmanager
def opened(source: str, identity: str) -> Iterator[Path]:
    """The backup at `source` as pg_restore reads it, decrypted, for as long as it is needed. DomainError."""
    with TemporaryDirectory(prefix="kassa-restore-") as made:
        folder = Path(made)
        folder.chmod(0o700)
        got, plain = folder / "got", folder / "dump"
        if source == STDIN:
            try:
                with got.open("wb") as file:
                    shutil.copyfileobj(sys.stdin.buffer, file)
            except OSError as error:
                raise DomainError(
                    "backup_failed", f"Standard input cannot be kept: {error.strerror or error}."
                ) from error
        else:
            places.of(source, "").fetch(got)
        if not sealing.is_sealed(got):
            yield got
            return
        sealing.open_(got, plain, identity)
        got.unlink()
        yield plain


def noted(dump: Path) -> Noted:
    """What the backup says of itself. DomainError `backup_unreadable` where it is no backup of Kassa's."""
    program = programs.reader(dump)
    try:
        told = programs.run(
            program, ["--data-only", "--table=backups", "--file=-", str(dump)], database="postgresql:///"
        )
    except DomainError as error:
        raise _unreadable(error.message) from error
    found = re.search(
        r"^COPY \S*backups \(([^)]*)\) FROM stdin;\n(.*?)^\\\.$", told, re.MULTILINE | re.DOTALL
    )
    rows = [] if found is None else [line.split("\t") for line in found[2].splitlines() if line]
    if found is None or not rows:
        raise _unreadable("it says nothing of who took it")
    names = [name.strip() for name in found[1].split(",")]
    newest = max((dict(zip(names, row, strict=True)) for row in rows), key=lambda row: int(row["id"]))
    return Noted(datetime.fromisoformat(newest["began_at"]), simplejson.loads(newest["keys"]))


def _unreadable(why: str) -> DomainError:
    return DomainError("backup_unreadable", f"This is no backup of Kassa's that can be read: {why}.")


def check_keys(told: Noted, *, others: bool) -> list[str]:
    """The settings whose keys are not those of the backup's shop. DomainError, unless `others` may be."""
    missing = keys.missing(told.keys)
    if missing and not others:
        raise DomainError(
            "backup_other_keys",
            f"This backup's shop had another {' and '.join(missing)}. With the keys set here links and "
            "tickets that were sent do not hold, and organisers' connections cannot be read. Set the keys "
            "from the sheet that was printed, or say --other-keys to go on without them.",
        )
    return missing


def refuse_full(database: str) -> None:
    """DomainError `backup_not_empty` where a database has tables already: a restore overwrites nothing."""
    with _connected(database) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema')"
        ).fetchone()
    if row is not None and row[0]:
        raise DomainError(
            "backup_not_empty",
            "The database has tables already. A backup is restored into an empty one only, so that what was "
            "sold since is not overwritten. Make a new database, and set DATABASE_URL to it.",
        )


def load(dump: Path, database: str) -> None:
    """Read the backup into an empty database, all or nothing. DomainError."""
    with _connected(database) as connection:
        major = connection.info.server_version // 10_000
    program = programs.reader(dump, major)
    arguments = ["--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction"]
    programs.run(program, [*arguments, f"--dbname={_name(database)}", str(dump)], database=database)


@contextmanager
def scratch(database: str) -> Iterator[str]:
    """An empty database beside `database` for as long as it is needed; its address. DomainError."""
    name = f"kassa_check_{secrets.token_hex(6)}"
    try:
        with _connected(database, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    except psycopg.errors.InsufficientPrivilege as error:
        raise DomainError(
            "backup_no_scratch",
            "This role may make no database. Make an empty one, and say --into its address.",
        ) from error
    try:
        yield make_url(database).set(database=name).render_as_string(hide_password=False)
    finally:
        with _connected(database, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def close(told: Noted, database: str, *, above: int) -> int:
    """Begin another epoch in a restored database, closed, and have its accounts asked again; its number.

    It is higher than any in the database, and than `above`: one life is never begun twice.

    At once, by the tables as they came and before a migration: a restored shop is never an open one, whatever
    goes wrong next.
    """
    now = clock.now()
    with _connected(database) as connection:
        row = connection.execute(
            "INSERT INTO epochs (number, backup_at, began_at) "
            "SELECT greatest(coalesce(max(number), 1), %s) + 1, %s, %s FROM epochs RETURNING number",
            (above, told.began_at, now),
        ).fetchone()
        connection.execute(
            "UPDATE account_cursors SET since = least(since, %s), asked_at = NULL, leased_until = NULL",
            (told.began_at - _BEFORE,),
        )
        # What was due may have been sent since: a person decides. Who asked for a link then asks again.
        connection.execute(
            "UPDATE outbox SET held_with = %s, next_attempt_at = %s, leased_until = NULL WHERE state = 'due'",
            (outbox.FROM_BACKUP, outbox.NEVER),
        )
        connection.execute("DELETE FROM mail_requests")
        # The one that was restored did not end in itself.
        connection.execute(
            "UPDATE backups SET ended_at = %s, error = 'restored from it' WHERE ended_at IS NULL", (now,)
        )
    return int(row[0]) if row is not None else 0


def address(database: str) -> str:
    """The PUBLIC_URL that a restored shop was last started with; "" where it was never, or kept none."""
    with _connected(database) as connection:
        kept = connection.execute("SELECT to_regclass('settings_seen') IS NOT NULL").fetchone()
        if kept is None or not kept[0]:
            return ""
        row = connection.execute("SELECT value FROM settings_seen WHERE name = 'public_url'").fetchone()
    return str(row[0]) if row is not None else ""


def _name(database: str) -> str:
    return make_url(database).database or ""


def _connected(database: str, *, autocommit: bool = False) -> psycopg.Connection[Any]:
    try:
        return psycopg.connect(programs.driver_free(database), autocommit=autocommit, connect_timeout=10)
    except psycopg.OperationalError as error:
        raise DomainError(
            "backup_database", f"The database does not answer: {' '.join(str(error).split())[:200]}."
        ) from error
