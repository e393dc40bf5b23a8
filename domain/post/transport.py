"""How a letter leaves: by SMTP, or over HTTPS through Resend's API where a host blocks SMTP.

Flask-Mail holds the SMTP settings and is asked for them, but neither its connection nor its message is used.
Its sockets have no time limit, so a mail server that stops answering would hold a worker for ever, and its
message cannot put pictures inside the HTML part, where every mail client looks for them. The standard
library does both.

A transport is opened for a batch of letters and reused: `with transport() as sending: sending.send(letter)`.
"""

from __future__ import annotations

import base64
import re
import smtplib
import ssl
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from email.errors import MessageError
from email.header import Header
from email.headerregistry import Address, HeaderRegistry
from email.message import EmailMessage, MIMEPart
from email.policy import EmailPolicy
from email.utils import format_datetime, parseaddr
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

import httpx
import structlog

import config
from domain import addresses
from domain.errors import DomainError
from extensions import mail as flask_mail

logger = structlog.get_logger(__name__)

# For each answer of the server. Sending one letter waits for five at most, which outbox.LEASE exceeds.
TIMEOUT_SECONDS = 20
_SUBJECT_LENGTH = 200
_NAME_LENGTH = 100


class _Policy(EmailPolicy):
    """The standard library's, but for what it writes wrongly or so that others read it wrongly.

    A header's text with letters beyond ASCII is encoded as one run: where it alternates plain and encoded
    words, it loses blanks between them. No header begins with an empty line: a text that fits a line only
    without the header's name is put below it, and some readers then show it with a blank in front, which no
    filter for `[Kassa CRITICAL]` finds.
    """

    def fold_binary(self, name: str, value: str) -> bytes:
        run = None if value.isascii() else _one_run(name, value)
        if run is not None:
            return f"{name}: {run}\r\n".encode("ascii")
        return re.sub(rb"\A([^:]+:)\r\n(?= )", rb"\1", super().fold_binary(name, value))


def _one_run(name: str, value: Any) -> str | None:
    """The header's text encoded as a whole, in lines; None for a header that needs nothing of the kind."""
    mailboxes = getattr(value, "addresses", ())
    filename = getattr(value, "params", {}).get("filename")
    if filename is not None:
        return f"{value.content_disposition}; filename*=utf-8''{quote(filename, safe='')}"
    if not mailboxes:
        return _encoded(name, str(value))
    return ",\r\n ".join(
        f"{_encoded(name, box.display_name)} <{box.addr_spec}>" if box.display_name else box.addr_spec
        for box in mailboxes
    )


def _encoded(name: str, text: str) -> str:
    """`text` in encoded words of at most 75 characters, none of which ends within a letter."""
    encoded: str = Header(text, "utf-8", header_name=name, maxlinelen=75).encode(linesep="\r\n")
    return encoded


class _Headers(HeaderRegistry):
    """The standard library's, but the class for a header's name is made once and not for each header."""

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[str, type] = {}

    def __getitem__(self, name: str) -> type:
        made = self._made.get(name.lower())
        if made is None:
            made = self._made[name.lower()] = super().__getitem__(name)
        return made


_POLICY = _Policy(linesep="\r\n", header_factory=_Headers())


@dataclass(frozen=True)
class Attachment:
    """A file of a letter. With a `content_id` it is a picture that the HTML shows as `cid:<content_id>`.

    The type may have parameters: `text/calendar; charset=utf-8`.
    """

    name: str
    content_type: str
    data: bytes
    content_id: str = ""


@dataclass(frozen=True)
class Letter:
    """A mail that is ready to leave. `message_id` is the same in every copy, angle brackets included."""

    to: str
    subject: str
    text: str
    html: str
    message_id: str
    date: datetime
    attachments: tuple[Attachment, ...] = ()


class MailError(Exception):
    """A letter did not leave; the text says why, for an operator.

    `permanent`: trying this letter again cannot help. `everyone`: the fault is not this letter's, so the next
    ones need not be tried now.
    """

    def __init__(self, words: str, *, permanent: bool = False, everyone: bool = False) -> None:
        super().__init__(words)
        self.permanent = permanent
        self.everyone = everyone


class Transport(Protocol):
    """A way out."""

    def ready(self) -> None:
        """Have a connection that is known to answer. MailError when there is none to be had."""

    def send(self, letter: Letter) -> None:
        """Hand one letter over. MailError when it was not accepted, or may not have been."""

    def close(self) -> None:
        """End the connection. Never raises."""


@contextmanager
def transport() -> Iterator[Transport]:
    """The way out that the settings name, closed at the end."""
    way: Transport = Resend() if config.get().mail_api_key else Smtp()
    try:
        yield way
    finally:
        way.close()


