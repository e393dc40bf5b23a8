"""What Kaspi's books are made of: devices, payments, and what goes back of them."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sandbox import settings
from sandbox.clock import Clock
from sandbox.store import Store

Body = dict[str, Any]

CREATED, OPENED, WAIT = "QrTokenCreated", "RemotePaymentCreated", "Wait"
PROCESSED, ERROR = "Processed", "Error"
# Kaspi's numbers have eleven digits by now.
_FIRST = 12_800_000_000
# Seconds: to scan a code, and then to confirm.
SCAN_SECONDS, CONFIRM_SECONDS, POLL_SECONDS = 180, 65, 5

# What /control/settings may change, and what holds until it does.
OPTIONS: Body = {
    # The word of a code that nobody has scanned in time: nobody has told what it is.
    "expired_status": CREATED,
    # Whether a status tells the amount of what is paid.
    "tells_amount": True,
    # Whether less than all may go back.
    "partial_returns": True,
    # Which field of a biller's form its calls name as the account.
    "biller_account": "OrderId",
    # Where the calls to the biller go; "" for nowhere.
    "biller_url": "",
}

SCHEMA = """
CREATE TABLE IF NOT EXISTS kaspi_options (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS kaspi_devices (
    token TEXT PRIMARY KEY, device_id TEXT NOT NULL, trade_point INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS kaspi_payments (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, device TEXT NOT NULL,
    external_id TEXT NOT NULL, amount_minor INTEGER NOT NULL, status TEXT NOT NULL, created REAL NOT NULL,
    expires REAL NOT NULL, scanned REAL, paid REAL, more TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS kaspi_payments_waiting ON kaspi_payments (status, expires);
CREATE TABLE IF NOT EXISTS kaspi_returns (
    id INTEGER PRIMARY KEY AUTOINCREMENT, payment TEXT NOT NULL, amount_minor INTEGER NOT NULL,
    created REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS kaspi_return_codes (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, device TEXT NOT NULL,
    expires REAL NOT NULL, scanned REAL
);
"""
TRADE_POINTS = {1001: "Kassa Sandbox, Almaty", 1002: "Kassa Sandbox, Astana"}


class Impossible(Exception):
    """It cannot happen in the state that things are in. The text says why, for a person."""


@dataclass
class Payment:
    """One payment. `kind`: qr, link or biller. `more`: the form of a biller's, and what is said instead."""

    id: str
    kind: str
    device: str
    external_id: str
    amount_minor: int
    status: str
    created: float
    expires: float
    scanned: float | None = None
    paid: float | None = None
    more: Body = field(default_factory=dict)
    seq: int = 0

    @property
    def says(self) -> str:
        """The word that is answered, which may have been tampered with."""
        return str(self.more.get("status", self.status))

    @property
    def waits(self) -> bool:
        """Whether it can still be paid."""
        return self.status in (CREATED, OPENED, WAIT)


@dataclass
class ReturnCode:
    """A code that a customer scans who is to get money back: r2's way."""

    id: str
    device: str
    expires: float
    scanned: float | None = None
    seq: int = 0


class Books:
    """All that Kaspi keeps. But for `ready`, every method must be called inside `ready()`."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        store.define(SCHEMA, {"kaspi_devices": "TRUE", "kaspi_options": "name = 'biller_url'"})

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
        """Let happen what time has brought; how many things that were.

        A code that nobody has scanned has no end of its own in the books: what is said of it then is a
        choice. Whoever scanned it and does not confirm fails.
        """
        rows = self.store.execute(
            "SELECT * FROM kaspi_payments WHERE status = ? AND scanned <= ? ORDER BY seq LIMIT ?",
            (WAIT, self.now() - CONFIRM_SECONDS, limit),
        ).fetchall()
        for row in rows:
            payment = _payment(row)
            payment.status = ERROR
            self.save(payment)
        return len(rows)

    def options(self) -> Body:
        rows = self.store.execute("SELECT name, value FROM kaspi_options").fetchall()
        return OPTIONS | {row["name"]: json.loads(row["value"]) for row in rows}

    def choose(self, options: Body) -> None:
        """Change some of OPTIONS."""
        for name, value in options.items():
            self.store.execute(
                "INSERT OR REPLACE INTO kaspi_options (name, value) VALUES (?,?)", (name, json.dumps(value))
            )

    # Devices

    def register(self, device_id: str, trade_point: int) -> str | None:
        """The token of a device; None where it is registered elsewhere."""
        row = self.store.execute("SELECT * FROM kaspi_devices WHERE device_id = ?", (device_id,)).fetchone()
        if row is not None:
            return str(row["token"]) if row["trade_point"] == trade_point else None
        token = secrets.token_hex(16)
        self.store.execute(
            "INSERT INTO kaspi_devices (token, device_id, trade_point) VALUES (?,?,?)",
            (token, device_id, trade_point),
        )
        return token

    def remove(self, token: str) -> bool:
        """Forget a device; whether there was one."""
        return bool(self.store.execute("DELETE FROM kaspi_devices WHERE token = ?", (token,)).rowcount)

    def has_device(self, token: Any) -> bool:
        if token == settings.KASPI_DEVICE_TOKEN:
            return True
        row = self.store.execute("SELECT 1 FROM kaspi_devices WHERE token = ?", (str(token),)).fetchone()
        return row is not None

    # Payments and returns

    def open(self, kind: str, device: str, external_id: str, amount_minor: int, more: Body) -> Payment:
        """A new payment that waits for its buyer."""
        last = self.store.execute("SELECT seq FROM sqlite_sequence WHERE name = 'kaspi_payments'").fetchone()
        number = str(_FIRST + (last["seq"] if last else 0) + 1)
        now = self.now()
        payment = Payment(
            id=f"biller-{number}" if kind == "biller" else number,
            kind=kind,
            device=device,
            external_id=external_id,
            amount_minor=amount_minor,
            status=CREATED,
            created=now,
            expires=now + SCAN_SECONDS,
            more=more,
        )
        self.save(payment)
        return payment

    def payment(self, payment_id: str) -> Payment | None:
        row = self.store.execute("SELECT * FROM kaspi_payments WHERE id = ?", (payment_id,)).fetchone()
        return _payment(row) if row else None

    def payments(self, limit: int, where: str = "1", values: Sequence[Any] = ()) -> list[Payment]:
        """The newest first."""
        sql = f"SELECT * FROM kaspi_payments WHERE {where} ORDER BY seq DESC LIMIT ?"
        return [_payment(row) for row in self.store.execute(sql, (*values, limit))]

    def save(self, payment: Payment) -> None:
        """Write a new or changed payment."""
        self.store.execute(
            "INSERT INTO kaspi_payments (id, kind, device, external_id, amount_minor, status, created, "
            "expires, scanned, paid, more) VALUES (:id, :kind, :device, :external_id, :amount_minor, "
            ":status, :created, :expires, :scanned, :paid, :more) "
            "ON CONFLICT (id) DO UPDATE SET amount_minor = :amount_minor, "
            "status = :status, expires = :expires, scanned = :scanned, paid = :paid, more = :more",
            vars(payment) | {"more": json.dumps(payment.more)},
        )

    def returned_minor(self, payment: Payment) -> int:
        """What went back of a payment."""
        row = self.store.execute(
            "SELECT coalesce(sum(amount_minor), 0) FROM kaspi_returns WHERE payment = ?", (payment.id,)
        ).fetchone()
        return int(row[0])

    def give_back(self, payment: Payment, amount_minor: int) -> int:
        """Note a return; its number."""
        made = self.store.execute(
            "INSERT INTO kaspi_returns (payment, amount_minor, created) VALUES (?,?,?)",
            (payment.id, amount_minor, self.now()),
        )
        return int(made.lastrowid or 0)

    def new_return_code(self, device: str) -> ReturnCode:
        last = self.store.execute(
            "SELECT seq FROM sqlite_sequence WHERE name = 'kaspi_return_codes'"
        ).fetchone()
        code = ReturnCode(str((last["seq"] if last else 0) + 1), device, self.now() + SCAN_SECONDS)
        self.store.execute(
            "INSERT INTO kaspi_return_codes (id, device, expires) VALUES (?,?,?)",
            (code.id, code.device, code.expires),
        )
        return code

    def return_code(self, code_id: str) -> ReturnCode | None:
        row = self.store.execute("SELECT * FROM kaspi_return_codes WHERE id = ?", (code_id,)).fetchone()
        return ReturnCode(**dict(row)) if row else None

    def scan_return_code(self, code: ReturnCode) -> None:
        self.store.execute("UPDATE kaspi_return_codes SET scanned = ? WHERE id = ?", (self.now(), code.id))


def _payment(row: sqlite3.Row) -> Payment:
    values = dict(row)
    return Payment(**values | {"more": json.loads(values["more"])})
