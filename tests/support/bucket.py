"""A store that speaks as much of S3 as a backup needs: objects are put and got, by whoever signs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Bucket(ThreadingHTTPServer):
    """`objects` by their path, such as /bucket/name."""

    def __init__(self, key_id: str) -> None:
        super().__init__(("127.0.0.1", 0), _Door)
        self.key_id = key_id
        self.objects: dict[str, bytes] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Door(BaseHTTPRequestHandler):
    server: Bucket

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self._signed():
            self.server.objects[self.path] = body
            self._answer(200, b"", ETag='"kept"')

    def do_GET(self) -> None:
        if self._signed():
            found = self.server.objects.get(self.path)
            missing = b"<Error><Code>NoSuchKey</Code><Message>It is not there.</Message></Error>"
            self._answer(404 if found is None else 200, missing if found is None else found, ETag='"kept"')

    do_HEAD = do_GET

    def _signed(self) -> bool:
        by = f"AWS4-HMAC-SHA256 Credential={self.server.key_id}/"
        signed = self.headers.get("Authorization", "").startswith(by)
        if not signed:
            self._answer(403, b"<Error><Code>AccessDenied</Code><Message>Who are you?</Message></Error>")
        return signed

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Last-Modified", "Mon, 30 Nov 2026 02:00:00 GMT")
        self.send_header("Content-Type", "application/xml" if status >= 400 else "application/octet-stream")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a test's output is about the test."""


@contextmanager
def bucket(key_id: str) -> Iterator[Bucket]:
    """A store while the block runs; its keys are `key_id` and any secret."""
    with Bucket(key_id) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
