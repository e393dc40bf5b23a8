"""Who lives: processes write down when they last worked, and the web process reads it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from domain import clock
from extensions import db
from models import Heartbeat

# Made once: making a statement costs more than PostgreSQL's part of it.
_ADD = insert(Heartbeat.__table__)  # type: ignore[arg-type]
_BEAT = _ADD.on_conflict_do_update(index_elements=["name"], set_={"at": _ADD.excluded.at})


def beat(name: str) -> None:
    """Write down that the process `name` ('worker', 'clock') lives. Commits."""
    db.session.execute(_BEAT, {"name": name, "at": clock.now(), "detail": {}})
    db.session.commit()


def last() -> dict[str, datetime]:
    """When each process last said that it lives."""
    return {row.name: row.at for row in db.session.scalars(select(Heartbeat))}
