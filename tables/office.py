"""Runs of the checks, processes that live, and texts that the operator edits."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, String, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from tables.base import Base, Json, Time


class CheckRun(Base):
    """One run of the invariants of `domain/office/invariants.py`, with what did not hold."""

    __tablename__ = "check_runs"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    at: Mapped[datetime] = mapped_column(Time, index=True)
    violations: Mapped[list[Json]] = mapped_column(JSONB, default=list)
    # The codes of those that could not be asked in time: nothing is known of them.
    unchecked: Mapped[list[str]] = mapped_column(JSONB, default=list, server_default=text("'[]'"))


class Heartbeat(Base):
    """When a process of a name last said that it lives: 'worker', 'clock'."""

    __tablename__ = "heartbeats"

    name: Mapped[str] = mapped_column(String(50), primary_key=True)
    at: Mapped[datetime] = mapped_column(Time)
    detail: Mapped[Json] = mapped_column(JSONB, default=dict)


class Page(Base):
    """A text that the operator edits: terms, privacy, contact."""

    __tablename__ = "pages"

    slug: Mapped[str] = mapped_column(String(50), primary_key=True)
    title: Mapped[str] = mapped_column(String(200))
    body: Mapped[str] = mapped_column(Text)
    updated_at: Mapped[datetime] = mapped_column(Time)
