"""Programs that act for members: their logins, their keys, and requests that are sent more than once."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    SmallInteger,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from tables.base import Base, Time, unguessable

if TYPE_CHECKING:
    from tables.people import User


class ApiSession(Base):
    """A program that a member is logged in with: one login, and every token that came of it."""

    __tablename__ = "api_sessions"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    # What its access tokens name.
    public_id: Mapped[str] = mapped_column(String(40), unique=True, server_default=unguessable("session"))
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    # The member's own at the login: a later password ends this.
    login_epoch: Mapped[int] = mapped_column(Integer)
    # What the program calls itself.
    label: Mapped[str] = mapped_column(String(200), default="")
    created_at: Mapped[datetime] = mapped_column(Time)
    expires_at: Mapped[datetime] = mapped_column(Time)
    revoked_at: Mapped[datetime | None] = mapped_column(Time)
    # When the second factor was shown for it.
    proved_at: Mapped[datetime | None] = mapped_column(Time)

    user: Mapped[User] = relationship()

    __table_args__ = (Index("api_sessions_over", "expires_at"),)


class ApiRefreshToken(Base):
    """A refresh token of a session, used once. Only its hash is kept."""

    __tablename__ = "api_refresh_tokens"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    session_id: Mapped[int] = mapped_column(ForeignKey("api_sessions.id", ondelete="CASCADE"), index=True)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(Time)
    used_at: Mapped[datetime | None] = mapped_column(Time)

    __table_args__ = (
        Index("api_refresh_tokens_used", "used_at", postgresql_where=text("used_at IS NOT NULL")),
    )


class ApiKey(Base):
    """A key that a member gave to a server. Only its hash is kept, and how it begins, to know it by."""

    __tablename__ = "api_keys"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    public_id: Mapped[str] = mapped_column(String(40), unique=True, server_default=unguessable("key"))
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(100))
    prefix: Mapped[str] = mapped_column(String(20))
    key_hash: Mapped[str] = mapped_column(String(64), unique=True)
    # Names of domain/security/scopes.py.
    scopes: Mapped[list[str]] = mapped_column(JSONB, default=list)
    created_at: Mapped[datetime] = mapped_column(Time)
    expires_at: Mapped[datetime] = mapped_column(Time)
    # To the minute.
    last_used_at: Mapped[datetime | None] = mapped_column(Time)
    revoked_at: Mapped[datetime | None] = mapped_column(Time)

    user: Mapped[User] = relationship()

    def __str__(self) -> str:
        return self.name


class ApiRequest(Base):
    """A request that its sender named with an Idempotency-Key, and what it was answered, for a day."""

    __tablename__ = "api_requests"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    # Whose name it is: `user:12`, `key:7`.
    caller: Mapped[str] = mapped_column(String(40))
    method: Mapped[str] = mapped_column(String(10))
    path: Mapped[str] = mapped_column(String(300))
    key: Mapped[str] = mapped_column(String(255))
    body_hash: Mapped[str] = mapped_column(String(64))
    # Which of the attempts under this name is at work: an older one writes nothing any more.
    attempt: Mapped[str] = mapped_column(String(32))
    started_at: Mapped[datetime] = mapped_column(Time)
    finished_at: Mapped[datetime | None] = mapped_column(Time)
    status: Mapped[int | None] = mapped_column(SmallInteger)
    answer: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        UniqueConstraint("caller", "method", "path", "key", name="api_requests_key"),
        CheckConstraint(
            "(finished_at IS NULL) = (status IS NULL) AND (status IS NULL) = (answer IS NULL)",
            name="api_requests_finished",
        ),
        Index("api_requests_started", "started_at"),
    )
