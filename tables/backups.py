"""Backups that were taken, and the lives of this shop: a restored backup begins another one."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, String, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from tables.base import Base, Json, Time


class Backup(Base):
    """One backup, written down before it is taken: so each has its own row in it, without an end."""

    __tablename__ = "backups"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    began_at: Mapped[datetime] = mapped_column(Time)
    ended_at: Mapped[datetime | None] = mapped_column(Time)
    # Where it went, without what lets one in; and why it did not get there.
    place: Mapped[str] = mapped_column(String(500))
    error: Mapped[str] = mapped_column(Text, default="", server_default="")
    size: Mapped[int | None] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64), default="", server_default="")
    # What the keys that it cannot do without look like, by the name of their setting.
    keys: Mapped[Json] = mapped_column(JSONB)

    __table_args__ = (Index("backups_good", "ended_at", postgresql_where=text("error = ''")),)


class Epoch(Base):
    """One life of this shop's records. The first has no row; each restored backup begins another."""

    __tablename__ = "epochs"

    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    # From when the restored backup is, when it was restored, and since when the shop sells again.
    backup_at: Mapped[datetime] = mapped_column(Time)
    began_at: Mapped[datetime] = mapped_column(Time)
    opened_at: Mapped[datetime | None] = mapped_column(Time)
    opened_by_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"), index=True)
