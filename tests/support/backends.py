"""The database's processes, one for each connection, and their end, as when it is restarted or moved."""

from __future__ import annotations

import psycopg
from sqlalchemy import text

from extensions import db


def backend() -> int:
    """The process that serves this session, which begins a transaction."""
    pid: int = db.session.scalars(text("SELECT pg_backend_pid()")).one()
    return pid


def end_backend(pid: int) -> None:
    """End it, and wait until it has ended: whoever has the connection learns of it by the next statement."""
    address = str(db.engine.url.set(drivername="postgresql").render_as_string(False))
    with psycopg.connect(address) as outside:
        outside.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
