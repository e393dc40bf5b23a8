"""What SumUp's books are made of: checkouts, the transactions of each, and the events of those."""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sandbox.clock import Clock
from sandbox.store import Store
from sandbox.sumup.merchants import FIXED, Merchant

Body = dict[str, Any]

PENDING, FAILED, PAID, EXPIRED = "PENDING", "FAILED", "PAID", "EXPIRED"
OPEN = (PENDING, FAILED)
CHANGED = "CHECKOUT_STATUS_CHANGED"
# How long the hosted page can be paid, in seconds after the checkout was made.
PAGE_SECONDS = 30 * 60

SCHEMA = """
CREATE TABLE IF NOT EXISTS sumup_merchants (
    code TEXT PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL, country TEXT NOT NULL,
    currency TEXT NOT NULL, created REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS sumup_checkouts (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, merchant TEXT NOT NULL,
    reference TEXT NOT NULL, amount_minor INTEGER NOT NULL, currency TEXT NOT NULL, status TEXT NOT NULL,
    created REAL NOT NULL, valid_until REAL, more TEXT NOT NULL, tampered TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS sumup_checkouts_by_reference ON sumup_checkouts (merchant, reference);
CREATE INDEX IF NOT EXISTS sumup_checkouts_by_end ON sumup_checkouts (valid_until)
    WHERE status IN ('PENDING', 'FAILED') AND valid_until IS NOT NULL;
CREATE TABLE IF NOT EXISTS sumup_transactions (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, code TEXT NOT NULL UNIQUE,
    checkout TEXT NOT NULL, merchant TEXT NOT NULL, amount_minor INTEGER NOT NULL, currency TEXT NOT NULL,
    status TEXT NOT NULL, created REAL NOT NULL, changed REAL NOT NULL, more TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS sumup_transactions_by_checkout ON sumup_transactions (checkout);
CREATE INDEX IF NOT EXISTS sumup_transactions_by_change ON sumup_transactions (merchant, changed);
CREATE TABLE IF NOT EXISTS sumup_events (
    id INTEGER PRIMARY KEY AUTOINCREMENT, transaction_id TEXT NOT NULL, type TEXT NOT NULL,
    status TEXT NOT NULL, amount_minor INTEGER NOT NULL, created REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS sumup_events_by_transaction ON sumup_events (transaction_id);
"""


class Impossible(Exception):
    """SumUp refuses: wrong state, or more than there is. The text says why, for a person."""


@dataclass
class Checkout:
    """One checkout as SumUp has it. `more` is kept as it was sent; `tampered` is what it says instead."""

    id: str
    merchant: str
    reference: str
    amount_minor: int
    currency: str
    status: str
    created: float
    valid_until: float | None
    more: Body
    tampered: Body = field(default_factory=dict)
    seq: int = 0

    @property
    def hosted(self) -> bool:
        return bool(self.more.get("hosted_checkout", {}).get("enabled"))

    @property
    def account(self) -> str:
        """The merchant that it says is paid."""
        return str(self.tampered.get("account", self.merchant))

    @property
    def noisy(self) -> bool:
        """Whether its amounts travel with a float's noise."""
        return bool(self.tampered.get("noise"))


@dataclass
class Transaction:
    """One attempt to pay a checkout. `more`: `last4`, `card_type`, `auth_code`, or `problem` if it failed."""

    id: str
    code: str
    checkout: str
    merchant: str
    amount_minor: int
    currency: str
    status: str
    created: float
    changed: float
    more: Body
    seq: int = 0


@dataclass
class Event:
    """What happened to a transaction's money. `type` is PAYOUT, REFUND or CHARGE_BACK."""

    id: int
    transaction_id: str
    type: str
    status: str
    amount_minor: int
    created: float


