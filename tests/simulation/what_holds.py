"""What must hold in a world after each step, asked in one question, of a database that needs no disk."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text

from domain import clock
from domain.office import changes, invariants
from extensions import db

# Stock is kept until the provider's last word. (After a person's decision it may be gone already.)
HOLDS_OUTLIVE_SESSIONS = """
    SELECT 1 FROM orders o JOIN payments p ON p.order_id = o.id
    WHERE p.state IN ('created', 'open') AND o.event_id IS NOT NULL AND o.stock_state NOT IN ('held', 'sold')
      AND NOT EXISTS (SELECT 1 FROM incidents i WHERE i.payment_id = p.id)
"""


class WhatHolds:
    """All invariants, and one of a world's own, as a statement that gives the codes of what does not hold."""

    def __init__(self, also: str) -> None:
        parts = []
        for invariant in invariants.INVARIANTS:
            only = " AND :mail_ran" if invariant.code == "mail_is_sent_or_failed" else ""
            asked = changes.ALL.narrow(invariant.query)
            parts.append(f"SELECT '{invariant.code}' WHERE EXISTS (SELECT 1 FROM ({asked}) q){only}")
        parts.append(f"SELECT 'holds_outlive_sessions' WHERE EXISTS ({also})")
        self._question = text(" UNION ALL ".join(parts))

    def broken(self, *, mail_ran: bool) -> str:
        """What does not hold, with samples; "" where all does. With no worker, mail is overdue by rights."""
        now = clock.now()
        values: dict[str, Any] = {"recent": now - invariants.RECENT, "overdue": now - invariants.OVERDUE}
        values |= {"patience": invariants.OVERDUE, "mail_ran": mail_ran}
        found = db.session.scalars(self._question, values).all()
        db.session.rollback()
        if not found:
            return ""
        samples = [f"{v.code}: {v.sample}" for v in invariants.look() if v.code in found]
        return "\n".join((", ".join(found), *samples))


def wait_for_no_disk(connection: Any, record: Any) -> None:
    """A world that is thrown away afterwards needs no disk, and its small queries no compiler."""
    with connection.cursor() as cursor:
        cursor.execute("SET synchronous_commit = off; SET jit = off")
    connection.commit()
