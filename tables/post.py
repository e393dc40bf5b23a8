"""Mail owed."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    String,
    false,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from tables.base import Base, Json, Time, one_of

if TYPE_CHECKING:
    from tables.orders import Order
    from tables.people import User


class MailState(StrEnum):
    DUE = "due"
    SENT = "sent"
    FAILED = "failed"


# Mails to staff, which tell of somebody else.
OF_OTHERS = "kind IN ('alert', 'new_admin', 'second_factor_reset')"


class OutboxMail(Base):
    """A mail owed, written in the transaction that caused it. `key` keeps one cause to one mail."""

    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    key: Mapped[str] = mapped_column(String(200), unique=True)
    # The name of a template pair in templates/mail/, 'tickets', 'alert', ...
    kind: Mapped[str] = mapped_column(String(40))
    to: Mapped[str] = mapped_column(String(254))
    order_id: Mapped[int | None] = mapped_column(ForeignKey("orders.id"), index=True)
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    context: Mapped[Json] = mapped_column(JSONB, default=dict)
    message_id: Mapped[str] = mapped_column(String(200), unique=True)
    state: Mapped[MailState] = mapped_column(one_of(MailState), default=MailState.DUE)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    created_at: Mapped[datetime] = mapped_column(Time)
    next_attempt_at: Mapped[datetime | None] = mapped_column(Time)
    leased_until: Mapped[datetime | None] = mapped_column(Time)
    sent_at: Mapped[datetime | None] = mapped_column(Time)
    last_error: Mapped[str] = mapped_column(String(500), default="")
    # Asked for by somebody who has not proven that the address is theirs.
    unproven: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    # What it is held back with, above a budget: at its time all of those leave as one. NULL: it leaves alone.
    held_with: Mapped[str | None] = mapped_column(String(120))

    order: Mapped[Order | None] = relationship()
    user: Mapped[User | None] = relationship()

    __table_args__ = (
        CheckConstraint("state <> 'due' OR next_attempt_at IS NOT NULL", name="outbox_next_attempt"),
        Index("outbox_due", "next_attempt_at", postgresql_where=text("state = 'due'")),
        Index("outbox_state", "state", "created_at"),
        # When the last mail left, and when a digest of a kind was last written.
        Index("outbox_sent", "sent_at", postgresql_where=text("sent_at IS NOT NULL")),
        # Those that left and still hold what they were written from: see domain/office/retention.py.
        Index(
            "outbox_whole",
            "sent_at",
            postgresql_where=text("state = 'sent' AND context <> '{}'"),
        ),
        # What a person was sent: for the file of their data, and where they ask to be forgotten.
        Index("outbox_to", func.lower(to)),
        Index("outbox_of_member", "user_id", postgresql_where=text("user_id IS NOT NULL")),
        Index("outbox_alerts", "created_at", postgresql_where=text("kind = 'alert'")),
        Index("outbox_of_others", "id", postgresql_where=text(OF_OTHERS)),
        Index(
            "outbox_held", "next_attempt_at", postgresql_where=text("held_with IS NOT NULL AND state = 'due'")
        ),
    )


class MailBudget(Base):
    """How much strangers asked for on behalf of one recipient since `since`: see domain/post/budgets.py."""

    __tablename__ = "mail_budgets"

    purpose: Mapped[str] = mapped_column(String(120), primary_key=True)
    who: Mapped[str] = mapped_column(String(320), primary_key=True)
    since: Mapped[datetime] = mapped_column(Time, index=True)
    count: Mapped[int] = mapped_column(Integer)


class MailRequest(Base):
    """A mail that somebody asked for by an address alone: whether there is anything to send is seen later.

    So whoever asks learns nothing, neither by the answer nor by the time that it takes.
    """

    __tablename__ = "mail_requests"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    # A new password, or the links to one's orders.
    kind: Mapped[str] = mapped_column(String(40))
    address: Mapped[str] = mapped_column(String(254))
    created_at: Mapped[datetime] = mapped_column(Time)
    due_at: Mapped[datetime] = mapped_column(Time, index=True)
