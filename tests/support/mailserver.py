"""A mail server of a test's own: real SMTP on loopback that takes, refuses and dies on order."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage, MIMEPart
from typing import Any

from aiosmtpd.controller import Controller
from flask import Flask


class MailServer:
    """Takes mail for anybody. Change its attributes to change how it behaves from the next command on."""

    def __init__(self) -> None:
        self.messages: list[EmailMessage] = []
        self.connections = 0
        # What RCPT answers for an address, instead of taking it.
        self.refuse: dict[str, str] = {}
        # Take the next letters, and then hang up without an answer, as a line that breaks after DATA.
        self.drop_after_data = 0
        # What DATA answers, instead of taking the letter.
        self.refuse_data = ""

    async def handle_EHLO(
        self, server: Any, session: Any, envelope: Any, name: str, answers: list[str]
    ) -> list[str]:
        self.connections += 1
        session.host_name = name
        return answers

    async def handle_RCPT(
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        if address in self.refuse:
            return self.refuse[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self.refuse_data:
            return self.refuse_data
        message = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(message, EmailMessage)
        self.messages.append(message)
        if self.drop_after_data:
            self.drop_after_data -= 1
            server.transport.abort()
        return "250 OK"

    @property
    def recipients(self) -> list[str]:
        return [str(message["To"]) for message in self.messages]


@contextmanager
def running(app: Flask) -> Iterator[MailServer]:
    """A mail server that `app` sends to while the block runs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = MailServer()
    controller = Controller(server, hostname="127.0.0.1", port=port, enable_SMTPUTF8=False)
    settings = app.extensions["mail"]
    before = settings.server, settings.port
    controller.start()
    settings.server, settings.port = "127.0.0.1", port
    try:
        yield server
    finally:
        settings.server, settings.port = before
        controller.stop()


def parts(message: EmailMessage) -> list[MIMEPart]:
    """The leaves of a message, in order."""
    return [part for part in message.walk() if isinstance(part, MIMEPart) and not part.is_multipart()]


def text_of(message: EmailMessage, kind: str = "plain") -> str:
    """The body as the reader's program shows it; `kind` is `plain` or `html`."""
    body = message.get_body((kind,))
    assert body is not None
    content = body.get_content()
    assert isinstance(content, str)
    return content.replace("\r\n", "\n")
