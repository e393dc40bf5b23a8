"""The outbox over real SMTP and a real database: mail leaves once, whatever refuses, hangs up or dies."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select, update

import config
from domain import clock
from domain.errors import DomainError, NotFound
from domain.post import outbox, transport
from domain.post.outbox import BACK_OFF_MINUTES, MOST_ATTEMPTS, Delivery
from extensions import db
from models import MailState, OutboxMail
from tests.support import mailserver
from tests.support.mailserver import MailServer, text_of
from tests.support.sandbox import Sandbox, free_port
from tests.support.threads import at_once


@pytest.fixture
def server(app: Flask) -> Iterator[MailServer]:
    with mailserver.running(app) as running:
        yield running


def owe(number: int = 1, to: str = "") -> None:
    """A mail to `buyer<number>@example.org`, committed."""
    link = {"link": "http://localhost/x"}
    address = to or f"buyer{number}@example.org"
    outbox.stage("reset_password", key=f"mail:{number}:{address}", to=address, context=link)
    db.session.commit()


def rows(**having: Any) -> list[OutboxMail]:
    db.session.rollback()
    query = select(OutboxMail).filter_by(**having).order_by(OutboxMail.id)
    return list(db.session.scalars(query.execution_options(populate_existing=True)))


def alerts() -> list[OutboxMail]:
    return rows(kind="alert")


# --- Owing ----------------------------------------------------------------------------------------------


def test_one_key_is_one_mail(app: Flask) -> None:
    owe()
    owe()
    outbox.stage("reset_password", key="mail:1:buyer1@example.org", to="other@example.org")
    db.session.commit()
    (mail,) = rows()
    assert (mail.to, mail.state, mail.attempts) == ("buyer1@example.org", MailState.DUE, 0)
    assert mail.message_id.startswith("<") and mail.message_id.endswith("@example.org>")


def test_one_key_is_one_mail_side_by_side(app: Flask) -> None:
    def stage(number: int) -> None:
        outbox.stage("reset_password", key="same", to=f"buyer{number}@example.org")
        db.session.commit()

    assert at_once(app, 8, stage) == [None] * 8
    assert len(rows()) == 1


def test_staging_is_part_of_the_caller_s_transaction(app: Flask) -> None:
    outbox.stage("reset_password", key="undone", to="a@example.org")
    db.session.rollback()
    assert rows() == []


def test_one_mail_can_be_sent_before_its_turn(server: MailServer) -> None:
    owe(1)
    owe(2)
    assert outbox.deliver_due(only="mail:2:buyer2@example.org") == Delivery(sent=1)
    assert server.recipients == ["buyer2@example.org"]


def test_a_kind_without_words_is_refused_where_it_is_staged(app: Flask) -> None:
    with pytest.raises(ValueError, match="no mail of kind"):
        outbox.stage("postcard", key="x", to="a@example.org")


def test_an_alert_carries_its_prefix_and_goes_to_the_operators_once(server: MailServer) -> None:
    outbox.alert("3 Orders Stuck in Processing", "Look.", key="stuck:1")
    outbox.alert("3 Orders Stuck in Processing", "Look again.", key="stuck:1")
    outbox.alert("Amount Mismatch - Order ORD-A", "Look!", key="mismatch:1", critical=True)
    db.session.commit()
    assert outbox.deliver_due() == Delivery(sent=2)
    assert [(m["To"], m["Subject"]) for m in server.messages] == [
        ("alerts@example.org", "[Kassa Alert] 3 Orders Stuck in Processing"),
        ("alerts@example.org", "[Kassa CRITICAL] Amount Mismatch - Order ORD-A"),
    ]
    assert text_of(server.messages[0]) == "Look.\n"


# --- Delivering -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [60, 68, 69, 70, 75, 78, 79, 120, 190])
def test_an_alert_s_subject_begins_with_its_prefix_however_long_it_is(
    server: MailServer, length: int
) -> None:
    subject = ("Suspicious Pattern " * 20)[: length - len("[Kassa CRITICAL] ")].strip()
    outbox.alert(subject, "Look.", key="long", critical=True)
    db.session.commit()
    outbox.deliver_due()
    (mail,) = server.messages
    assert mail["Subject"] == f"[Kassa CRITICAL] {subject}"


def test_what_is_due_leaves_over_one_connection_and_only_once(server: MailServer) -> None:
    for number in range(5):
        owe(number)
    assert outbox.deliver_due() == Delivery(sent=5)
    assert outbox.deliver_due() == Delivery()
    assert server.connections == 1
    assert server.recipients == [f"buyer{number}@example.org" for number in range(5)]
    for mail, message in zip(rows(), server.messages, strict=True):
        assert mail.state is MailState.SENT and mail.sent_at is not None and mail.leased_until is None
        assert message["Message-ID"] == mail.message_id
        assert message["From"] == "Kassa <help@example.org>"
        assert message["Reply-To"] == "help@example.org"
        assert message["Date"].datetime == mail.created_at.replace(microsecond=0)


def test_a_limit_and_a_budget_end_a_run(server: MailServer) -> None:
    for number in range(3):
        owe(number)
    assert outbox.deliver_due(limit=1) == Delivery(sent=1)
    assert outbox.deliver_due(budget_seconds=0) == Delivery()
    assert outbox.deliver_due() == Delivery(sent=2)


def test_no_transaction_is_open_while_the_mail_server_is_talked_to(
    server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_ones: list[bool] = []
    for name in ("ready", "send"):
        real = getattr(transport.Smtp, name)

        def watched(self: transport.Smtp, *args: Any, real: Callable[..., None] = real) -> None:
            open_ones.append(db.session().in_transaction())
            real(self, *args)

        monkeypatch.setattr(transport.Smtp, name, watched)
    owe()
    outbox.deliver_due()
    assert open_ones == [False, False]


def test_without_mail_settings_mail_waits_and_nothing_fails(server: MailServer) -> None:
    owe()
    config.use(replace(config.get(), mail_server="", mail_api_key=""))
    assert outbox.deliver_due() == Delivery()
    (mail,) = rows()
    assert (mail.state, mail.attempts) == (MailState.DUE, 0)


def test_deliverers_side_by_side_send_each_mail_once(app: Flask, server: MailServer) -> None:
    for number in range(40):
        owe(number)
    results = at_once(app, 8, lambda number: outbox.deliver_due())
    assert sum(result.sent for result in results if isinstance(result, Delivery)) == 40
    assert set(Counter(server.recipients).values()) == {1}
    assert len(server.messages) == 40


def test_the_side_by_side_test_can_fail(
    app: Flask, server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: with claims that lock nothing, the same race sends some mail twice."""
    both_have_read = threading.Barrier(2)

    def naive(only: str | None) -> outbox._Claim | None:
        mail = db.session.scalar(select(OutboxMail).filter_by(state=MailState.DUE))
        if mail is None:
            return None
        db.session.expunge(mail)
        claim = outbox._Claim(mail, clock.now(), 0.0)
        db.session.rollback()
        both_have_read.wait(30)
        return claim

    monkeypatch.setattr(outbox, "_claim", naive)
    monkeypatch.setattr(outbox, "_still_ours", lambda claim: True)
    owe()
    at_once(app, 2, lambda number: outbox.deliver_due(limit=1))
    assert server.recipients == ["buyer1@example.org"] * 2


