"""Where a provider's API meets the network: every call is logged, and faults happen here."""

from __future__ import annotations

import re
import socket
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from threading import Lock

from flask import Response, request

from sandbox.calls import Calls
from sandbox.faults import HTTP, Fault, Faults

_GARBAGE = (
    "<!doctype html><title>Just a moment</title><h1>Just a moment...</h1><p>Checking your connection.</p>"
)


# A part of a path that names one thing: an id, which has a digit in it and is no version.
_NAME = re.compile(r"(?<=/)(?!v[0-9.]+/)[^/]*[0-9][^/]*")
# How many answers of a kind are remembered, to be given to somebody else.
_REMEMBERED = 4


class Edge:
    """Serves one provider's calls. `refusal` makes that provider's own 403, 429 and 500."""

    def __init__(
        self, provider: str, calls: Calls, faults: Faults, refusal: Callable[[int], Response]
    ) -> None:
        self._provider = provider
        self._calls = calls
        self._faults = faults
        self._refusal = refusal
        self._lock = Lock()
        # The last good answers to each kind of call, by what was asked.
        self._said: defaultdict[str, OrderedDict[bytes, bytes]] = defaultdict(OrderedDict)

    def serve(self, work: Callable[[Fault | None], Response]) -> Response:
        """Answer the current request with `work`, or as a fault has it.

        `work` is given the faults that happen inside the provider: `slow`, and a 500 that an idempotency
        key keeps.
        """
        key = request.headers.get("Idempotency-Key")
        # Before anybody reads the body as a form, after which it is gone.
        asked = _asked()
        query = request.query_string.decode("latin-1")
        call = self._calls.begin(self._provider, request.method, request.path, query, key)
        fault = self._faults.draw(HTTP, request.method, request.path)
        if fault is None:
            response = work(None)
            self._remember(asked, response)
        else:
            call.fault = fault.kind
            response = self._disturbed(work, fault, asked)
        if fault is None or not fault.kind.startswith("timeout"):
            call.status = response.status_code
        return response

    def _disturbed(self, work: Callable[[Fault | None], Response], fault: Fault, asked: bytes) -> Response:
        if fault.kind == "slow" or fault.kind == "http_500" and (fault.after or fault.stored):
            return work(fault)
        if fault.kind in ("http_500", "http_429", "http_403"):
            return self._refusal(int(fault.kind[-3:]))
        if fault.kind == "mixed_up":
            return self._mixed_up(asked, work(None))
        if fault.kind == "timeout_after" or fault.kind == "garbage" and fault.after:
            work(None)
        if fault.kind == "garbage":
            return Response(_GARBAGE, content_type="text/html; charset=utf-8")
        self._faults.wait(fault.seconds)
        return drop()

    def _remember(self, asked: bytes, response: Response) -> None:
        if 200 <= response.status_code < 300:
            with self._lock:
                said = self._said[_kind_of_call()]
                said[asked] = response.get_data()
                said.move_to_end(asked)
                while len(said) > _REMEMBERED:
                    said.popitem(last=False)

    def _mixed_up(self, asked: bytes, response: Response) -> Response:
        """What was asked for is done, and the answer is the last one to another call of the kind."""
        with self._lock:
            said = self._said[_kind_of_call()]
            others = [body for known, body in said.items() if known != asked]
        others = [body for body in others if body != response.get_data()]
        if others and 200 <= response.status_code < 300:
            response.set_data(others[-1])
        return response


def _kind_of_call() -> str:
    return f"{request.method} {_NAME.sub('*', request.path)}"


def _asked() -> bytes:
    return request.path.encode() + b"?" + request.query_string + b" " + request.get_data()


def drop() -> Response:
    """Close the connection under the current request: whatever is answered now goes nowhere."""
    connection = request.environ.get("werkzeug.socket")
    if isinstance(connection, socket.socket):
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            # The client was faster. It waited less than the fault lasted.
            return Response(status=502)
    return Response(status=502)
