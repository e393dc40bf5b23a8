"""What has changed since the invariants were last asked: which orders, wallets and ticket types to ask them
of.

Each change of an order leaves a row with a higher number somewhere: in its timeline, or as a payment, a
ticket, a transfer, a refund. A hand in the database leaves none, and is found at night.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select, text

from domain import clock
from extensions import Base, db
from models import CheckRun, Order, Payment, Refund, Ticket, TimelineEntry, Transfer

# A shop of fewer orders is asked about as a whole each time.
LARGE = 20_000
# Numbers are given before a transaction commits: what was begun this long before the marks were set is seen
# again.
_OVERLAP = timedelta(minutes=5)
_PLACE = re.compile(r"\{(\w+): ([^}]+)\}")
_COUNTED: tuple[type[Base], ...] = (Order, Payment, Ticket, Transfer, TimelineEntry, Refund)
_ORDERS = """
SELECT id FROM orders WHERE id > :orders
UNION SELECT order_id FROM payments WHERE id > :payments
UNION SELECT order_id FROM tickets WHERE id > :tickets
UNION SELECT order_id FROM transfers WHERE id > :transfers AND order_id IS NOT NULL
UNION SELECT order_id FROM timeline WHERE id > :timeline
UNION SELECT p.order_id FROM refunds r JOIN payments p ON p.id = r.payment_id WHERE r.id > :refunds
"""
_WALLETS = """
SELECT credit FROM transfers WHERE id > :transfers AND credit LIKE 'wallet:%'
UNION SELECT debit FROM transfers WHERE id > :transfers AND debit LIKE 'wallet:%'
"""
_TYPES = """
SELECT DISTINCT ticket_type_id FROM order_lines
WHERE order_id = ANY(CAST(:orders AS bigint[])) AND ticket_type_id IS NOT NULL
"""


@dataclass(frozen=True)
class Some:
    """What the invariants are asked of: a condition for orders, wallets and types; without one, of all."""

    conditions: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)

    def narrow(self, query: str) -> str:
        """An invariant's query with its places filled in."""

        def condition(place: re.Match[str]) -> str:
            return self.conditions.get(place[1], "TRUE").replace("?", f"({place[2]})")

        return _PLACE.sub(condition, query)


ALL = Some()


def between(first: int, last: int) -> Some:
    """The orders of these numbers, both included."""
    return Some({"orders": "? BETWEEN :first AND :last"}, {"first": first, "last": last})


def is_large() -> bool:
    """Whether there are more orders than can be asked about as a whole every ten minutes."""
    some = select(Order.id).limit(LARGE + 1).subquery()
    return (db.session.scalar(select(func.count()).select_from(some)) or 0) > LARGE


def marks() -> dict[str, int]:
    """The highest number of each kind of row, as it is now."""
    highest = {
        model.__tablename__: select(func.max(model.__table__.c.id)).scalar_subquery() for model in _COUNTED
    }
    row = db.session.execute(select(*(highest[name].label(name) for name in highest))).one()
    return {name: getattr(row, name) or 0 for name in highest}


def last_marks() -> dict[str, int] | None:
    """The marks of the last run that is not too fresh; else of the first one, which the next run reads again.

    None where there was none.
    """
    runs = select(CheckRun.marks).where(CheckRun.marks.is_not(None))
    settled = runs.where(CheckRun.at <= clock.now() - _OVERLAP).order_by(CheckRun.at.desc()).limit(1)
    return db.session.scalar(settled) or db.session.scalar(runs.order_by(CheckRun.at).limit(1))


def newest(given: Mapping[str, int]) -> dict[str, int]:
    """The marks from which on the newest rows are, as many as can be asked about at once."""
    return {name: max(0, highest - LARGE) for name, highest in given.items()}


def since(given: Mapping[str, int]) -> Some:
    """What has changed since marks were set."""
    orders = list(db.session.scalars(text(_ORDERS), _used(_ORDERS, given)))
    wallets = list(db.session.scalars(text(_WALLETS), _used(_WALLETS, given)))
    types = list(db.session.scalars(text(_TYPES), {"orders": orders}))
    return Some(
        {
            "orders": "? = ANY(CAST(:orders AS bigint[]))",
            "wallets": "? = ANY(CAST(:wallets AS text[]))",
            "types": "? = ANY(CAST(:types AS integer[]))",
        },
        {"orders": orders, "wallets": wallets, "types": types},
    )


def _used(query: str, given: Mapping[str, int]) -> dict[str, int]:
    return {name: given.get(name, 0) for name in re.findall(r":(\w+)", query)}
