"""The statements that a block sends to the database, for tests of how many there are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event

from extensions import db


@contextmanager
def recorded() -> Iterator[list[str]]:
    """The texts of the statements, in order, as they are sent.

    That the shop is open is asked once in five seconds, whatever is done: it is not among them.
    """
    statements: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if "FROM epochs" not in statement:
            statements.append(statement)

    event.listen(db.engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(db.engine, "before_cursor_execute", note)