def describe() -> str:
    """Where mail goes, in words: `mail.example.org, port 587`."""
    settings = config.get()
    if settings.mail_api_key:
        return urlsplit(settings.mail_api_base).netloc
    return f"{settings.mail_server}, port {settings.mail_port}"


def is_in_clear() -> bool:
    """Whether mails go to another machine without encryption."""
    settings = config.get()
    encrypted = settings.mail_api_key or settings.mail_use_tls or settings.mail_use_ssl
    return not encrypted and settings.mail_server not in ("", "localhost", "127.0.0.1", "::1")


# --- SMTP -----------------------------------------------------------------------------------------------


class Smtp:
    """One SMTP connection, opened when first needed and again when it has died."""

    def __init__(self) -> None:
        self._server: smtplib.SMTP | None = None

    def ready(self) -> None:
        if self._server is not None and self._answers(self._server):
            return
        self.close()
        try:
            self._server = _connect()
        except (OSError, smtplib.SMTPException, ValueError) as error:
            raise MailError(f"{describe()}: {_say(error)}", everyone=True) from error

    @staticmethod
    def _answers(server: smtplib.SMTP) -> bool:
        try:
            return server.noop()[0] == 250
        except (OSError, smtplib.SMTPException):
            return False

    def send(self, letter: Letter) -> None:
        message = compose(letter)
        if self._server is None:
            self.ready()
        assert self._server is not None
        try:
            self._server.send_message(message, from_addr=_sender(), to_addrs=[_mailbox(letter.to).addr_spec])
        except smtplib.SMTPRecipientsRefused as error:
            raise _refused(*next(iter(error.recipients.values()))) from error
        except smtplib.SMTPSenderRefused as error:
            # For good: a matter of settings. For now: some servers let every few letters wait.
            passing = 400 <= error.smtp_code < 500 and error.smtp_code != 421
            raise MailError(f"Sender {_sender()} refused: {_say(error)}", everyone=not passing) from error
        except smtplib.SMTPResponseException as error:
            raise MailError(_say(error), permanent=500 <= error.smtp_code < 600) from error
        except smtplib.SMTPNotSupportedError as error:
            raise MailError("The mail server does not take this address.", permanent=True) from error
        except (OSError, smtplib.SMTPException) as error:
            # Whether it was accepted is unknown; the next copy carries the same Message-ID.
            self.close()
            raise MailError(_say(error)) from error

    def close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            try:
                server.quit()
            except (OSError, smtplib.SMTPException):
                server.close()


def _connect() -> smtplib.SMTP:
    """A connection with Flask-Mail's settings, encrypted and logged in as they say."""
    state = flask_mail.connect().mail
    hello = urlsplit(config.get().public_url).hostname or "localhost"
    if state.use_ssl:
        context = ssl.create_default_context()
        server: smtplib.SMTP = smtplib.SMTP_SSL(
            state.server, state.port, hello, timeout=TIMEOUT_SECONDS, context=context
        )
    else:
        server = smtplib.SMTP(state.server, state.port, hello, timeout=TIMEOUT_SECONDS)
    try:
        if state.use_tls:
            server.starttls(context=ssl.create_default_context())
        if state.username and state.password:
            server.login(state.username, state.password)
    except BaseException:
        server.close()
        raise
    return server


def _refused(code: int, answer: bytes) -> MailError:
    """A refused recipient: the address's own fault for good, unless the server refuses us rather than it."""
    words = answer.decode(errors="replace")
    log_in_first = code in (530, 535, 538)
    # 5.7.x is policy, such as no relaying: mostly a matter of settings, which the operator can mend.
    policy = re.match(r"5\.7\.", words) is not None
    permanent = 500 <= code < 600 and not policy and not log_in_first
    return MailError(f"{code} {words}", permanent=permanent, everyone=log_in_first)


def _say(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPResponseException):
        answer = error.smtp_error
        return f"{error.smtp_code} {answer.decode(errors='replace') if isinstance(answer, bytes) else answer}"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


# --- The message ----------------------------------------------------------------------------------------