# --- Refusals and retries -------------------------------------------------------------------------------


def test_a_refused_address_fails_at_once_is_told_and_holds_nobody_up(server: MailServer) -> None:
    server.refuse["gone@example.org"] = "550 5.1.1 No such mailbox"
    owe(1, "gone@example.org")
    owe(2)
    assert outbox.deliver_due() == Delivery(sent=2, failed=1)
    (failed,) = rows(state=MailState.FAILED)
    assert failed.attempts == 1 and failed.last_error == "550 5.1.1 No such mailbox"
    alert = server.messages[-1]
    assert alert["Subject"].startswith("[Kassa Alert] Email Delivery Failing")
    assert "gone@example.org" in text_of(alert) and "550 5.1.1 No such mailbox" in text_of(alert)


def test_a_server_that_refuses_us_is_not_held_against_the_address(server: MailServer) -> None:
    server.refuse["buyer1@example.org"] = "550 5.7.1 Relaying denied"
    owe(1)
    owe(2)
    assert outbox.deliver_due() == Delivery(sent=1, retried=1)
    assert [mail.state for mail in rows()] == [MailState.DUE, MailState.SENT]


def test_a_server_that_refuses_everybody_is_one_outage(server: MailServer, sandbox: Sandbox) -> None:
    for number in range(4):
        owe(number)
        server.refuse[f"buyer{number}@example.org"] = "550 5.7.1 Relaying denied"
    server.refuse["alerts@example.org"] = "550 5.7.1 Relaying denied"
    for minutes in BACK_OFF_MINUTES[:4]:
        outbox.deliver_due()
        sandbox.advance(minutes * 60)
    (alert,) = alerts()
    assert alert.context["subject"] == "[Kassa Alert] Email Delivery Failing - 4 Waiting"
    assert "550 5.7.1 Relaying denied" in alert.context["text"]


