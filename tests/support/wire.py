"""A server that says what a test tells it to: for answers that no provider gives on purpose.

The sandbox behaves as a provider should. What a proxy, a half-broken gateway or a new version may answer is
put on this wire by hand, and what came over it can be looked at.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any, Self


@dataclass(frozen=True)
class Request:
    """What came over the wire."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Wire:
    """A running server. `say` puts answers in line for a path; the last one is repeated for ever."""

    server: ThreadingHTTPServer
    requests: list[Request] = field(default_factory=list)
    # Whoever comes with one of these in `Authorization` is answered 401.
    refused: set[str] = field(default_factory=set)
    _answers: dict[str, list[tuple[int, bytes, str]]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def say(self, place: str, status: int, body: Any = b"", kind: str = "application/json") -> Self:
        """Answer `METHOD /path` (without the query) so. `body`: bytes, or something to be sent as JSON."""
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        with self._lock:
            self._answers.setdefault(place, []).append((status, sent, kind))
        return self

    def forget(self) -> None:
        """No answers any more, and no requests."""
        with self._lock:
            self._answers.clear()
            self.requests.clear()
            self.refused.clear()

    def count(self, place: str) -> int:
        """How often `METHOD /path` was asked for."""
        return sum(f"{request.method} {request.path.split('?')[0]}" == place for request in self.requests)

    def _answer(self, request: Request) -> tuple[int, bytes, str]:
        with self._lock:
            self.requests.append(request)
            if request.headers.get("authorization") in self.refused:
                return 401, b"", "application/json"
            line = self._answers.get(f"{request.method} {request.path.split('?')[0]}", [])
            if not line:
                return (
                    404,
                    b'{"error_code": "NOT_FOUND", "message": "Resource not found"}',
                    "application/json",
                )
            return line.pop(0) if len(line) > 1 else line[0]

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def start_wire() -> Wire:
    """A wire on a free port of this machine, with a thread that answers."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.command, self.path, headers, self.rfile.read(length))
            status, body, kind = wire._answer(request)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Set-Cookie", "session=somebody; Path=/")
            if 300 <= status < 400:
                self.send_header("Location", "/elsewhere")
            self.end_headers()
            if status != 204:
                self.wfile.write(body)

        do_GET = do_POST = do_DELETE = answer

        def log_message(self, format: str, *args: Any) -> None:
            """Tests read the requests, not a log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    wire = Wire(server)
    Thread(target=server.serve_forever, daemon=True).start()
    return wire
