"""A row of the outbox, as it is written: whoever owes a mail, or joins several, writes it by these lines."""

from __future__ import annotations

import secrets
from typing import Any

from sqlalchemy import Connection, bindparam, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, scoped_session

from domain import addresses, clock
from domain.post import mail_kinds, transport
from models import MailState, OutboxMail

# Made once: making a statement costs more than PostgreSQL's part of it.
_ADD = (
    insert(OutboxMail.__table__)  # type: ignore[arg-type]
    .on_conflict_do_nothing(index_elements=["key"])
    .returning(OutboxMail.__table__.c.id)
)
_KNOWN = select(OutboxMail.id).where(OutboxMail.key == bindparam("key"))


def due(
    kind: str, key: str, to: str, order_id: int | None, user_id: int | None, context: dict[str, Any]
) -> dict[str, Any]:
    """The values of a mail that is due now."""
    if kind not in mail_kinds.KINDS:
        raise ValueError(f"There is no mail of kind {kind!r}.")
    now = clock.now()
    # What is still owed to somebody who was forgotten is on record, and goes nowhere.
    gone = to.endswith(addresses.GONE)
    return {
        "key": key[:200],
        "kind": kind,
        "to": transport.one_line(addresses.settled(to), addresses.LONGEST),
        "order_id": order_id,
        "user_id": user_id,
        "context": context,
        "message_id": new_message_id(),
        "state": MailState.FAILED if gone else MailState.DUE,
        "attempts": 0,
        "created_at": now,
        "next_attempt_at": None if gone else now,
        "last_error": addresses.GONE_WORDS if gone else "",
        "unproven": False,
        "held_with": None,
    }


def add(where: Connection | Session | scoped_session[Any], row: dict[str, Any]) -> int | None:
    """Write it, unless its key is there; its id, or None. No commit."""
    made: int | None = where.execute(_ADD, row).scalar()
    return made


def is_known(where: Connection | Session | scoped_session[Any], key: str) -> bool:
    """Whether a mail of this key was owed before."""
    return where.execute(_KNOWN, {"key": key[:200]}).scalar() is not None


def new_message_id() -> str:
    """A name for a letter that nobody has used."""
    return f"<{secrets.token_hex(16)}@{transport.sender_domain()}>"