def test_a_server_that_wants_a_login_first_ends_the_run(server: MailServer) -> None:
    server.refuse["buyer1@example.org"] = "530 5.7.0 Log in first"
    owe(1)
    owe(2)
    assert outbox.deliver_due() == Delivery(retried=1)


def test_a_mail_that_is_put_off_is_tried_for_days_and_then_given_up(
    server: MailServer, sandbox: Sandbox
) -> None:
    server.refuse["slow@example.org"] = "450 4.2.0 Greylisted"
    owe(1, "slow@example.org")
    began = clock.now()
    for minutes in BACK_OFF_MINUTES:
        assert outbox.deliver_due().retried == 1
        assert outbox.deliver_due() == Delivery()
        (mail,) = rows(to="slow@example.org")
        assert mail.next_attempt_at is not None
        wait = mail.next_attempt_at - clock.now()
        assert timedelta(minutes=minutes - 1) < wait <= timedelta(minutes=minutes)
        sandbox.advance(minutes * 60)
    assert outbox.deliver_due().failed == 1
    assert timedelta(days=2) < clock.now() - began < timedelta(days=4)
    (mail,) = rows(to="slow@example.org")
    assert (mail.state, mail.attempts, mail.next_attempt_at) == (MailState.FAILED, MOST_ATTEMPTS, None)
    outbox.deliver_due()
    told = [text_of(message) for message in server.messages]
    assert len(told) == 2, "one when it began to fail, one when it was given up"
    assert "tried again for three days" in told[0] and "not tried again by itself" in told[1]


def test_a_letter_that_the_server_will_not_take_fails_alone(server: MailServer) -> None:
    server.refuse_data = "554 5.6.0 Not like this"
    owe()
    assert outbox.deliver_due().failed >= 1
    server.refuse_data = ""
    owe(2)
    assert outbox.deliver_due().sent == 1


def test_a_server_that_cannot_be_reached_ends_the_run_and_is_told_once_an_outage(
    app: Flask, sandbox: Sandbox
) -> None:
    settings = app.extensions["mail"]
    settings.port, before = free_port(), settings.port
    try:
        for number in range(3):
            owe(number)
        assert outbox.deliver_due() == Delivery(retried=1), "the others wait for a server that answers"
        assert [mail.attempts for mail in rows()] == [1, 0, 0]
        assert alerts() == []
        sandbox.advance(11 * 60)
        for _ in range(3):
            assert outbox.deliver_due().retried == 1
            sandbox.advance(60 * 60)
        (alert,) = alerts()
        assert alert.context["subject"] == "[Kassa Alert] Email Delivery Failing - 3 Waiting"
        assert "ConnectionRefusedError" in alert.context["text"]
    finally:
        settings.port = before
    sandbox.advance(24 * 60 * 60)
    assert outbox.deliver_due() == Delivery(sent=4), (
        "everything leaves once the server answers, the alert too"
    )
    # Another outage is another cause.
    settings.port = free_port()
    try:
        owe(4)
        sandbox.advance(11 * 60)
        outbox.deliver_due()
        assert len(alerts()) == 2
    finally:
        settings.port = before


def test_an_alert_that_fails_makes_no_further_alerts(server: MailServer) -> None:
    server.refuse["alerts@example.org"] = "550 5.1.1 No such mailbox"
    outbox.alert("Something", "Look.", key="something")
    db.session.commit()
    assert outbox.deliver_due() == Delivery(failed=1)
    assert len(rows()) == 1


def test_a_server_that_does_not_answer_is_left_after_a_time(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "TIMEOUT_SECONDS", 0.3)
    settings = app.extensions["mail"]
    before = settings.port
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings.port = silent.getsockname()[1]
        try:
            owe()
            assert outbox.deliver_due() == Delivery(retried=1)
        finally:
            settings.port = before
    assert "TimeoutError" in rows()[0].last_error or "timed out" in rows()[0].last_error


def test_the_lease_is_longer_than_handing_over_a_letter_can_take() -> None:
    longest = 5 * transport.TIMEOUT_SECONDS + outbox._RENEW_AFTER_SECONDS
    assert timedelta(seconds=longest) < outbox.LEASE


