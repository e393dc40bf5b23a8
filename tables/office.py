"""Runs of the checks, processes that live, and texts that the operator edits."""

from __future__ import annotations

from datetime import datetime
from typing import Any

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
    # The highest numbers of rows when it was asked: what is above them has changed since.
    marks: Mapped[dict[str, int] | None] = mapped_column(JSONB(none_as_null=True))


class WholeCheck(Base):
    """One night's asking of everything, a part at a time: orders up to `upto_id` of `last_id` are done."""

    __tablename__ = "whole_checks"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    began_at: Mapped[datetime] = mapped_column(Time, index=True)
    last_id: Mapped[int] = mapped_column(BigInteger)
    upto_id: Mapped[int] = mapped_column(BigInteger)
    marks: Mapped[dict[str, int]] = mapped_column(JSONB)
    violations: Mapped[list[Json]] = mapped_column(JSONB)
    unchecked: Mapped[list[str]] = mapped_column(JSONB)
    finished_at: Mapped[datetime | None] = mapped_column(Time)


class Tally(Base):
    """How many of a table's rows up to `upto_id` have come to which end: [label, ..., number] each."""

    __tablename__ = "tallies"

    name: Mapped[str] = mapped_column(String(50), primary_key=True)
    upto_id: Mapped[int] = mapped_column(BigInteger)
    counted_at: Mapped[datetime] = mapped_column(Time)
    counts: Mapped[list[list[Any]]] = mapped_column(JSONB)


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


class SettingSeen(Base):
    """A setting of the environment as it was at the last start, or a mark of it where it is secret."""

    __tablename__ = "settings_seen"

    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    value: Mapped[str] = mapped_column(Text)
    seen_at: Mapped[datetime] = mapped_column(Time)
