"""Who changed which role, price, text, setting, event, connection or key; from what to what."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, ForeignKey, Index, String, text
from sqlalchemy.dialects.postgresql import JSONB, TSVECTOR
from sqlalchemy.orm import Mapped, mapped_column, relationship

from tables.base import Base, Time, one_of

if TYPE_CHECKING:
    from tables.people import User


class ActorKind(StrEnum):
    """By whose hand something is done."""

    MEMBER = "member"
    # A server, with a member's API key.
    KEY = "key"
    # Somebody with a link, or nobody who has said who they are.
    VISITOR = "visitor"
    COMMAND = "command"
    JOB = "job"


class AuditArea(StrEnum):
    ROLE = "role"
    PRICE = "price"
    TEXT = "text"
    SETTING = "setting"
    EVENT = "event"
    CONNECTION = "connection"
    KEY = "key"
    # What a person asked to have told or forgotten about them.
    PERSON = "person"


class Deed(StrEnum):
    MADE = "made"
    CHANGED = "changed"
    REMOVED = "removed"


class AuditEntry(Base):
    """One change, kept for good. What is secret is named in it, and its values are not there."""

    __tablename__ = "audit_log"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    at: Mapped[datetime] = mapped_column(Time)
    by: Mapped[ActorKind] = mapped_column(one_of(ActorKind))
    # From where: 'admin', 'organiser', 'api', 'command', or the job's name.
    door: Mapped[str] = mapped_column(String(30))
    actor_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"), index=True)
    # How a key begins, or which of the machine's users ran a command.
    actor_name: Mapped[str] = mapped_column(String(100), default="", server_default="")
    area: Mapped[AuditArea] = mapped_column(one_of(AuditArea))
    deed: Mapped[Deed] = mapped_column(one_of(Deed))
    # What was changed: 'event', 'user', 'key', ...; and which of them.
    subject: Mapped[str] = mapped_column(String(30))
    subject_id: Mapped[str] = mapped_column(String(100))
    label: Mapped[str] = mapped_column(String(300), default="", server_default="")
    # Whose it is, where it is somebody's.
    about_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"), index=True)
    # Lists of three: a column, its value before, and its value since.
    changes: Mapped[list[list[Any]]] = mapped_column(JSONB, default=list, server_default=text("'[]'"))
    words: Mapped[Any] = mapped_column(TSVECTOR)

    actor: Mapped[User | None] = relationship(foreign_keys=[actor_id])
    about: Mapped[User | None] = relationship(foreign_keys=[about_id])

    __table_args__ = (
        Index("audit_log_area", "area", "id"),
        Index("audit_log_words", "words", postgresql_using="gin"),
    )