def test_a_connection_that_died_between_two_letters_is_opened_again(
    server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    owe(1)
    owe(2)
    with transport.transport() as way:
        monkeypatch.setattr(transport, "transport", lambda: _kept_open(way))
        assert outbox.deliver_due(limit=1).sent == 1
        assert isinstance(way, transport.Smtp) and way._server is not None and way._server.sock is not None
        way._server.sock.shutdown(socket.SHUT_RDWR)
        assert outbox.deliver_due(limit=1).sent == 1
    assert server.connections == 2


class _kept_open:
    def __init__(self, way: transport.Transport) -> None:
        self.way = way

    def __enter__(self) -> transport.Transport:
        return self.way

    def __exit__(self, *_: object) -> None:
        """Left open for the next run."""


def test_encryption_and_login_are_asked_for_as_the_settings_say(app: Flask, server: MailServer) -> None:
    settings = app.extensions["mail"]
    for changes, words in (({"use_tls": True}, "STARTTLS"), ({"username": "u", "password": "p"}, "AUTH")):
        before = {name: getattr(settings, name) for name in changes}
        vars(settings).update(changes)
        try:
            with transport.transport() as way, pytest.raises(transport.MailError, match=words) as raised:
                way.ready()
        finally:
            vars(settings).update(before)
        assert raised.value.everyone and not raised.value.permanent


# --- Deaths ---------------------------------------------------------------------------------------------


class Death(BaseException):
    """The end of a process, as far as one can have it inside a test."""


def test_a_line_that_breaks_after_data_makes_a_second_copy_with_the_same_message_id(
    server: MailServer, sandbox: Sandbox
) -> None:
    server.drop_after_data = 1
    owe(1)
    owe(2)
    assert outbox.deliver_due() == Delivery(sent=1, retried=1)
    sandbox.advance(61)
    assert outbox.deliver_due() == Delivery(sent=1)
    assert server.recipients == ["buyer1@example.org", "buyer2@example.org", "buyer1@example.org"]
    assert server.messages[0]["Message-ID"] == server.messages[2]["Message-ID"]


def test_a_process_that_dies_between_data_and_commit_leaves_the_mail_due_after_its_lease(
    server: MailServer, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    owe()
    with monkeypatch.context() as dying:
        dying.setattr(outbox, "_sent", _die)
        with pytest.raises(Death):
            outbox.deliver_due()
    db.session.rollback()
    sandbox.advance(100)
    assert outbox.deliver_due() == Delivery(), "it is leased to the one that died"
    sandbox.advance(30)
    assert outbox.deliver_due() == Delivery(sent=1)
    first, second = server.messages
    assert first["Message-ID"] == second["Message-ID"]


def test_a_process_that_dies_before_the_mail_server_sends_no_copy(
    server: MailServer, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    owe()
    with monkeypatch.context() as dying:
        dying.setattr(outbox, "_compose", _die)
        with pytest.raises(Death):
            outbox.deliver_due()
    db.session.rollback()
    sandbox.advance(130)
    assert outbox.deliver_due() == Delivery(sent=1)
    assert len(server.messages) == 1


def _die(*_: object) -> Any:
    raise Death


def test_a_letter_that_kills_whoever_sends_it_is_given_up(
    server: MailServer, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    owe()
    with monkeypatch.context() as dying:
        dying.setattr(outbox, "_compose", _die)
        for minutes in (*BACK_OFF_MINUTES, 720):
            with pytest.raises(Death):
                outbox.deliver_due()
            db.session.rollback()
            sandbox.advance(max(minutes * 60, 121))
        assert outbox.deliver_due(limit=1) == Delivery(failed=1)
    assert rows()[0].last_error == "Whatever tried to send it died."


def test_a_claim_that_another_process_took_over_meanwhile_is_dropped(
    server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    owe()
    monkeypatch.setattr(outbox, "_RENEW_AFTER_SECONDS", -1)
    real = transport.Smtp.ready

    def slow(self: transport.Smtp) -> None:
        mail = db.session.scalars(select(OutboxMail)).one()
        assert mail.leased_until is not None
        mail.leased_until += timedelta(seconds=1)
        db.session.commit()
        real(self)

    with monkeypatch.context() as taken:
        taken.setattr(transport.Smtp, "ready", slow)
        assert outbox.deliver_due(limit=1).sent == 0
    assert server.messages == []


def test_a_claim_grown_old_while_connecting_is_renewed(
    server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    owe()
    monkeypatch.setattr(outbox, "_RENEW_AFTER_SECONDS", -1)
    assert outbox.deliver_due() == Delivery(sent=1)


# --- Bad mails ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "",
        "nobody",
        "a@b@c",
        "a b@example.org",
        "a@example.org\r\nBcc: everyone@example.org",
        "x@" + "d" * 300 + ".org",
        "jürgen@example.org",
        "@example.org",
        "a@",
        "a@\u2024\u2024.org",
        '"unclosed@example.org',
        "a@example.org, b@example.org",
    ],
)
def test_a_bad_address_fails_its_own_mail_only(server: MailServer, address: str) -> None:
    outbox.stage("reset_password", key="bad", to=address, context={"link": "x"})
    db.session.commit()
    owe(2)
    done = outbox.deliver_due()
    (bad,) = rows(key="bad")
    assert bad.state is MailState.FAILED, bad.last_error
    assert done.failed == 1
    assert server.recipients == ["buyer2@example.org", "alerts@example.org"]
    assert all(message["Bcc"] is None for message in server.messages)


def test_a_sender_that_is_no_address_is_told_as_that(server: MailServer) -> None:
    config.use(replace(config.get(), mail_sender="nobody"))
    owe()
    assert outbox.deliver_due() == Delivery(retried=1)
    assert rows()[0].last_error.startswith("MAIL_SENDER is not an address")


def test_an_international_domain_is_sent_to_by_its_ascii_name(server: MailServer) -> None:
    owe(1, "info@bücher.example")
    # By IDNA 2003 this would be strasse.de, which is somebody else's.
    outbox.stage("reset_password", key="strasse", to="info@straße.de", context={"link": "x"})
    # As rows were before there was one form of an address.
    outbox.stage("reset_password", key="old", to="x@example.org", context={"link": "x"})
    db.session.execute(update(OutboxMail).where(OutboxMail.key == "old").values(to="old@faß.example"))
    db.session.commit()
    assert outbox.deliver_due() == Delivery(sent=3)
    assert sorted(server.recipients) == [
        "info@xn--bcher-kva.example",
        "info@xn--strae-oqa.de",
        "old@xn--fa-hia.example",
    ]


def test_a_mail_that_cannot_be_written_holds_nobody_up(server: MailServer) -> None:
    outbox.stage("reset_password", key="bad", to="a@example.org", context={})
    db.session.commit()
    owe(2)
    assert outbox.deliver_due() == Delivery(sent=1, retried=1)
    (bad,) = rows(key="bad")
    assert bad.last_error.startswith("It could not be written: UndefinedError")
    assert server.recipients == ["buyer2@example.org"]


# --- By hand --------------------------------------------------------------------------------------------


def test_a_failed_mail_can_be_tried_again(server: MailServer) -> None:
    server.refuse["buyer1@example.org"] = "550 5.1.1 No such mailbox"
    owe()
    outbox.deliver_due()
    (failed,) = rows(state=MailState.FAILED)
    server.refuse.clear()
    outbox.retry(failed.id)
    assert outbox.deliver_due() == Delivery(sent=1)
    with pytest.raises(DomainError, match="has been sent"):
        outbox.retry(failed.id)
    with pytest.raises(NotFound):
        outbox.retry(0)


def test_a_test_mail_says_what_happened(server: MailServer) -> None:
    words = outbox.send_test("me@example.org")
    assert words.endswith(
        "accepted a test mail to me@example.org. Look in its inbox, and in its spam folder."
    )
    assert [(m["To"], m["Subject"]) for m in server.messages] == [("me@example.org", "Test mail from Kassa")]
    outbox.send_test("Alerts@example.org")
    assert server.messages[1]["Subject"] == "[Kassa Alert] Test Alert"
    assert rows() == []
    server.refuse["me@example.org"] = "550 5.1.1 No such mailbox"
    with pytest.raises(DomainError, match="550 5.1.1 No such mailbox"):
        outbox.send_test("me@example.org")
    with pytest.raises(DomainError, match="not an address"):
        outbox.send_test("me")
    config.use(replace(config.get(), mail_server=""))
    with pytest.raises(DomainError, match="MAIL_SERVER"):
        outbox.send_test("me@example.org")


def test_attempts_and_times_are_the_clock_s(server: MailServer, sandbox: Sandbox) -> None:
    sandbox.advance(3600)
    owe()
    outbox.deliver_due()
    (mail,) = rows()
    assert mail.sent_at is not None
    assert isinstance(mail.sent_at, datetime) and mail.sent_at - mail.created_at < timedelta(minutes=1)
