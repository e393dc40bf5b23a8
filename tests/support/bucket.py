"""A store that speaks as much of S3 as a backup needs: objects are put and got, by whoever signs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit


class Bucket(ThreadingHTTPServer):
    """`objects` by their path, such as /bucket/name."""

    def __init__(self, key_id: str) -> None:
        super().__init__(("127.0.0.1", 0), _Door)
        self.key_id = key_id
        self.objects: dict[str, bytes] = {}
        # What comes in parts, by its upload's number, until it is whole.
        self.parts: dict[str, dict[int, bytes]] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Door(BaseHTTPRequestHandler):
    server: Bucket

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self._signed():
            return
        path, query = self._where()
        if "uploadId" in query:
            self.server.parts[query["uploadId"]][int(query["partNumber"])] = body
        else:
            self.server.objects[path] = body
        self._answer(200, b"", ETag='"kept"')

    def do_POST(self) -> None:
        """A large object begins, and is put together of its parts."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not self._signed():
            return
        path, query = self._where()
        if "uploads" in query:
            name = str(len(self.server.parts) + 1)
            self.server.parts[name] = {}
            self._answer(200, f"<R><UploadId>{name}</UploadId></R>".encode())
            return
        parts = self.server.parts.pop(query["uploadId"])
        self.server.objects[path] = b"".join(parts[number] for number in sorted(parts))
        bucket, _, key = path.lstrip("/").partition("/")
        told = f"<R><Bucket>{bucket}</Bucket><Key>{key}</Key><ETag>kept</ETag></R>"
        self._answer(200, told.encode())

    def _where(self) -> tuple[str, dict[str, str]]:
        parts = urlsplit(self.path)
        return parts.path, dict(parse_qsl(parts.query, keep_blank_values=True))

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
