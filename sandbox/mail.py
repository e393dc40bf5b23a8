"""The mail catcher: what arrives by SMTP or by the mail API is kept, and goes no further."""

from __future__ import annotations

import json
from asyncio import WriteTransport
from dataclasses import dataclass
from email import policy
from email.headerregistry import Address
from email.message import EmailMessage
from email.parser import BytesParser
from email.utils import getaddresses
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from sandbox import ids
from sandbox.clock import Clock
from sandbox.faults import SMTP as SMTP_FAULTS
from sandbox.faults import Fault, Faults
from sandbox.store import Store

Body = dict[str, Any]
LARGEST_MAIL = 50 * 1024 * 1024
_REFUSED = "451 4.3.0 Try again later (a fault of the sandbox)"


@dataclass(frozen=True)
class Part:
    """A file in a mail. `content_id` is without its angle brackets."""

    name: str
    type: str
    content_id: str | None
    inline: bool
    content: bytes


class Mailbox:
    """Every mail that was caught, newest first."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def keep(self, raw: bytes, sender: str, recipients: list[str], via: str) -> str:
        """Keep a mail, and return the id it has here."""
        mail_id = ids.new("mail", 16)
        summary = _summary(mail_id, parse(raw), sender, recipients, via, self._clock.now())
        with self._store.transaction():
            self._store.execute(
                "INSERT INTO mails (id, summary, raw) VALUES (?,?,?)", (mail_id, json.dumps(summary), raw)
            )
        return mail_id

    def list(self, limit: int, to: str = "") -> list[Body]:
        """Summaries, newest first; only those whose recipients contain `to`."""
        with self._store.transaction():
            rows = self._store.execute(
                """
                SELECT summary FROM mails
                WHERE :to = '' OR instr(lower(json_extract(summary, '$.recipients')), :to)
                ORDER BY seq DESC LIMIT :limit
                """,
                {"to": to.lower(), "limit": limit},
            ).fetchall()
        return [json.loads(row["summary"]) for row in rows]

    def find(self, mail_id: str) -> tuple[Body, bytes] | None:
        """A mail's summary and source."""
        with self._store.transaction():
            row = self._store.execute("SELECT summary, raw FROM mails WHERE id = ?", (mail_id,)).fetchone()
        return (json.loads(row["summary"]), row["raw"]) if row else None


def parse(raw: bytes) -> EmailMessage:
    return BytesParser(policy=policy.default).parsebytes(raw)


def parts(message: EmailMessage) -> list[Part]:
    """The files of a mail: attachments, and the pictures its HTML shows."""
    found: list[Part] = []
    for part in message.walk():
        disposition = part.get_content_disposition()
        text = part.get_content_type() in ("text/plain", "text/html") and disposition != "attachment"
        if part.is_multipart() or text and not part.get_filename():
            continue
        content = part.get_payload(decode=True)
        found.append(
            Part(
                name=part.get_filename() or f"part-{len(found) + 1}",
                type=part.get_content_type(),
                content_id=(part.get("Content-ID") or "").strip().strip("<>") or None,
                inline=disposition == "inline" or disposition is None,
                content=content if isinstance(content, bytes) else b"",
            )
        )
    return found


def body_of(message: EmailMessage, kind: str) -> str | None:
    """The `plain` or `html` text of a mail, or None. Broken charsets are read as they can be."""
    part = message.get_body((kind,))
    if part is None:
        return None
    content = part.get_payload(decode=True)
    raw = content if isinstance(content, bytes) else b""
    charset = part.get_content_charset("utf-8")
    try:
        text = raw.decode("utf-8" if charset == "us-ascii" else charset, "replace")
    except LookupError:
        text = raw.decode("utf-8", "replace")
    return text.replace("\r\n", "\n")


def _summary(
    mail_id: str, message: EmailMessage, sender: str, recipients: list[str], via: str, now: float
) -> Body:
    to = [address for _, address in getaddresses([str(value) for value in message.get_all("To", [])])]
    return {
        "id": mail_id,
        "received": now,
        "via": via,
        "from": str(message.get("From", "")),
        "to": ", ".join(to or recipients),
        "envelope_from": sender,
        "recipients": recipients,
        "subject": str(message.get("Subject", "")),
        "message_id": str(message.get("Message-ID", "")).strip(),
        "text": body_of(message, "plain"),
        "html": body_of(message, "html"),
        "attachments": [
            {
                "name": p.name,
                "type": p.type,
                "size": len(p.content),
                "content_id": p.content_id,
                "inline": p.inline,
            }
            for p in parts(message)
        ],
    }


def compose(request: Body, attachments: list[Part], message_id: str) -> bytes:
    """The mail that a mail API would send for `request` (from, to, cc, subject, text, html, headers)."""
    message = EmailMessage(policy=policy.SMTP)
    message["From"] = request["from"]
    message["To"] = ", ".join(request["to"])
    for header, name in (("Cc", "cc"), ("Reply-To", "reply_to")):
        if request.get(name):
            message[header] = ", ".join(request[name])
    message["Subject"] = request["subject"]
    for name, value in request.get("headers", {}).items():
        if name not in message:
            message[name] = value
    if "Message-ID" not in message:
        message["Message-ID"] = message_id
    message.set_content(request.get("text") or "")
    if request.get("html"):
        message.add_alternative(request["html"], subtype="html")
    for part in attachments:
        main, _, sub = part.type.partition("/")
        inline = part.content_id is not None
        message.add_attachment(
            part.content,
            maintype=main,
            subtype=sub or "octet-stream",
            filename=part.name,
            disposition="inline" if inline else "attachment",
            cid=f"<{part.content_id}>" if inline else None,
        )
    return message.as_bytes()


def readable(address: str) -> bool:
    """Whether a text is an address, alone or as `Name <address>`."""
    pairs = getaddresses([address])
    if len(pairs) != 1 or "@" not in pairs[0][1]:
        return False
    try:
        return bool(Address(addr_spec=pairs[0][1]).domain)
    except (ValueError, IndexError):
        return False


class _Handler:
    """What the SMTP server asks at each step."""

    def __init__(self, mailbox: Mailbox, faults: Faults) -> None:
        self._mailbox = mailbox
        self._faults = faults
        self._drawn: dict[int, Fault] = {}

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        # One draw a mail, so that a rate means what it says.
        fault = self._faults.draw(SMTP_FAULTS, "MAIL", address)
        self._drawn.pop(id(session), None)
        if fault and fault.kind == "smtp_refuse":
            return _REFUSED
        if fault:
            self._drawn[id(session)] = fault
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        content = envelope.original_content or b""
        self._mailbox.keep(content, envelope.mail_from or "", [str(to) for to in envelope.rcpt_tos], "smtp")
        if self._drawn.pop(id(session), None):
            # The mail is here, but whoever sent it will never know.
            if isinstance(server.transport, WriteTransport):
                server.transport.abort()
            raise ConnectionResetError("a fault of the sandbox")
        return "250 2.0.0 Caught"


def _anybody(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
    """Any name and password will do."""
    return AuthResult(success=isinstance(data, LoginPassword))


def smtp_server(mailbox: Mailbox, faults: Faults, port: int) -> Controller:
    """The SMTP side of the catcher, on loopback; start() and stop() it."""
    return Controller(
        _Handler(mailbox, faults),
        hostname="127.0.0.1",
        port=port,
        server_hostname="sandbox.local",
        ident="Kassa sandbox",
        enable_SMTPUTF8=True,
        data_size_limit=LARGEST_MAIL,
        authenticator=_anybody,
        auth_require_tls=False,
        auth_required=False,
    )
