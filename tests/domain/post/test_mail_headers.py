"""What a mail's headers say is what its reader sees: subjects, senders and file names in any letters."""

from __future__ import annotations

import random
from dataclasses import replace
from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import parseaddr

import pytest
from flask import Flask

import config
from domain import clock
from domain.post import mail_kinds, transport
from domain.post.transport import Attachment, Letter
from domain.tickets import documents
from extensions import db
from models import OutboxMail
from tests.support.shop import make_event, place

TEXT = """Über Größe Straße Ärger Öl für Jürgen Müller Français été déjà l’Été “Nuit” – Ёлка и Дед Мороз
Zürich Kraków Łódź 東京 コンサート Ticket Your tickets for Gala ORD-7KQ2MPXA 👩\u200d🎤 علی\u200cرضا
[Kassa CRITICAL] Nguyễn, (Văn) "x" =?x?= a_b"""
LONG = "Größe, Straße & Söhne “Zürich” – Kraków und Łódź für alle"
SENDERS = ("Kasse", "Bürgerhaus Öl & Brot", "Ё" * 100, LONG)


def made(subject: str, *files: Attachment) -> bytes:
    letter = Letter(
        "ada@example.org", subject, "Größe\n", "<p>Größe</p>", "<1@example.org>", clock.now(), files
    )
    return transport.compose(letter).as_bytes()


def read(raw: bytes) -> EmailMessage:
    message = message_from_bytes(raw, policy=policy.default)
    assert isinstance(message, EmailMessage)
    return message


def headers_of(raw: bytes) -> list[bytes]:
    return raw.partition(b"\r\n\r\n")[0].split(b"\r\n")


def test_a_thousand_subjects_arrive_as_they_were_written(app: Flask) -> None:
    chance, words = random.Random(7), TEXT.split()
    for _ in range(1000):
        subject = transport.one_line(" ".join(chance.choices(words, k=chance.randint(1, 25))), 200)
        raw = made(subject)
        assert str(read(raw)["Subject"]) == subject
        lines = headers_of(raw)
        assert all(line.isascii() and len(line) <= 78 for line in lines), lines
        if not subject.isascii():
            first = next(line for line in lines if line.startswith(b"Subject:"))
            # One run, from the first letter on; and older readers, who join what they decode, agree.
            assert first.startswith(b"Subject: =?utf-8?")
            plain = message_from_bytes(raw)["Subject"]
            assert str(make_header(decode_header(plain))) == subject


@pytest.mark.parametrize(
    "name",
    ["Kasse", "Bürgerhaus Öl & Brot", "Ё" * 100, "Größe, Straße & Söhne “Zürich” – Kraków und Łódź für alle"],
)
def test_a_sender_s_name_is_read_as_it_is(app: Flask, name: str) -> None:
    config.use(replace(config.get(), site_name=name, mail_sender="kasse@straße.de"))
    raw = made("Hello")
    # As RFC 2047 has it: the standard library's own reader of addresses puts blanks into long names.
    shown, address = parseaddr(message_from_bytes(raw)["From"])
    assert (str(make_header(decode_header(shown))), address) == (name, "kasse@xn--strae-oqa.de")
    assert all(line.isascii() for line in headers_of(raw))


def test_a_file_s_name_is_encoded_as_one(app: Flask) -> None:
    name = "Größe " + "Ё" * 60 + ' (1); x="2".pdf'
    raw = made(
        "Hello",
        Attachment(name, "application/pdf", b"%PDF"),
        Attachment("plain.pdf", "application/pdf", b"%PDF"),
    )
    found = [part.get_filename() for part in read(raw).iter_attachments()]
    assert found == [name, "plain.pdf"]
    assert raw.count(b"filename*=utf-8''") == 1 and b"filename*0" not in raw


def test_parts_name_their_charset_and_the_calendar_its_method(app: Flask) -> None:
    place(make_event(price_minor=0, title="Fête d’été"), name="Zoë")
    mail = db.session.query(OutboxMail).filter_by(kind="tickets").one()
    message = read(transport.compose(mail_kinds.compose(mail)).as_bytes())
    texts = [part for part in message.walk() if part.get_content_maintype() == "text"]
    assert [part.get_content_type() for part in texts] == ["text/plain", "text/html", "text/calendar"]
    assert {part.get_content_charset() for part in texts} == {"utf-8"}
    calendar = texts[2]
    assert calendar["Content-Type"].params["method"] == "PUBLISH"
    assert "METHOD:PUBLISH" in calendar.get_content() and "Fête d’été" in calendar.get_content()
    assert mail.order is not None
    assert documents.calendar(mail.order).decode() in calendar.get_content()
