"""What happened to the ways into accounts: the one place where it is written down.

A line of the log and an entry of the audit log, with the account's id, never with a code or a secret.
"""

from __future__ import annotations

import structlog

from domain import audit
from models import AuditArea, Deed, User


def note(what: str, user: User) -> None:
    """Write down what happened to this account's second factor, in words. Who did it, the audit log knows.

    No commit: it is kept or lost with what happened.
    """
    structlog.get_logger(__name__).info("second_factor", what=what, user=user.id)
    audit.note(AuditArea.KEY, Deed.CHANGED, "second factor", user.id, label=what, about_id=user.id)