class Books:
    """All that SumUp keeps. But for `ready`, every method must be called inside `ready()`.

    `ring` is given (address, event type, checkout id) of every notification that is owed.
    """

    def __init__(self, store: Store, clock: Clock, ring: Callable[[str, str, str], None]) -> None:
        self.store = store
        self.clock = clock
        self._ring = ring
        store.define(SCHEMA)

    @contextmanager
    def ready(self) -> Iterator[None]:
        """The store's transaction, as of now: what time has ended has ended."""
        with self.store.transaction():
            while self.run_due():
                pass
            yield

    def now(self) -> float:
        return self.clock.now()

    def run_due(self, limit: int = 100) -> int:
        """Let happen what time has brought; how many things that were."""
        rows = self.store.execute(
            "SELECT * FROM sumup_checkouts WHERE status IN ('PENDING', 'FAILED') "
            "AND valid_until IS NOT NULL AND valid_until <= ? ORDER BY valid_until LIMIT ?",
            (self.now(), limit),
        ).fetchall()
        for row in rows:
            self.close(_checkout(row))
        return len(rows)

    # Merchants

    def merchant(self, code: str) -> Merchant | None:
        if code in FIXED:
            return FIXED[code]
        row = self.store.execute("SELECT * FROM sumup_merchants WHERE code = ?", (code,)).fetchone()
        return Merchant(**dict(row)) if row else None

    def merchants(self) -> list[Merchant]:
        """Everybody, the platform first."""
        rows = self.store.execute("SELECT * FROM sumup_merchants ORDER BY created, code").fetchall()
        return [*FIXED.values(), *(Merchant(**dict(row)) for row in rows)]

    def add_merchant(self, merchant: Merchant) -> None:
        self.store.execute(
            "INSERT INTO sumup_merchants (code, name, email, country, currency, created) "
            "VALUES (:code, :name, :email, :country, :currency, :created)",
            vars(merchant),
        )

    # Checkouts

    def checkout(self, checkout_id: str) -> Checkout | None:
        row = self.store.execute("SELECT * FROM sumup_checkouts WHERE id = ?", (checkout_id,)).fetchone()
        return _checkout(row) if row else None

    def checkouts(self, limit: int, where: str = "1", values: Sequence[Any] = ()) -> list[Checkout]:
        """The newest first."""
        sql = f"SELECT * FROM sumup_checkouts WHERE {where} ORDER BY seq DESC LIMIT ?"
        return [_checkout(row) for row in self.store.execute(sql, (*values, limit))]

    def close(self, checkout: Checkout) -> None:
        """Nobody can pay it any more; an attempt that waits for a bank is over."""
        for transaction in self.transactions(checkout.id):
            if transaction.status == PENDING:
                self.turn(transaction, "CANCELLED")
        self.set_status(checkout, EXPIRED)

    def set_status(self, checkout: Checkout, status: str) -> None:
        """Note a checkout's status, and tell of it where that is new."""
        changed = checkout.status != status
        checkout.status = status
        self.save(checkout)
        if changed and checkout.more.get("return_url"):
            self._ring(checkout.more["return_url"], CHANGED, checkout.id)

    def save(self, checkout: Checkout) -> None:
        """Write a new or changed checkout."""
        self.store.execute(
            "INSERT INTO sumup_checkouts (id, merchant, reference, amount_minor, currency, status, created, "
            "valid_until, more, tampered) VALUES (:id, :merchant, :reference, :amount_minor, :currency, "
            ":status, :created, :valid_until, :more, :tampered) ON CONFLICT (id) DO UPDATE SET "
            "reference = :reference, amount_minor = :amount_minor, currency = :currency, status = :status, "
            "valid_until = :valid_until, more = :more, tampered = :tampered",
            vars(checkout) | {"more": json.dumps(checkout.more), "tampered": json.dumps(checkout.tampered)},
        )

    # Transactions and their events

    def transaction(self, where: str, value: str) -> Transaction | None:
        row = self.store.execute(f"SELECT * FROM sumup_transactions WHERE {where} = ?", (value,)).fetchone()
        return _transaction(row) if row else None

    def transactions(self, checkout_id: str) -> list[Transaction]:
        """The attempts to pay a checkout, oldest first."""
        rows = self.store.execute(
            "SELECT * FROM sumup_transactions WHERE checkout = ? ORDER BY seq", (checkout_id,)
        )
        return [_transaction(row) for row in rows]

    def history(self, where: str, values: Sequence[Any], order: str, limit: int) -> list[Transaction]:
        """Transactions by their age. `order` is ASC or DESC."""
        sql = f"SELECT * FROM sumup_transactions WHERE {where} ORDER BY seq {order} LIMIT ?"
        return [_transaction(row) for row in self.store.execute(sql, (*values, limit))]

    def turn(self, transaction: Transaction, status: str) -> None:
        """Give a transaction another status."""
        transaction.status = status
        transaction.changed = self.now()
        self.keep(transaction)

    def keep(self, transaction: Transaction) -> None:
        """Write a new or changed transaction."""
        self.store.execute(
            "INSERT INTO sumup_transactions (id, code, checkout, merchant, amount_minor, currency, status, "
            "created, changed, more) VALUES (:id, :code, :checkout, :merchant, :amount_minor, :currency, "
            ":status, :created, :changed, :more) ON CONFLICT (id) DO UPDATE SET "
            "amount_minor = :amount_minor, currency = :currency, status = :status, changed = :changed, "
            "more = :more",
            vars(transaction) | {"more": json.dumps(transaction.more)},
        )

    def note(self, transaction: Transaction, kind: str, status: str, amount_minor: int) -> None:
        """Add an event to a transaction."""
        self.store.execute(
            "INSERT INTO sumup_events (transaction_id, type, status, amount_minor, created) "
            "VALUES (?,?,?,?,?)",
            (transaction.id, kind, status, amount_minor, self.now()),
        )

    def mark(self, event: Event, status: str) -> None:
        """Give an event another status."""
        self.store.execute("UPDATE sumup_events SET status = ? WHERE id = ?", (status, event.id))

    def events(self, transaction_id: str) -> list[Event]:
        """What happened to a transaction's money, oldest first."""
        rows = self.store.execute(
            "SELECT * FROM sumup_events WHERE transaction_id = ? ORDER BY id", (transaction_id,)
        )
        return [Event(**dict(row)) for row in rows]

    def refunded_minor(self, transaction: Transaction) -> int:
        """What of a transaction went back to the buyer."""
        return sum(
            event.amount_minor
            for event in self.events(transaction.id)
            if event.type == "REFUND" and event.status != FAILED
        )


def new_id() -> str:
    """An id as SumUp's are."""
    return str(uuid.uuid4())


def _checkout(row: sqlite3.Row) -> Checkout:
    values = dict(row)
    return Checkout(
        **values | {"more": json.loads(values["more"]), "tampered": json.loads(values["tampered"])}
    )


def _transaction(row: sqlite3.Row) -> Transaction:
    values = dict(row)
    return Transaction(**values | {"more": json.loads(values["more"])})
