"""Names as people have them, and what is no name: addresses of the web, and letters that cannot be seen."""

from __future__ import annotations

import io
import re

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pypdf import PdfReader

from domain import names
from domain.errors import DomainError
from domain.orders import placing
from domain.people import accounts
from domain.post import mail_kinds
from domain.tickets import documents
from extensions import db
from models import Order, OutboxMail, Role
from tests.support.people import log_in, make_member, post
from tests.support.shop import make_event, make_user, place
from tests.support.web import buy

PEOPLE = [
    "Dr.Müller",
    "Mary St.John",
    "M.Sc",
    "Ada Fields, B.Sc.",
    "J.R.R. Tolkien",
    "Prof.Dr.med. Weber",
    "Dipl.Ing. Weber",
    "Martin Luther King Jr.",
    "O’Brien-Smith",
    "O",
    "李",
    "นที",
    "नरेन्द्र",
    "Лёша",
    "علی\u200cرضا",
    "José María d'Aragón y Núñez",
    "क्\u200dष",
    "Ada \U0001f469\U0001f3fd\u200d\U0001f680",
    "Ada \u2764\ufe0f\u200d\U0001f525",
    "R2-D2",
    "X Æ A-12",
]
LINKS = [
    "WIN a prize: https://evil.example",
    "https:evil",
    "www.evil",
    "WWW.Evil.example",
    "evil.com",
    "Ada evil.com Buyer",
    "(evil.co.uk)",
    "prize.evil.shop!",
    "Ada@evil",
    "Ada / Bo",
    "\uff57\uff57\uff57.evil",
    "evil\uff0ecom",
    "evil\u3002com",
    "evil\u200b.com",
    "evil.c\u200dom",
    "evil\u200c.com",
    "evil.\u200dcom",
    "пример.р\u200cф",
    "evil.c\ufe0fom",
    "evil.c\u034fom",
    "evil.c\U000e0100om",
    "evil\u2024com",
    "Ada evil.com.",
    "xn--e1afmkfd.xn--p1ai",
    "пример.рф",
    "paypal.de.Müller",
    "Ada\u2215Bo",
]


@pytest.mark.parametrize("name", PEOPLE)
def test_names_are_taken_as_they_are(name: str) -> None:
    assert names.clean(name) == name
    assert not names.carries_address(name)
    assert names.unlinked(name).replace("\u2060", "") == name


@pytest.mark.parametrize("name", LINKS)
def test_an_address_of_the_web_is_no_name(app: Flask, name: str) -> None:
    event = make_event()
    user = make_user()
    for take in (
        lambda: names.clean(name),
        lambda: place(event, name=name),
        lambda: placing.place_guests(
            event, event.ticket_types[0].id, 1, name=name, email="a@example.org", actor_id=user.id
        ),
        lambda: accounts.register("new@example.org", "three green bottles", name),
    ):
        with pytest.raises(DomainError) as refused:
            take()
        assert refused.value.code == "name_strange"
    assert db.session.query(Order).count() == 0


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("  Ada\u00a0 Buyer ", "Ada Buyer"),
        ("Zoe\u0308", "Zoë"),
        ("A\u200bda\ufeff B\u00aduyer", "Ada Buyer"),
        ("\u200fدانا\u200f", "دانا"),
        ("A\u3164da", "A da"),
        ("Ada\x00\tBuyer\r\n", "Ada Buyer"),
        ("Ada \ud800", "Ada"),
        ("\u200d Ada\u200d", "Ada"),
        ("A\u200dd\u200ca", "Ada"),
        ("Л\u200dёша", "Лёша"),
        ("M.S\u200dc", "M.Sc"),
    ],
)
def test_what_cannot_be_seen_is_left_out(typed: str, kept: str) -> None:
    assert names.clean(typed) == kept


@pytest.mark.parametrize("typed", ["", "  ", "\u200b", "\u3164\u2800", "\u200d", "\u0301", "\ufe0f", "\x00"])
def test_nothing_to_be_seen_is_no_name(typed: str) -> None:
    with pytest.raises(DomainError) as refused:
        names.clean(typed)
    assert refused.value.code == "name_missing"


@pytest.mark.parametrize("typed", ["Ada \u202egnp.exe", "\u2066Ada\u2069", "Ada\u202b"])
def test_letters_that_are_turned_round_are_refused(typed: str) -> None:
    with pytest.raises(DomainError) as refused:
        names.clean(typed)
    assert refused.value.code == "name_strange"


def test_no_mail_makes_a_link_of_a_name(app: Flask) -> None:
    """M.Sc is a name, and a domain of the Seychelles: an invisible sign keeps it from being linked."""
    order = place(make_event(price_minor=0), name="Ada M.Sc")
    mail = db.session.query(OutboxMail).filter_by(kind="tickets").one()
    letter = mail_kinds.compose(mail)
    for text in (letter.text, letter.html):
        assert "M.\u2060Sc" in text and "M.Sc" not in text
    old = "WIN: https://evil.example"
    order.name = old
    order.tickets[0].holder = old
    db.session.commit()
    letter = mail_kinds.compose(mail)
    assert "evil.example" not in letter.text + letter.html and "https://evil" not in letter.text
    assert names.unlinked("Dr.Müller") == "Dr.Müller"


def test_no_pdf_makes_a_link_of_a_name(app: Flask) -> None:
    """Readers of PDF look for addresses in what they show. What keeps them apart costs no font more."""
    order = place(make_event(price_minor=0), name="Ada M.Sc")
    for old in ("Ada M.Sc", "WIN: https://evil.example/x www.evil.example"):
        order.tickets[0].holder = old
        db.session.commit()
        (page,) = PdfReader(io.BytesIO(documents.tickets_pdf(order))).pages
        text = page.extract_text()
        assert "/Annots" not in page or "evil" not in str(page["/Annots"])
        assert not re.search(r"M\.Sc|://evil|www\.evil|evil\.example", text), text


def test_the_order_form_says_so_beside_the_name(client: FlaskClient) -> None:
    answer = buy(client, make_event(), name="WIN a prize: https://evil.example")
    assert answer.status_code == 400 and "does not look like a name" in answer.text
    assert 'id="name-problem"' in answer.text
    assert buy(client, make_event("second"), name="Dr.Müller").status_code == 303


def test_the_guest_list_says_so_beside_the_name(app: Flask) -> None:
    make_member("boss@example.org", Role.ADMIN)
    boss = app.test_client()
    log_in(boss, "boss@example.org")
    event = make_event()
    fields = {"ticket_type_id": str(event.ticket_types[0].id), "quantity": "1", "email": "a@example.org"}
    answer = post(boss, f"/organiser/events/{event.slug}/guests", name="www.evil.com", **fields)
    assert answer.status_code == 400 and "does not look like a name" in answer.text
    answer = post(boss, f"/organiser/events/{event.slug}/guests", name="Mary St.John", **fields)
    assert answer.status_code == 303
