"""Who changed which role, price, text, setting, event, connection or key; from what to what."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Connection, ForeignKey, Index, String, event, text
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
    """One change, kept for good. What is secret is named in it, and its values are not there.

    The database itself refuses to remove one, or to change who did what, when and to what (`GUARD`). Of the
    values a part can be forgotten with the person that it tells of, and nothing can be put in its place.
    """

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
        Index("audit_log_subject", "subject", "subject_id"),
        Index("audit_log_words", "words", postgresql_using="gin"),
    )


# Rows lose words and values to forgetting alone: see domain/office/erasing.py.
GUARD = (
    """
CREATE OR REPLACE FUNCTION audit_log_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'UPDATE' THEN
        RAISE EXCEPTION 'entries of the audit log are never removed';
    END IF;
    IF to_jsonb(NEW) - ARRAY['label', 'changes', 'words'] IS DISTINCT FROM
            to_jsonb(OLD) - ARRAY['label', 'changes', 'words']
        OR NEW.label NOT IN (OLD.label, '')
        OR NOT (NEW.changes IN (OLD.changes, '[]')
            OR (NEW.changes::text LIKE '%…%' AND length(NEW.changes::text) <= length(OLD.changes::text)))
    THEN
        RAISE EXCEPTION 'entries of the audit log are never changed';
    END IF;
    RETURN NEW;
END
$$
""",
    "CREATE TRIGGER audit_log_stays BEFORE UPDATE OR DELETE ON audit_log "
    "FOR EACH ROW EXECUTE FUNCTION audit_log_stays()",
    "CREATE TRIGGER audit_log_stays_whole BEFORE TRUNCATE ON audit_log "
    "FOR EACH STATEMENT EXECUTE FUNCTION audit_log_stays()",
)


@event.listens_for(AuditEntry.__table__, "after_create")
def _guard(target: object, connection: Connection, **_: object) -> None:
    for statement in GUARD:
        connection.execute(text(statement))
