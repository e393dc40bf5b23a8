"""Webhooks: sent in order, tried again, and all on record.

Stripe's are signed as its SDK checks them and go to one endpoint; SumUp's are unsigned and go to the address
that each checkout names. Each event becomes a row in the transaction that made it. A few threads send what is
due; the events of one payment always go by the same thread, so that a slow endpoint delays none but does not
disorder any.
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
# Stripe takes days, and is hurried here; SumUp's are as documented.
RETRY_AFTER = (2, 10, 60)
NOTICE_RETRY_AFTER = (60, 300, 1200, 7200)
# The kinds of what is stored to be sent: with a signature, and without.
EVENT, NOTICE = "event", "notice"
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
        # While held, what is owed is kept and listed, and is not sent: a test carries it itself.
        self.held = False
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
        self._owe(event["id"], event["type"], event["data"]["object"]["id"], self.url, about)

    def notify(self, url: str, event_type: str, object_id: str) -> None:
        """Owe an address an unsigned `{"event_type", "id"}`. Within a transaction."""
        notice = {"event_type": event_type, "id": object_id}
        stored: Body = {"id": ids.new("notice"), "created": int(self._clock.now()), "sent": notice}
        self._store.add(NOTICE, stored)
        self._owe(stored["id"], event_type, object_id, url, object_id)

    def _owe(self, event_id: str, event_type: str, object_id: str, url: str, about: str) -> None:
        fault = self._faults.draw(WEBHOOK, "POST", event_type)
        kind = fault.kind if fault else ""
        delay = fault.seconds if fault and kind == "webhook_late" else 0.0
        lane = zlib.crc32(about.encode()) % LANES
        delivery = {
            "event_id": event_id,
            "type": event_type,
            "object_id": object_id,
            "url": url,
            "lane": lane,
        }
        delivery["state"] = "lost" if kind == "webhook_lost" else "pending"
        for _ in range(2 if kind == "webhook_twice" else 1):
            self._write(delivery, delay)
        self._wake[lane].set()

    def _write(self, delivery: Body, delay: float) -> None:
        now = self._clock.now()
        self._store.execute(
            """
            INSERT INTO deliveries
                (id, seq, event_id, type, object_id, url, lane, state, attempts, created, due)
            VALUES
                (:id, (SELECT coalesce(max(seq), 0) + 1 FROM deliveries), :event_id, :type, :object_id, :url,
                :lane, :state, 0, :now, :due)
            """,
            delivery | {"id": ids.new("wh"), "now": now, "due": now + delay},
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
        if self.held:
            return None
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
            event = row and (
                self._store.find(EVENT, row["event_id"]) or self._store.find(NOTICE, row["event_id"])
            )
        if row is None or event is None:
            return
        signed = event.kind == EVENT
        status, error = _post(row["url"], event.body if signed else event.body["sent"], signed=signed)
        pauses = RETRY_AFTER if signed else NOTICE_RETRY_AFTER
        delivered = status is not None and 200 <= status < 300
        attempts = row["attempts"] + 1
        pause = pauses[attempts - 1] if attempts <= len(pauses) else None
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
                "SELECT id, event_id, url FROM deliveries WHERE id = ? OR event_id = ? ORDER BY seq LIMIT 1",
                (wanted, wanted),
            ).fetchone()
            if row is None:
                return None
            if self._store.find(EVENT, row["event_id"]) is not None:
                # The endpoint may have moved since.
                self._store.execute(
                    "UPDATE deliveries SET url = ? WHERE id = ?", (self.url or row["url"], row["id"])
                )
        self.attempt(row["id"])
        with self._store.transaction():
            return _shown(
                self._store.execute("SELECT * FROM deliveries WHERE id = ?", (row["id"],)).fetchone()
            )


def _post(url: str, event: Body, *, signed: bool) -> tuple[int | None, str | None]:
    """The status that the endpoint answered, or what went wrong on the way."""
    text = json.dumps(event, indent=2 if signed else None)
    headers = {"Content-Type": "application/json; charset=utf-8", "Connection": "close"}
    if signed:
        # The SDK compares with the real time and refuses only what is old, whatever the sandbox's clock says.
        headers["Stripe-Signature"] = WebhookSignature.generate_signature_header(
            text, settings.WEBHOOK_SECRET, int(time.time())
        )
        headers["User-Agent"] = "Stripe/1.0 (+https://stripe.com/docs/webhooks)"
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
