"""Mail over HTTPS, against the sandbox's imitation of Resend, and against answers it does not give."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from flask import Flask

import config
from domain.post import mail_kinds, outbox, transport
from domain.post.outbox import Delivery
from domain.tickets import issuing
from extensions import db
from models import MailState, OutboxMail
from tests.support.sandbox import Sandbox, free_port
from tests.support.shop import make_event, place


@pytest.fixture
def api(app: Flask, sandbox: Sandbox) -> Sandbox:
    use(f"{sandbox.base_url}/resend")
    return sandbox


def use(base: str, key: str = "re_kassa_sandbox") -> None:
    config.use(replace(config.get(), mail_server="", mail_api_base=base, mail_api_key=key))


def owe(to: str = "ada@example.org") -> None:
    outbox.stage("reset_password", key=f"reset:{to}", to=to, context={"link": "http://localhost/x"})
    db.session.commit()


def newest() -> OutboxMail:
    db.session.rollback()
    return db.session.query(OutboxMail).order_by(OutboxMail.id).populate_existing().all()[0]


def test_the_tickets_mail_arrives_whole(api: Sandbox) -> None:
    order = place(make_event(title="Brass Night"), 2)
    issuing.issue(order)
    outbox.stage("tickets", key="t", to="ada@example.org", order=order)
    db.session.commit()
    assert outbox.deliver_due(only="t") == Delivery(sent=1)
    (caught,) = api.mail(to="ada@example.org")
    assert caught["via"] == "resend"
    assert caught["from"] == "Kassa <help@example.org>"
    assert caught["message_id"] == db.session.query(OutboxMail).filter_by(key="t").one().message_id
    assert caught["subject"] == f"Your tickets for Brass Night ({order.code})"
    assert order.code in caught["text"] and order.code in caught["html"]
    assert [(part["name"], part["inline"]) for part in caught["attachments"]] == [
        ("ticket-1.png", True),
        ("ticket-2.png", True),
        (f"tickets-{order.code}.pdf", False),
        ("event.ics", False),
    ]
    for part in caught["attachments"][:2]:
        assert f"cid:{part['content_id']}" in caught["html"]


def test_a_second_copy_is_recognised_there(api: Sandbox) -> None:
    owe()
    letter = mail_kinds.compose(newest())
    db.session.rollback()
    with transport.transport() as way:
        way.send(letter)
        way.send(letter)
        # Drawn again, a PDF can differ in a few bytes; the key still says that it is the same mail.
        way.send(replace(letter, text=letter.text + "."))
    assert len(api.mail(to="ada@example.org")) == 1


def test_a_wrong_key_is_everybody_s_trouble(api: Sandbox) -> None:
    use(config.get().mail_api_base, "re_wrong")
    owe()
    owe("b@example.org")
    assert outbox.deliver_due() == Delivery(retried=1)
    assert newest().last_error == "403 API key is invalid."


def test_a_bad_address_is_its_own(api: Sandbox) -> None:
    owe("nobody")
    owe("b@example.org")
    assert outbox.deliver_due() == Delivery(sent=2, failed=1)
    assert newest().state is MailState.FAILED


def test_nobody_there(app: Flask) -> None:
    use(f"http://127.0.0.1:{free_port()}")
    owe()
    owe("b@example.org")
    assert outbox.deliver_due() == Delivery(retried=1)


@contextmanager
def answering(status: int, body: str) -> Iterator[str]:
    """An API that gives every request one answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            """Not to standard error."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "name", "permanent", "everyone"),
    [
        (422, "validation_error", True, False),
        (400, "validation_error", True, False),
        (409, "concurrent_idempotent_requests", False, False),
        (401, "missing_api_key", False, True),
        (403, "validation_error", False, True),
        (429, "rate_limit_exceeded", False, True),
        (429, "daily_quota_exceeded", False, True),
        (500, "application_error", False, True),
    ],
)
def test_what_each_refusal_means(app: Flask, status: int, name: str, permanent: bool, everyone: bool) -> None:
    body = json.dumps({"statusCode": status, "name": name, "message": "Because."})
    with answering(status, body) as base:
        use(base)
        owe()
        letter = mail_kinds.compose(newest())
        with (
            transport.transport() as way,
            pytest.raises(transport.MailError, match=f"{status} Because") as raised,
        ):
            way.send(letter)
    assert (raised.value.permanent, raised.value.everyone) == (permanent, everyone)


def test_an_answer_that_is_no_json_is_a_passing_fault(app: Flask) -> None:
    with answering(502, "<html>Bad gateway") as base:
        use(base)
        owe()
        assert outbox.deliver_due() == Delivery(retried=1)
    assert newest().last_error == "502 <html>Bad gateway"


def test_a_test_mail_by_the_api(api: Sandbox) -> None:
    assert outbox.send_test("me@example.org").startswith("127.0.0.1")
    assert [mail["subject"] for mail in api.mail()] == ["Test mail from Kassa"]
