"""What people asked to have forgotten about them, and what became of it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from tables.base import Base, Time, one_of

if TYPE_CHECKING:
    from tables.people import User


class ErasureState(StrEnum):
    ASKED = "asked"
    TAKEN_BACK = "taken_back"
    DONE = "done"


class Erasure(Base):
    """That all about an address is to be forgotten. Once it is, only a hash tells whose address that was."""

    __tablename__ = "erasures"

    id: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[ErasureState] = mapped_column(one_of(ErasureState), default=ErasureState.ASKED)
    # Until it is done; "" afterwards.
    address: Mapped[str] = mapped_column(String(254), default="")
    # Of the address, so that it can be done again where an older state of the data comes back.
    line: Mapped[str] = mapped_column(String(200), default="", server_default="")
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"), index=True)
    # The admin who asked for it; NULL for the person themself.
    by_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    asked_at: Mapped[datetime] = mapped_column(Time)
    due_at: Mapped[datetime] = mapped_column(Time)
    ended_at: Mapped[datetime | None] = mapped_column(Time)
    # Why it could not be done when it was due, in words.
    waits_for: Mapped[str] = mapped_column(String(500), default="", server_default="")
    # Until when names stay for the books, and when they went.
    kept_until: Mapped[datetime | None] = mapped_column(Time)
    finished_at: Mapped[datetime | None] = mapped_column(Time)
    # The orders on which names stay until then, by their ids: whoever had no account has nothing else.
    kept_orders: Mapped[list[int]] = mapped_column(JSONB, default=list, server_default=text("'[]'"))

    user: Mapped[User | None] = relationship(foreign_keys=[user_id])
    by: Mapped[User | None] = relationship(foreign_keys=[by_id])

    __table_args__ = (
        Index("erasures_one", func.lower(address), unique=True, postgresql_where=text("state = 'asked'")),
        Index("erasures_due", "due_at", postgresql_where=text("state = 'asked'")),
        CheckConstraint("state = 'asked' OR address = ''", name="erasures_forgotten"),
        CheckConstraint("(state = 'done') = (line <> '')", name="erasures_line"),
    )
