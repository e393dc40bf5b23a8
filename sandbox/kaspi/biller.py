"""Kaspi's calls to a biller: may this account be paid (`check`), and it was (`pay`).

They are GETs with a query and no signature; what says whose they are is the address that they come from. From
one of this machine's own a call really comes. Another is told as the front before a Kassa tells it, by
X-Forwarded-For, for no packet can come from there.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import socket
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode, urlsplit

from sandbox.kaspi.books import Payment

Body = dict[str, Any]
SECONDS = 15
_ALMATY = timezone(timedelta(hours=5))


class BadUrl(Exception):
    """There is no address to call, or no address to call from; the text says which."""


def call(url: str, query: Body, sender: str = "") -> Body:
    """One call, and what it was answered: `status`, `body`, `json` where it is some. Raises BadUrl."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise BadUrl('Set the biller’s address first: POST /control/settings {"kaspi": {"biller_url": ...}}.')
    headers = {"User-Agent": "Kaspi", "Accept": "application/json"}
    source: tuple[str, int] | None = None
    if sender:
        try:
            local = ipaddress.ip_address(sender).is_loopback
        except ValueError as error:
            raise BadUrl("from must be a network address.") from error
        if local:
            source = (sender, 0)
        else:
            headers["X-Forwarded-For"] = sender
    connection = http.client.HTTPConnection(
        parts.hostname, parts.port or 80, timeout=SECONDS, source_address=source
    )
    try:
        connection.request("GET", f"{parts.path}?{urlencode(query)}", headers=headers)
        response = connection.getresponse()
        text = response.read(100_000).decode("utf-8", "replace")
        return {"query": query, "status": response.status, "body": text, "json": _json(text)}
    except (OSError, http.client.HTTPException, socket.gaierror) as error:
        return {"query": query, "status": None, "body": type(error).__name__, "json": None}
    finally:
        connection.close()


def query(command: str, payment: Payment, account: str, txn_id: str, amount_minor: int, now: float) -> Body:
    """What Kaspi asks, with the sum in tenge and the time in Almaty's."""
    return {
        "command": command,
        "txn_id": txn_id,
        "account": account,
        "sum": f"{Decimal(amount_minor) / 100:.2f}",
        "txn_date": datetime.fromtimestamp(now, UTC).astimezone(_ALMATY).strftime("%Y%m%d%H%M%S"),
    }


def accepted(answer: Body) -> bool:
    """Whether the biller said yes."""
    told = answer["json"]
    return answer["status"] == 200 and isinstance(told, dict) and told.get("result") == 0


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
