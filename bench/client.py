"""The other side: browsers that keep their connection and cookies, and the sandbox's dashboard.

Plain http.client, because the client runs on the machine that is measured.
"""

from __future__ import annotations

import http.client
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

T = TypeVar("T")
PATIENCE_SECONDS = 120.0
_FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Answer:
    """What came back. `location` is "" where there is no redirect."""

    status: int
    location: str
    body: bytes

    def hidden(self, name: str) -> str:
        """The value of a hidden field of a form on the page."""
        found = re.search(rf'name="{name}" value="([^"]*)"', self.body.decode())
        if found is None:
            raise AssertionError(f"No field {name} on this page (status {self.status}).")
        return found[1]


class Browser:
    """One person's browser without JavaScript, speaking to one server."""

    def __init__(self, port: int, patience: float = PATIENCE_SECONDS) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=patience)
        self._cookies: dict[str, str] = {}
        self.requests = 0

    def get(self, address: str, **headers: str) -> Answer:
        """GET a path, or an address of ours with its host."""
        return self._ask("GET", address, headers=headers)

    def post(self, address: str, fields: dict[str, str]) -> Answer:
        return self._ask("POST", address, urlencode(fields), {"Content-Type": _FORM})

    def post_json(self, address: str, body: dict[str, Any], **headers: str) -> Answer:
        return self._ask("POST", address, json.dumps(body), {"Content-Type": "application/json", **headers})

    def close(self) -> None:
        self._connection.close()

    def _ask(
        self, method: str, address: str, body: str | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        headers = dict(headers or {})
        if self._cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        parts = urlsplit(address)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        self._connection.request(method, path, body, headers)
        response = self._connection.getresponse()
        content = response.read()
        for cookie in response.headers.get_all("Set-Cookie", []):
            name, _, value = cookie.partition(";")[0].partition("=")
            self._cookies[name] = value
        self.requests += 1
        return Answer(response.status, response.getheader("Location", "") or "", content)


class Dashboard:
    """The sandbox's /control and its Stripe API, for one thread."""

    def __init__(self, port: int) -> None:
        self._browser = Browser(port)

    def control(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """What /control answers to a GET, or to a POST of `body`."""
        address = f"/control/{path}"
        answer = self._browser.get(address) if body is None else self._browser.post_json(address, body)
        return _read(answer)

    def pay(self, session_id: str) -> dict[str, Any]:
        """Let the buyer pay a session; the payment as it is then."""
        payment: dict[str, Any] = self.control(f"payments/{session_id}", {"do": "pay"})
        return payment

    def open_session(self, fields: dict[str, str]) -> dict[str, Any]:
        """Create a Checkout Session, as Stripe's API takes it."""
        headers = {"Authorization": "Bearer sk_test_kassa_sandbox", "Content-Type": _FORM}
        answer = self._browser._ask("POST", "/stripe/v1/checkout/sessions", urlencode(fields), headers)
        session: dict[str, Any] = _read(answer)
        return session

    def open_checkout(self, token: str, fields: dict[str, Any]) -> dict[str, Any]:
        """Create a checkout, as SumUp's API takes it, with the access token of its merchant."""
        address, allowed = "/sumup/v0.1/checkouts", {"Authorization": f"Bearer {token}"}
        checkout: dict[str, Any] = _read(self._browser.post_json(address, fields, **allowed))
        return checkout


def _read(answer: Answer) -> Any:
    if answer.status not in (200, 201):
        raise AssertionError(f"The sandbox answered {answer.status}: {answer.body[:300]!r}")
    return json.loads(answer.body)


def at_once(threads: int, work: Iterable[T], do: Callable[[Iterator[T]], None]) -> None:
    """Run `do` in so many threads, which share the iterator over `work`. Raises what the first one raises."""
    shared = _Shared(work)
    with ThreadPoolExecutor(threads) as pool:
        for running in [pool.submit(do, shared) for _ in range(threads)]:
            running.result()


class _Shared(Iterator[T]):
    def __init__(self, work: Iterable[T]) -> None:
        self._work = iter(work)
        self._lock = Lock()

    def __next__(self) -> T:
        with self._lock:
            return next(self._work)


def until(seconds: float) -> Iterator[int]:
    """Counts up until so many seconds have passed."""
    ends, number = time.perf_counter() + seconds, 0
    while time.perf_counter() < ends:
        yield number
        number += 1


def percentile(values: list[float], share: float) -> float:
    """The value that `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
