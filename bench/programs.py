"""Programs at the API, and a provider that rings without a pause: what a request costs, and what is lost."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bench.client import Answer, at_once
from bench.report import Results
from bench.scenes import CONNECTIONS, Stage, drain

_API = "/api/v1"


@dataclass(frozen=True)
class Programs:
    """How much they do. Members keep at most 200 athletes, so no more payments are begun."""

    begun: int
    looks: int
    scans: int
    rings_a_second: int
    ring_seconds: float


FULL = Programs(begun=180, looks=1000, scans=400, rings_a_second=200, ring_seconds=30)
QUICK = Programs(begun=8, looks=20, scans=10, rings_a_second=40, ring_seconds=0.5)


def programs(stage: Stage, how: Programs) -> Results:
    """Payments begun, a final one looked at, and codes checked in by key: eight connections at once."""
    ready: dict[str, Any] = stage.inside.do("api_ready", slug="inside", entries=how.begun, codes=how.scans)
    # The mails of what was made ready are nobody's request.
    drain(stage)
    key = {"Authorization": f"Bearer {ready['key']}"}
    starts = [
        {"participant_id": one, "method": "card", "amount": "25.00", "currency": "EUR"}
        for one in ready["participants"]
    ]
    begun = _cost(stage, "initiate", how.begun, starts, key, f"{_API}/payments/initiate", 201)
    address = f"{_API}/payments/status/{ready['final']}"
    looked = _cost(stage, "status of a final payment", how.looks, [None] * how.looks, key, address, 200)
    scans = [{"event": "inside", "code": code} for code in ready["codes"]]
    scanned = _cost(stage, "check-in by key", how.scans, scans, key, f"{_API}/check-in", 200)
    return {"api.initiate": begun, "api.status": looked, "api.check_in": scanned}


def _cost(
    stage: Stage,
    work: str,
    number: int,
    bodies: Sequence[dict[str, Any] | None],
    headers: dict[str, str],
    address: str,
    expected: int,
) -> float:
    """CPU milliseconds of a request; all of them must be answered as expected."""

    def some(wanted: Iterator[dict[str, Any] | None]) -> None:
        browser = stage.browser()
        for body in wanted:
            answer: Answer = (
                browser.get(address, **headers)
                if body is None
                else browser.post_json(address, body, **headers)
            )
            assert answer.status == expected, (answer.status, answer.body[:300])
        browser.close()

    with stage.machine.measured() as cost:
        at_once(CONNECTIONS, bodies, some)
    return stage.cpu(work, cost, number)


def rings(stage: Stage, how: Programs) -> Results:
    """Events of payments that are paid, so many a second, each another one; those without a 2xx are lost."""
    paid: list[dict[str, str]] = stage.inside.do("paid_sessions", slug="inside", number=20)
    secret = stage.dashboard().control("settings")["stripe"]["webhook_secret"]
    number = int(how.rings_a_second * how.ring_seconds)
    before = stage.inside.do("rings_done")
    answered = itertools.count()
    refused: list[int] = []
    began = time.perf_counter()
    lock = threading.Lock()

    def some(positions: Iterator[int]) -> None:
        browser = stage.browser()
        for position in positions:
            time.sleep(max(0.0, began + position / how.rings_a_second - time.perf_counter()))
            body = _event(position, paid[position % len(paid)])
            answer = browser.post_json(
                "/stripe/webhook/", body, **{"Stripe-Signature": _signature(body, secret)}
            )
            if answer.status == 200:
                next(answered)
            else:
                with lock:
                    refused.append(answer.status)
        browser.close()

    with stage.machine.measured() as cost:
        at_once(CONNECTIONS, range(number), some)
    done = stage.inside.do("rings_done") - before
    return {
        "rings.per_second": number / cost.wall,
        "rings.lost": number - done,
        "rings.refused": len(refused),
        "rings.cpu": stage.cpu("ring", cost, number),
    }


def _event(position: int, paid: dict[str, str]) -> dict[str, Any]:
    """What Stripe sends when a session is paid."""
    return {
        "id": f"evt_bench_{int(time.time())}_{position}",
        "object": "event",
        "type": "checkout.session.completed",
        "livemode": False,
        "created": int(time.time()),
        "data": {
            "object": {
                "id": paid["provider_id"],
                "object": "checkout.session",
                "client_reference_id": paid["reference"],
                "metadata": {"reference": paid["reference"], "site": paid["site"]},
            }
        },
    }


def _signature(body: dict[str, Any], secret: str) -> str:
    moment = int(time.time())
    signed = f"{moment}.{json.dumps(body)}".encode()
    return f"t={moment},v1={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}"
