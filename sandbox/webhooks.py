"""Webhooks: signed as the SDK checks them, sent in order, tried again, and all on record.

Each event becomes a row in the transaction that made it. A few threads send what is due; the events of one
payment always go by the same thread, so that a slow endpoint delays none but does not disorder any.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
import zlib
from typing import Any

import requests
from stripe import WebhookSignature

from sandbox import ids, settings
from sandbox.clock import Clock
from sandbox.faults import WEBHOOK, Faults
from sandbox.store import Store

Body = dict[str, Any]

LANES = 4
ATTEMPT_SECONDS = 10
# Seconds by the sandbox's clock after each failure; then it is given up.
RETRY_AFTER = (2, 10, 60)
ENABLED_EVENTS = (
    "charge.dispute.closed",
    "charge.dispute.created",
    "charge.dispute.funds_reinstated",
    "charge.dispute.funds_withdrawn",
    "charge.dispute.updated",
    "charge.refunded",
    "charge.succeeded",
    "checkout.session.async_payment_failed",
    "checkout.session.async_payment_succeeded",
    "checkout.session.completed",
    "checkout.session.expired",
    "payment_intent.canceled",
    "payment_intent.created",
    "payment_intent.payment_failed",
    "payment_intent.processing",
    "payment_intent.requires_action",
    "payment_intent.succeeded",
    "refund.created",
    "refund.failed",
    "refund.updated",
)
_LOG = logging.getLogger(__name__)


class Webhooks:
    """The one endpoint, and what was sent to it."""

    def __init__(self, store: Store, clock: Clock, faults: Faults, url: str) -> None:
        self.url = url
        self._store = store
        self._clock = clock
        self._faults = faults
        self._stopping = threading.Event()
        self._wake = [threading.Event() for _ in range(LANES)]
        self._threads = [
            threading.Thread(target=self._run, args=(lane,), daemon=True) for lane in range(LANES)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        for wake in self._wake:
            wake.set()
        for thread in self._threads:
            thread.join(timeout=2)

    def wake(self) -> None:
        """Look at what is due at once: the clock was moved."""
        for wake in self._wake:
            wake.set()

    def ring(self, event: Body, about: str) -> None:
        """Owe the endpoint an event. `about` is the payment it belongs to. Within a transaction."""
        if not self.url or event["type"] not in ENABLED_EVENTS:
            return
        fault = self._faults.draw(WEBHOOK, "POST", event["type"])
        kind = fault.kind if fault else ""
        delay = fault.seconds if fault and kind == "webhook_late" else 0.0
        lane = zlib.crc32(about.encode()) % LANES
        for _ in range(2 if kind == "webhook_twice" else 1):
            self._owe(event, lane, "lost" if kind == "webhook_lost" else "pending", delay)
        self._wake[lane].set()

    def _owe(self, event: Body, lane: int, state: str, delay: float) -> None:
        now = self._clock.now()
        self._store.execute(
            """
            INSERT INTO deliveries
                (id, seq, event_id, type, object_id, url, lane, state, attempts, created, due)
            VALUES
                (:id, (SELECT coalesce(max(seq), 0) + 1 FROM deliveries), :event_id, :type, :object_id, :url,
                :lane, :state, 0, :now, :due)
            """,
            {
                "id": ids.new("wh"),
                "event_id": event["id"],
                "type": event["type"],
                "object_id": event["data"]["object"]["id"],
                "url": self.url,
                "lane": lane,
                "state": state,
                "now": now,
                "due": now + delay,
            },
        )

    def _run(self, lane: int) -> None:
        """Send what is due in this lane, until the sandbox stops."""
        while not self._stopping.is_set():
            self._wake[lane].clear()
            delivery = self._next(lane)
            if delivery is None:
                self._wake[lane].wait(0.5)
                continue
            try:
                self.attempt(delivery)
            except sqlite3.Error:
                _LOG.exception("A webhook's outcome could not be noted")
                self._stopping.wait(1)

    def _next(self, lane: int) -> str | None:
        with self._store.transaction():
            row = self._store.execute(
                "SELECT id FROM deliveries WHERE state = 'pending' AND lane = ? AND due <= ? "
                "ORDER BY due, seq LIMIT 1",
                (lane, self._clock.now()),
            ).fetchone()
        return row["id"] if row else None

    def attempt(self, delivery_id: str) -> None:
        """Send a delivery once, and note what came of it."""
        with self._store.transaction():
            row = self._store.execute("SELECT * FROM deliveries WHERE id = ?", (delivery_id,)).fetchone()
            event = row and self._store.find("event", row["event_id"])
        if row is None or event is None:
            return
        status, error = _post(row["url"], event.body)
        delivered = status is not None and 200 <= status < 300
        attempts = row["attempts"] + 1
        pause = RETRY_AFTER[attempts - 1] if attempts <= len(RETRY_AFTER) else None
        state = "delivered" if delivered else "failed" if pause is None else "pending"
        with self._store.transaction():
            self._store.execute(
                "UPDATE deliveries SET state = ?, attempts = ?, last_status = ?, last_error = ?, due = ? "
                "WHERE id = ?",
                (state, attempts, status, error, self._clock.now() + (pause or 0), delivery_id),
            )

    def list(self, limit: int) -> list[Body]:
        """What was sent or is to be, newest first."""
        with self._store.transaction():
            rows = self._store.execute(
                "SELECT * FROM deliveries ORDER BY seq DESC LIMIT ?", (limit,)
            ).fetchall()
        return [_shown(row) for row in rows]

    def redeliver(self, wanted: str) -> Body | None:
        """Send a delivery again, now, by its own id or its event's. None where there is none."""
        with self._store.transaction():
            row = self._store.execute(
                "SELECT id FROM deliveries WHERE id = ? OR event_id = ? ORDER BY seq LIMIT 1",
                (wanted, wanted),
            ).fetchone()
            if row is None:
                return None
            self._store.execute(
                "UPDATE deliveries SET url = ? WHERE id = ?", (self.url or row["url"], row["id"])
            )
        self.attempt(row["id"])
        with self._store.transaction():
            return _shown(
                self._store.execute("SELECT * FROM deliveries WHERE id = ?", (row["id"],)).fetchone()
            )


def _post(url: str, event: Body) -> tuple[int | None, str | None]:
    """The status that the endpoint answered, or what went wrong on the way."""
    text = json.dumps(event, indent=2)
    # The SDK compares with the real time and refuses only what is old, whatever the sandbox's clock says.
    signature = WebhookSignature.generate_signature_header(text, settings.WEBHOOK_SECRET, int(time.time()))
    headers = {
        "Content-Type": "application/json; charset=utf-8",
        "Stripe-Signature": signature,
        "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
        "Connection": "close",
    }
    try:
        with requests.Session() as session:
            session.trust_env = False
            response = session.post(
                url, text.encode(), headers=headers, timeout=ATTEMPT_SECONDS, allow_redirects=False
            )
            return response.status_code, None
    except requests.RequestException as error:
        return None, type(error).__name__


def _shown(row: sqlite3.Row) -> Body:
    names = (
        "id",
        "event_id",
        "type",
        "object_id",
        "url",
        "state",
        "attempts",
        "last_status",
        "last_error",
        "created",
        "due",
    )
    return {name: row[name] for name in names}
