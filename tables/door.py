"""Who may stand at a door, and what was scanned there."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from tables.base import Base, Json, Time, one_of

if TYPE_CHECKING:
    from tables.catalogue import Event
    from tables.tickets import Ticket


class DoorPass(Base):
    """A link and PIN that let door staff scan for one event until it expires."""

    __tablename__ = "door_passes"

    id: Mapped[int] = mapped_column(primary_key=True)
    event_id: Mapped[int] = mapped_column(ForeignKey("events.id"), index=True)
    label: Mapped[str] = mapped_column(String(100))
    token: Mapped[str] = mapped_column(String(64), unique=True)
    pin_hash: Mapped[str] = mapped_column(String(255))
    created_by_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[datetime] = mapped_column(Time)
    expires_at: Mapped[datetime] = mapped_column(Time)
    revoked_at: Mapped[datetime | None] = mapped_column(Time)
    folded: Mapped[str | None] = mapped_column(Text)

    event: Mapped[Event] = relationship()


class Verdict(StrEnum):
    VALID = "valid"
    USED = "used"
    WRONG_EVENT = "wrong_event"
    VOID = "void"
    FORGED = "forged"
    UNKNOWN = "unknown"


class CheckIn(Base):
    """One scan at a door and its verdict. The device's `scan_id` makes a retry repeat the verdict."""

    __tablename__ = "check_ins"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    scan_id: Mapped[str] = mapped_column(String(64), unique=True)
    event_id: Mapped[int] = mapped_column(ForeignKey("events.id"))
    ticket_id: Mapped[int | None] = mapped_column(ForeignKey("tickets.id"), index=True)
    verdict: Mapped[Verdict] = mapped_column(one_of(Verdict))
    # What the verdict showed: holder, type, and who scanned first, as it was then.
    detail: Mapped[Json] = mapped_column(JSONB, default=dict)
    by: Mapped[str] = mapped_column(String(100), default="")
    at: Mapped[datetime] = mapped_column(Time)
    undone_at: Mapped[datetime | None] = mapped_column(Time)
    undone_by: Mapped[str] = mapped_column(String(100), default="")

    ticket: Mapped[Ticket | None] = relationship()

    __table_args__ = (
        Index("check_ins_event", "event_id", "at"),
        Index(
            "check_ins_one_admission",
            "ticket_id",
            unique=True,
            postgresql_where=text("verdict = 'valid' AND undone_at IS NULL"),
        ),
    )