def compose(letter: Letter) -> EmailMessage:
    """The letter as a message: text and HTML side by side, pictures inside the HTML, files attached.

    MailError, permanent, when its address is none.
    """
    message = EmailMessage(policy=_POLICY)
    message["From"] = _from()
    message["To"] = _mailbox(letter.to)
    message["Reply-To"] = _mailbox(config.get().support_email)
    message["Subject"] = one_line(letter.subject, _SUBJECT_LENGTH)
    message["Message-ID"] = letter.message_id
    message["Date"] = format_datetime(letter.date)
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(letter.text)
    message.add_alternative(letter.html, subtype="html")
    html = message.get_payload(1)
    assert isinstance(html, MIMEPart)
    for part in letter.attachments:
        kind, _, more = part.content_type.partition("; ")
        main, sub = kind.split("/")
        params = dict(item.split("=") for item in more.split("; ")) if more else {}
        if part.content_id:
            cid = f"<{part.content_id}>"
            html.add_related(part.data, main, sub, cid=cid, filename=part.name, disposition="inline")
        else:
            message.add_attachment(part.data, main, sub, filename=part.name, params=params)
    return message


def one_line(text: str, length: int) -> str:
    """`text` fit for a header: no line breaks, nothing that cannot be seen, and not endless."""
    plain = " ".join("".join(map(_for_header, text)).split())
    return plain if len(plain) <= length else plain[: length - 1] + "…"


def _for_header(sign: str) -> str:
    """A sign as it is; the joiners of emoji, Persian and the scripts of India are not printed, and needed."""
    if sign.isprintable() or sign in "\u200c\u200d":
        return sign
    return "" if unicodedata.category(sign) == "Cf" else " "


def _from() -> Address:
    """The sender, with the site's name before the address."""
    try:
        return Address(one_line(config.get().site_name, _NAME_LENGTH), addr_spec=_sender())
    except (ValueError, IndexError, MessageError) as error:
        raise MailError("MAIL_SENDER is not an address that mail can come from.", everyone=True) from error


def _sender() -> str:
    """The bare address that mail comes from; MAIL_SENDER may carry a name of its own."""
    return addresses.settled(parseaddr(config.get().mail_sender)[1])


def sender_domain() -> str:
    """The domain that Message-IDs end in."""
    return _sender().rpartition("@")[2] or urlsplit(config.get().public_url).hostname or "localhost"


def _mailbox(address: str) -> Address:
    """Where a letter goes. MailError, permanent, when that is no address."""
    try:
        return addresses.mailbox(address)
    except DomainError as error:
        raise MailError(error.message, permanent=True) from error


# --- Resend ---------------------------------------------------------------------------------------------


class Resend:
    """Resend's HTTP API (https://resend.com/docs/api-reference/emails/send-email)."""

    def __init__(self) -> None:
        settings = config.get()
        self._client = httpx.Client(
            base_url=settings.mail_api_base,
            headers={"Authorization": f"Bearer {settings.mail_api_key}"},
            timeout=TIMEOUT_SECONDS,
        )

    def ready(self) -> None:
        """Nothing to do: the client connects with the first letter and keeps the connection."""

    def send(self, letter: Letter) -> None:
        compose(letter)  # For its checks: the same addresses are refused by either way out.
        try:
            # The key makes Resend answer a repeated request within a day without sending it again.
            answer = self._client.post(
                "/emails", json=_payload(letter), headers={"Idempotency-Key": letter.message_id}
            )
        except httpx.HTTPError as error:
            raise MailError(
                f"{describe()}: {_say(error)}", everyone=isinstance(error, httpx.ConnectError)
            ) from error
        if answer.is_success:
            return
        name, words = _error_of(answer)
        if name == "invalid_idempotent_request":
            # An earlier copy of this letter was taken; this one differs from it in a few bytes.
            logger.info("mail_taken_before", message_id=letter.message_id)
            return
        raise MailError(
            f"{answer.status_code} {words}",
            permanent=answer.status_code in (400, 413, 422),
            everyone=answer.status_code in (401, 403, 404, 429) or answer.status_code >= 500,
        )

    def close(self) -> None:
        self._client.close()


def _payload(letter: Letter) -> dict[str, Any]:
    return {
        "from": str(_from()),
        "to": [_mailbox(letter.to).addr_spec],
        "reply_to": _mailbox(config.get().support_email).addr_spec,
        "subject": one_line(letter.subject, _SUBJECT_LENGTH),
        "text": letter.text,
        "html": letter.html,
        "headers": {"Message-ID": letter.message_id, "Auto-Submitted": "auto-generated"},
        "attachments": [
            {
                "filename": part.name,
                "content": base64.b64encode(part.data).decode(),
                "content_type": part.content_type,
                **({"content_id": part.content_id} if part.content_id else {}),
            }
            for part in letter.attachments
        ],
    }


def _error_of(answer: httpx.Response) -> tuple[str, str]:
    """Resend's name of the error and its words: `{"statusCode": 422, "name": ..., "message": ...}`."""
    try:
        body = answer.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        return "", answer.text[:200]
    return str(body.get("name", "")), str(body.get("message", ""))[:300]
