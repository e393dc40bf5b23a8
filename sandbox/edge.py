"""Where a provider's API meets the network: every call is logged, and faults happen here."""

from __future__ import annotations

import socket
from collections.abc import Callable

from flask import Response, request

from sandbox.calls import Calls
from sandbox.faults import HTTP, Fault, Faults

_GARBAGE = (
    "<!doctype html><title>Just a moment</title><h1>Just a moment...</h1><p>Checking your connection.</p>"
)


class Edge:
    """Serves one provider's calls. `refusal` makes that provider's own 429 and 500."""

    def __init__(
        self, provider: str, calls: Calls, faults: Faults, refusal: Callable[[int], Response]
    ) -> None:
        self._provider = provider
        self._calls = calls
        self._faults = faults
        self._refusal = refusal

    def serve(self, work: Callable[[Fault | None], Response]) -> Response:
        """Answer the current request with `work`, or as a fault has it.

        `work` is given the faults that happen inside the provider: `slow`, and a 500 that an idempotency
        key keeps.
        """
        key = request.headers.get("Idempotency-Key")
        query = request.query_string.decode("latin-1")
        call = self._calls.begin(self._provider, request.method, request.path, query, key)
        fault = self._faults.draw(HTTP, request.method, request.path)
        if fault is None:
            response = work(None)
        else:
            call.fault = fault.kind
            response = self._disturbed(work, fault)
        if fault is None or not fault.kind.startswith("timeout"):
            call.status = response.status_code
        return response

    def _disturbed(self, work: Callable[[Fault | None], Response], fault: Fault) -> Response:
        if fault.kind == "slow" or fault.kind == "http_500" and (fault.after or fault.stored):
            return work(fault)
        if fault.kind in ("http_500", "http_429"):
            return self._refusal(int(fault.kind[-3:]))
        if fault.kind == "timeout_after" or fault.kind == "garbage" and fault.after:
            work(None)
        if fault.kind == "garbage":
            return Response(_GARBAGE, content_type="text/html; charset=utf-8")
        self._faults.wait(fault.seconds)
        return drop()


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
