"""The box office as its owner knows it: its address, its mail, and what happens behind its counter."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flask import Flask
from sqlalchemy import select

from domain.post import outbox
from extensions import db
from models import Order, Payment
from tests.support.sandbox import Sandbox
from tests.support.tls import Front

PATIENCE = 60.0


@dataclass
class House:
    """A running box office. `url` is without a slash at its end; `first_admin` is the link in its log.

    `environ` is what its process was told, `front` the ports of what speaks TLS before it.
    """

    url: str
    sandbox: Sandbox
    app: Flask
    environ: dict[str, str]
    front: Front
    first_admin: str

    def mail(self, to: str, subject: str = "") -> dict[str, Any]:
        """Deliver what is owed, as the worker does; the newest mail to `to` with this in its subject."""
        db.session.rollback()
        outbox.deliver_due()
        found = [mail for mail in self.sandbox.mail(to) if subject.lower() in mail["subject"].lower()]
        assert found, f"No mail to {to} says {subject!r}: {[m['subject'] for m in self.sandbox.mail(to)]}"
        return found[0]

    def link(self, to: str, path: str) -> str:
        """The newest link in the mails to `to` that leads to our `path`."""
        self.mail(to)
        texts = [str(mail["text"]) for mail in self.sandbox.mail(to)]
        links = [re.search(re.escape(self.url + path) + r"\S*", text) for text in texts]
        found = next((link[0] for link in links if link), None)
        assert found, f"No mail to {to} links to {path}: {texts}"
        return found

    def session_of(self, email: str) -> str:
        """The provider's id of a buyer's newest payment."""
        db.session.rollback()
        query = select(Payment.provider_id).join(Order).where(Order.email == email)
        return str(db.session.scalars(query.order_by(Payment.id.desc()).limit(1)).one())


def wait_until(holds: Callable[[], bool], what: str) -> None:
    """Wait until `holds()`, or fail after a while with `what` it was."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"Waited in vain until {what}."
        time.sleep(0.05)
