"""Double entry, wallets, and what is paid from them."""

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
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from tables.base import Base, Time, one_of

if TYPE_CHECKING:
    from tables.people import User


class Wallet(Base):
    """A member's money in one currency: the only ledger account whose balance is stored."""

    __tablename__ = "wallets"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    currency: Mapped[str] = mapped_column(String(3))
    balance_minor: Mapped[int] = mapped_column(BigInteger, default=0)
    held_minor: Mapped[int] = mapped_column(BigInteger, default=0)
    # Set while a dispute or a refund at the provider has taken back money that was already spent.
    overdrawn: Mapped[bool] = mapped_column(Boolean, default=False)
    created_at: Mapped[datetime] = mapped_column(Time)

    user: Mapped[User] = relationship()

    __table_args__ = (
        UniqueConstraint("user_id", "currency", name="wallets_user_currency_key"),
        CheckConstraint("held_minor >= 0", name="wallets_held"),
        CheckConstraint("overdrawn OR balance_minor >= held_minor", name="wallets_not_below_zero"),
    )

    @property
    def account(self) -> str:
        """The wallet's name in the ledger."""
        return f"wallet:{self.user_id}"

    @property
    def available_minor(self) -> int:
        return self.balance_minor - self.held_minor


class Transfer(Base):
    """Minor units moved from one ledger account to another. Append-only; `key` makes it happen once.

    `debit` is the account the money comes from, `credit` the one it goes to.
    """

    __tablename__ = "transfers"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    key: Mapped[str] = mapped_column(String(150), unique=True)
    debit: Mapped[str] = mapped_column(String(100))
    credit: Mapped[str] = mapped_column(String(100))
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str] = mapped_column(String(3))
    # 'sale', 'top_up', 'agent_usage', 'refund', 'dispute', 'adjustment', ...
    kind: Mapped[str] = mapped_column(String(30))
    description: Mapped[str] = mapped_column(String(255), default="")
    order_id: Mapped[int | None] = mapped_column(ForeignKey("orders.id"), index=True)
    payment_id: Mapped[int | None] = mapped_column(ForeignKey("payments.id"))
    agent_slug: Mapped[str] = mapped_column(String(100), default="")
    # The provider's own id of the session or charge behind this transfer, shown to the member.
    provider_reference: Mapped[str] = mapped_column(String(255), default="")
    # Who decided it, where a person did.
    actor_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[datetime] = mapped_column(Time)

    actor: Mapped[User | None] = relationship()

    __table_args__ = (
        CheckConstraint("amount_minor > 0", name="transfers_amount"),
        CheckConstraint("debit <> credit", name="transfers_two_accounts"),
        Index("transfers_debit", "debit", "id"),
        Index("transfers_credit", "credit", "id"),
    )


class HoldState(StrEnum):
    HELD = "held"
    CAPTURED = "captured"
    VOIDED = "voided"
    EXPIRED = "expired"


class WalletHold(Base):
    """Wallet money kept for something that is being delivered: captured, voided, or expired by the sweep."""

    __tablename__ = "wallet_holds"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    wallet_id: Mapped[int] = mapped_column(ForeignKey("wallets.id"), index=True)
    key: Mapped[str] = mapped_column(String(100), unique=True)
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[HoldState] = mapped_column(one_of(HoldState), default=HoldState.HELD)
    description: Mapped[str] = mapped_column(String(255), default="")
    agent_slug: Mapped[str] = mapped_column(String(100), default="")
    created_at: Mapped[datetime] = mapped_column(Time)
    expires_at: Mapped[datetime] = mapped_column(Time)
    ended_at: Mapped[datetime | None] = mapped_column(Time)

    wallet: Mapped[Wallet] = relationship()

    __table_args__ = (
        CheckConstraint("amount_minor > 0", name="wallet_holds_amount"),
        Index("wallet_holds_due", "expires_at", postgresql_where=text("state = 'held'")),
    )


class Agent(Base):
    """A service that members pay for by use, from their wallet."""

    __tablename__ = "agents"

    id: Mapped[int] = mapped_column(primary_key=True)
    slug: Mapped[str] = mapped_column(String(100), unique=True)
    name: Mapped[str] = mapped_column(String(100))
    description: Mapped[str] = mapped_column(String(500), default="")
    price_minor: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str] = mapped_column(String(3))
    # Which built-in service runs it: a name in domain/ledger/agents.py.
    service: Mapped[str] = mapped_column(String(50))
    active: Mapped[bool] = mapped_column(Boolean, default=True)
    folded: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (CheckConstraint("price_minor > 0", name="agents_price"),)

    def __str__(self) -> str:
        return self.name
