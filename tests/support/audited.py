"""Watches every statement of the tests: what the audit log is to have is noted in the same transaction.

A transaction that Kassa's own code commits (not one of a test's) and that has written a watched column must
have written to the log as well. So each test of a page, a call or a command is one of its audit, too.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

from domain.audit import WATCHED

DOMAIN = str(Path(__file__).resolve().parents[2] / "domain")
_STATEMENT = re.compile(r"\s*(?:WITH .*?\) )?(INSERT INTO|UPDATE|DELETE FROM) (\w+)(.*)", re.DOTALL)
_TABLES = {model.__tablename__: watch for model, watch in WATCHED.items()}
# Whoever registers makes a row of a buyer, which nobody decides: what makes others is noted where they are.
_ANYBODY = ("users",)
# Transactions that were committed without a word, for the test that did it to fail.
silent: list[str] = []


def _written(statement: str) -> str:
    """Which watched table a statement writes, where it writes what is watched of it; or ""."""
    found = _STATEMENT.match(statement)
    if found is None or found[2] not in _TABLES:
        return ""
    what, table, rest = found.groups()
    if what == "INSERT INTO" and table in _ANYBODY:
        return ""
    if what == "UPDATE":
        columns = set(re.findall(r"(\w+)=", rest.split(" WHERE ")[0]))
        if not columns & set(_TABLES[table].all):
            return ""
    return f"{what} {table}"


@event.listens_for(Engine, "after_cursor_execute")
def _look(connection: Any, cursor: Any, statement: str, *others: Any) -> None:
    if not cursor.rowcount:
        return
    if statement.startswith("INSERT INTO audit_log"):
        connection.info["audited"] = True
    elif statement[:1] in "IUDW" and (written := _written(statement)):
        connection.info.setdefault("unaudited", []).append(written)


@event.listens_for(Engine, "commit")
def _committed(connection: Any) -> None:
    written = connection.info.pop("unaudited", [])
    if written and not connection.info.pop("audited", False) and (place := _by_kassa()):
        silent.append(f"{place} committed {', '.join(written)}, and noted nothing in the audit log")
    connection.info.pop("audited", None)


@event.listens_for(Engine, "rollback")
def _forget(connection: Any) -> None:
    if connection.invalidated:
        # The database has ended it, and what was noted of it with it.
        return
    connection.info.pop("unaudited", None)
    connection.info.pop("audited", None)


def _by_kassa() -> str:
    """The innermost file of the domain that the commit came from; "" where a test did it itself."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(DOMAIN):
            return f"{name.removeprefix(DOMAIN)}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return ""
