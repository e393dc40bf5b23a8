"""What lies between the provider and us: its webhooks, which the post loses, doubles, delays and disorders.

The events are the sandbox's own, read from the API's list and signed as the SDK checks them. The post is part
of the simulation, not of the sandbox, so that a seed always delivers the same ones at the same moments.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import Any

import requests
from stripe import WebhookSignature

from tests.support.sandbox import Sandbox

SECRET = "whsec_kassa_sandbox"
_HEADERS = {"Authorization": "Bearer sk_test_kassa_sandbox"}
# What the endpoint is set up for, but for the many that tell the same. The end of a session is left to the
# sweep: the sandbox notices it by its own clock, at another step in each run of a seed.
_WANTED = (
    "checkout.session.completed",
    "checkout.session.async_payment_succeeded",
    "checkout.session.async_payment_failed",
    "payment_intent.payment_failed",
    "payment_intent.succeeded",
    "charge.refunded",
    "charge.dispute.created",
    "charge.dispute.closed",
    "refund.failed",
)


@dataclass
class Posted:
    """An event on its way, and how often it is still to arrive."""

    event_id: str
    kind: str
    body: str
    copies: int = 1
    provider: str = "stripe"
    # How often it comes again when it was not answered with a 2xx; SumUp gives up after four times.
    tries: int = 1_000_000

    @property
    def headers(self) -> dict[str, str]:
        """SumUp signs nothing."""
        if self.provider == "sumup":
            return {}
        return {"stripe-signature": str(WebhookSignature.generate_signature_header(self.body, SECRET))}


def notice(checkout_id: str, number: int, kind: str = "CHECKOUT_STATUS_CHANGED") -> Posted:
    """A call to a checkout's return_url."""
    body = json.dumps({"event_type": kind, "id": checkout_id})
    return Posted(f"notice{number:06}", kind, body, provider="sumup", tries=5)


class Network:
    """Reads the provider's books as a person with its dashboard does, and carries its webhooks."""

    def __init__(self, sandbox: Sandbox, rng: Random) -> None:
        self._base = f"{sandbox.base_url}/stripe/v1/"
        self._rng = rng
        self._http = requests.Session()
        self._http.trust_env = False
        self._newest = ""
        self.postbox: list[Posted] = []
        self.fates: Counter[str] = Counter()
        self.answered: set[str] = set()
        self.lost: list[Posted] = []
        # Checkouts of SumUp whose change it is to tell of: what it does by itself waits for the sweep.
        self.changed: list[str] = []
        self._notices = 0

    def close(self) -> None:
        self._http.close()

    def collect(self) -> None:
        """Take what the provider has posted since the last time, and let each letter meet its fate."""
        for event in self._events():
            if event["type"] not in _WANTED:
                continue
            self._post(Posted(event["id"], event["type"], json.dumps(event)))
        for checkout_id in self.changed:
            self._notices += 1
            self._post(notice(checkout_id, self._notices))
        self.changed.clear()

    def _post(self, posted: Posted) -> None:
        fate = self._rng.choices(("on_time", "webhook_twice", "webhook_late"), (80, 10, 10))[0]
        self.fates[fate] += 1
        posted.copies = 2 if fate == "webhook_twice" else 1
        # Late ones wait at the end of the line, the others arrive in whatever order they are taken.
        self.postbox.insert(0 if fate == "webhook_late" else len(self.postbox), posted)

    def take(self) -> Posted | None:
        """A letter that arrives now: mostly one of the newest, sometimes any."""
        if not self.postbox:
            return None
        newest = max(0, len(self.postbox) - 4)
        first = 0 if self._rng.random() < 0.2 else newest
        return self.postbox[self._rng.randrange(first, len(self.postbox))]

    def arrived(self, posted: Posted) -> None:
        """It was answered with a 2xx, so this copy is not sent again."""
        self.answered.add(posted.event_id)
        posted.copies -= 1
        if posted.copies <= 0 and posted in self.postbox:
            self.postbox.remove(posted)

    def not_heard(self, posted: Posted) -> None:
        """It was not answered with a 2xx: it comes again, unless it has come too often."""
        posted.tries -= 1
        if posted.tries <= 0:
            self.lose(posted)

    def lose(self, posted: Posted) -> None:
        """It never arrives."""
        self.fates["webhook_lost"] += 1
        self.lost.append(posted)
        if posted in self.postbox:
            self.postbox.remove(posted)

    def untold(self, checkout_id: str) -> None:
        """Something of which SumUp tells nobody: only the next reading finds it."""
        self.lost.append(notice(checkout_id, 0))

    def _events(self) -> list[dict[str, Any]]:
        """The new events, oldest first."""
        found: list[dict[str, Any]] = []
        while True:
            query = {"limit": 100} | ({"ending_before": self._newest} if self._newest else {})
            page = self.read("events", **query)
            found += reversed(page["data"])
            if page["data"]:
                self._newest = page["data"][0]["id"]
            if not self._newest or not page["has_more"] or not page["data"]:
                return found

    def all_of(self, kind: str) -> list[dict[str, Any]]:
        """Everything of a kind in the provider's books: `charges`, `refunds`, `disputes`."""
        found: list[dict[str, Any]] = []
        query: dict[str, Any] = {"limit": 100}
        while True:
            page = self.read(kind, **query)
            found += page["data"]
            if not page["has_more"]:
                return found
            query["starting_after"] = page["data"][-1]["id"]

    def read(self, path: str, **query: Any) -> dict[str, Any]:
        """One answer of the provider's API. There must be no faults in force."""
        answer = self._http.get(self._base + path, params=query, headers=_HEADERS, timeout=30)
        answer.raise_for_status()
        body: dict[str, Any] = answer.json()
        return body
