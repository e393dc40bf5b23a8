"""Resend's mail API, the one call that sends: what it sends lands in the mail catcher."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import mimetypes
import threading
import uuid
from collections.abc import Callable
from email.utils import getaddresses
from typing import Any

from flask import Blueprint, Response, request

from sandbox import settings
from sandbox.clock import Clock
from sandbox.edge import Edge
from sandbox.faults import Fault, Faults
from sandbox.mail import Mailbox, Part, compose, readable
from sandbox.store import Store

Body = dict[str, Any]
KEY_SECONDS = 24 * 60 * 60
_FIELDS = {
    "from",
    "to",
    "cc",
    "bcc",
    "reply_to",
    "subject",
    "html",
    "text",
    "headers",
    "attachments",
    "tags",
    "scheduled_at",
}


class Refusal(Exception):
    """An error as Resend answers it."""

    def __init__(self, status: int, name: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.name = name

    @property
    def body(self) -> Body:
        return {"statusCode": self.status, "name": self.name, "message": str(self)}


_BROKEN = Refusal(500, "application_error", "An unexpected error occurred.")


class Resend:
    """Sends into the catcher, once a key."""

    def __init__(self, store: Store, clock: Clock, mailbox: Mailbox, faults: Faults) -> None:
        self._store = store
        self._clock = clock
        self._mailbox = mailbox
        self._faults = faults
        self._in_flight: set[str] = set()
        self._lock = threading.Lock()

    def answer(self, fault: Fault | None) -> Response:
        """Answer the current POST /emails."""
        try:
            _check_key()
            if request.method != "POST" or request.path != "/resend/emails":
                raise Refusal(
                    404, "not_found", "The requested endpoint does not exist here: the sandbox only sends."
                )
            key = request.headers.get("Idempotency-Key", "")
            if len(key) > 256:
                raise Refusal(400, "invalid_idempotency_key", "The key must be between 1-256 chars.")
            broken = fault is not None and fault.kind == "http_500"
            if broken and fault is not None and not fault.after:
                raise _BROKEN
            body = self._once(key, fault) if key else self._send(fault)
            if broken:
                raise _BROKEN
            return _response(200, body)
        except Refusal as refusal:
            return _response(refusal.status, refusal.body)

    def _once(self, key: str, fault: Fault | None) -> Body:
        with self._lock:
            if key in self._in_flight:
                raise Refusal(
                    409,
                    "concurrent_idempotent_requests",
                    "Same idempotency key used while original request is still in progress.",
                )
            self._in_flight.add(key)
        try:
            kept_as = f"resend:{key}"
            fingerprint = hashlib.sha256(request.get_data()).hexdigest()
            with self._store.transaction():
                row = self._store.execute("SELECT * FROM answers WHERE key = ?", (kept_as,)).fetchone()
            if row and row["created"] + KEY_SECONDS >= self._clock.now():
                if row["fingerprint"] != fingerprint:
                    raise Refusal(
                        409,
                        "invalid_idempotent_request",
                        "Same idempotency key used with a different request payload.",
                    )
                return dict(json.loads(row["body"]))
            body = self._send(fault)
            with self._store.transaction():
                self._store.execute(
                    "INSERT OR REPLACE INTO answers (key, fingerprint, status, body, created) "
                    "VALUES (?,?,200,?,?)",
                    (kept_as, fingerprint, json.dumps(body), self._clock.now()),
                )
            return body
        finally:
            with self._lock:
                self._in_flight.discard(key)

    def _send(self, fault: Fault | None) -> Body:
        if fault is not None and fault.kind == "slow":
            self._faults.wait(fault.seconds)
        mail = _read()
        attachments = [_attachment(a, f"attachments[{i}]") for i, a in enumerate(mail.get("attachments", []))]
        mail_id = str(uuid.uuid4())
        raw = compose(mail, attachments, f"<{mail_id}@sandbox.local>")
        recipients = [
            address for _, address in getaddresses([*mail["to"], *mail.get("cc", []), *mail.get("bcc", [])])
        ]
        self._mailbox.keep(raw, getaddresses([mail["from"]])[0][1], recipients, "resend")
        return {"id": mail_id}


def _check_key() -> None:
    given = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
    if not given:
        raise Refusal(401, "missing_api_key", "Missing API key in the authorization header.")
    if not hmac.compare_digest(given.encode(), settings.RESEND_KEY.encode()):
        raise Refusal(403, "invalid_api_key", "API key is invalid.")


def _read() -> Body:
    """The mail in the request, its address fields as lists. Raises Refusal."""
    mail = request.get_json(silent=True)
    if not isinstance(mail, dict):
        raise Refusal(400, "validation_error", "The request body must be a JSON object.")
    unknown = mail.keys() - _FIELDS
    if unknown:
        raise Refusal(422, "validation_error", f"Unrecognized field: `{min(unknown)}`.")
    if "scheduled_at" in mail:
        raise Refusal(422, "validation_error", "The sandbox does not imitate `scheduled_at`.")
    for name in ("from", "to", "subject"):
        if not mail.get(name):
            raise Refusal(422, "missing_required_field", f"Missing `{name}` field.")
    for name in ("from", "subject", "html", "text"):
        if mail.get(name) is not None and not isinstance(mail[name], str):
            raise Refusal(422, "validation_error", f"The `{name}` field must be a `string`.")
    if not mail.get("html") and not mail.get("text"):
        raise Refusal(422, "missing_required_field", "Missing `html` or `text` field.")
    for name in ("to", "cc", "bcc", "reply_to"):
        if name in mail:
            mail[name] = _addresses(mail[name], name)
    if len(mail["to"]) > 50:
        raise Refusal(422, "validation_error", "The `to` field can have at most 50 addresses.")
    _addresses(mail["from"], "from")
    _check_headers(mail)
    return mail


def _check_headers(mail: Body) -> None:
    headers = mail.get("headers", {})
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        raise Refusal(422, "validation_error", "The `headers` field must be an object of strings.")
    if any("\n" in text or "\r" in text for text in (*headers, *headers.values(), mail["subject"])):
        raise Refusal(422, "validation_error", "Headers must not contain line breaks.")
    if not isinstance(mail.get("attachments", []), list):
        raise Refusal(422, "validation_error", "The `attachments` field must be an array.")


def _addresses(value: Any, name: str) -> list[str]:
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list) or not all(isinstance(a, str) and readable(a) for a in given):
        raise Refusal(
            422,
            "validation_error",
            f"Invalid `{name}` field. The email address needs to follow the `email@example.com` or "
            "`Name <email@example.com>` format.",
        )
    return given


def _attachment(given: Any, path: str) -> Part:
    if not isinstance(given, dict) or given.keys() - {"filename", "content", "content_type", "content_id"}:
        raise Refusal(
            422,
            "invalid_attachment",
            f"{path} may have `filename`, `content`, `content_type` and `content_id`.",
        )
    name, content = given.get("filename"), given.get("content")
    if not isinstance(name, str) or not isinstance(content, str):
        raise Refusal(422, "invalid_attachment", "Attachment must have `filename` and `content`.")
    try:
        data = base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal(422, "invalid_attachment", f"{path}: the `content` is not base64.") from error
    kind = given.get("content_type") or mimetypes.guess_type(name)[0] or "application/octet-stream"
    content_id = given.get("content_id")
    return Part(name, str(kind), str(content_id) if content_id else None, bool(content_id), data)


def _response(status: int, body: Body) -> Response:
    return Response(json.dumps(body), status, content_type="application/json")


def blueprint(resend: Resend, edge: Callable[[Callable[[int], Response]], Edge]) -> Blueprint:
    """Everything under /resend."""
    routes = Blueprint("resend", __name__, url_prefix="/resend")
    refusals = {
        429: Refusal(
            429, "rate_limit_exceeded", "Too many requests. You can only make 5 requests per second."
        ),
        403: Refusal(403, "restricted_api_key", "This API key is restricted to only send emails."),
        500: _BROKEN,
    }
    served = edge(lambda status: _response(status, refusals[status].body))

    @routes.route("/<path:rest>", methods=["GET", "POST", "PATCH", "DELETE"])
    def call(rest: str) -> Response:
        return served.serve(resend.answer)

    return routes
