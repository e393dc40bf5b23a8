"""Runs of the sweep, and how far each account was asked what happened there."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from tables.base import Base, Time


class SweepRun(Base):
    """One run of the sweep and what it did; its heartbeat is how the web process knows that sweeps go on."""

    __tablename__ = "sweep_runs"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    trigger: Mapped[str] = mapped_column(String(20))
    started_at: Mapped[datetime] = mapped_column(Time, index=True)
    finished_at: Mapped[datetime | None] = mapped_column(Time)
    found: Mapped[int] = mapped_column(Integer, default=0)
    verified: Mapped[int] = mapped_column(Integer, default=0)
    failed: Mapped[int] = mapped_column(Integer, default=0)
    pending: Mapped[int] = mapped_column(Integer, default=0)
    errors: Mapped[int] = mapped_column(Integer, default=0)
    provider_calls: Mapped[int] = mapped_column(Integer, default=0)
    mails: Mapped[int] = mapped_column(Integer, default=0)
    error: Mapped[str] = mapped_column(Text, default="")


class AccountCursor(Base):
    """How far an account at a provider was asked what happened there: see domain/sweep/account_history.py."""

    __tablename__ = "account_cursors"

    id: Mapped[int] = mapped_column(primary_key=True)
    provider: Mapped[str] = mapped_column(String(20))
    account: Mapped[str] = mapped_column(String(100))
    # All that happened until then is in our rows; and when that was last found.
    since: Mapped[datetime] = mapped_column(Time)
    moved_at: Mapped[datetime] = mapped_column(Time)
    asked_at: Mapped[datetime | None] = mapped_column(Time)
    leased_until: Mapped[datetime | None] = mapped_column(Time)

    __table_args__ = (UniqueConstraint("provider", "account", name="account_cursors_key"),)
