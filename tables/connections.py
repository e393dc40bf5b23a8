"""Organisers' own accounts at payment providers."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from sqlalchemy import ForeignKey, Index, Integer, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from tables.base import Base, Time, one_of

if TYPE_CHECKING:
    from tables.people import User


class ConnectionState(StrEnum):
    CONNECTED = "connected"
    # The provider refuses our tokens: nothing can be asked until the organiser connects again.
    BROKEN = "broken"
    # The organiser has ended it. The tokens stay until the last payment through them is final.
    DISCONNECTED = "disconnected"


class Connection(Base):
    """An organiser's own account at a provider, with the tokens to speak for it, encrypted."""

    __tablename__ = "connections"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    provider: Mapped[str] = mapped_column(String(20))
    # The provider's name of the account (SumUp's merchant code), as payments and the ledger have it.
    account: Mapped[str] = mapped_column(String(100))
    account_name: Mapped[str] = mapped_column(String(200), default="")
    currency: Mapped[str] = mapped_column(String(3), default="")
    state: Mapped[ConnectionState] = mapped_column(one_of(ConnectionState), default=ConnectionState.CONNECTED)
    # Encrypted under a key of the ring that the text itself names; empty once they are forgotten.
    access_token: Mapped[str] = mapped_column(Text, default="")
    refresh_token: Mapped[str] = mapped_column(Text, default="")
    access_expires_at: Mapped[datetime | None] = mapped_column(Time)
    scope: Mapped[str] = mapped_column(String(300), default="")
    # Rises with each refresh; whoever refreshes holds the lease.
    generation: Mapped[int] = mapped_column(Integer, default=0)
    leased_until: Mapped[datetime | None] = mapped_column(Time)
    last_error: Mapped[str] = mapped_column(String(300), default="")
    connected_at: Mapped[datetime] = mapped_column(Time)
    refreshed_at: Mapped[datetime | None] = mapped_column(Time)
    ended_at: Mapped[datetime | None] = mapped_column(Time)

    user: Mapped[User] = relationship()

    __table_args__ = (
        # One row for each account of a provider, and one account in use for each organiser.
        UniqueConstraint("provider", "account", name="connections_account_key"),
        Index(
            "connections_one_in_use",
            "user_id",
            "provider",
            unique=True,
            postgresql_where=text("state <> 'disconnected'"),
        ),
    )
