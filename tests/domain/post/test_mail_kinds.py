"""What buyers read: each kind of mail as it arrives, its pictures scanned, its links and files looked at."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from email.message import EmailMessage
from typing import Any

import icalendar
import pytest
import zxingcpp
from flask import Flask
from PIL import Image

import config
from domain import clock, codes, urls
from domain.orders import placing
from domain.post import mail_kinds, outbox
from domain.tickets import issuing
from extensions import db
from models import Order, Payment, PaymentState, Refund, RefundState
from tests.support import mailserver, queries
from tests.support.mailserver import MailServer, parts, text_of
from tests.support.shop import make_event, make_user, place

# The kinds that are about an order, and those that are about an account or nobody.
ABOUT_ORDERS = (
    "order_received",
    "tickets",
    "payment_failed",
    "order_expired",
    "order_cancelled",
    "entry_withdrawn",
    "event_cancelled",
    "event_moved",
    "refund",
    "refund_failed",
    "dispute_lost",
    "money_arrived",
    "money_decided",
    "payment_unclear",
    "top_up",
    "listing_live",
    "listing_review",
    "listing_decided",
)
OTHERS = tuple(sorted(mail_kinds.KINDS - set(ABOUT_ORDERS)))
CONTEXT: dict[str, Any] = {
    "minutes": 5,
    "reason": "Your card was declined.",
    "amount_minor": 2500,
    "currency": "EUR",
    "full": False,
    "links": [{"code": "ORD-A", "title": "Brass Night", "url": "http://localhost/o/ORD-A/secret"}],
    "link": "http://localhost/account/x?token=1&more=2",
    "subject": "[Kassa Alert] Look",
    "text": "Look at http://localhost/admin/orders",
    "label": "SumUp",
    "prefix": "kassa_7rq2m4xp",
    "code": "12345678",
    "whose": "bob@example.org",
    "provider": "sumup",
    "account": "MERCH1",
    "waiting": 3,
    "who": "eve@example.org",
    "organiser": "The Barn",
    "address": "ann@example.org",
    "due": "7 December 2026",
    "until": "",
    "by": "boss@example.org",
    "count": 12,
    "title": "Brass Night",
    "held": 120,
    "capacity": 200,
    "type": "Standing",
    "what": "Refunded: €12.50.",
    "state": "published",
    "was": {
        "starts_at": "2027-01-01T19:00+00:00",
        "ends_at": "2027-01-01T21:00+00:00",
        "timezone": "Europe/Jersey",
        "venue": "The Old Ropeworks",
        "address": "",
    },
}


@pytest.fixture
def server(app: Flask) -> Iterator[MailServer]:
    with mailserver.running(app) as running:
        yield running


def ticketed(quantity: int = 2, **more: Any) -> Order:
    order = place(make_event(limit=100, capacity=200, **more), quantity)
    issuing.issue(order)
    db.session.commit()
    return order


def mailed(server: MailServer, kind: str, order: Order | None = None, **context: Any) -> EmailMessage:
    """The mail of a kind as it arrives."""
    key = f"{kind}:{len(server.messages)}"
    outbox.stage(kind, key=key, to="ada@example.org", order=order, context=context)
    db.session.commit()
    assert outbox.deliver_due(only=key).sent == 1
    return server.messages[-1]


# --- All of them ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*ABOUT_ORDERS, *OTHERS])
def test_every_kind_is_readable_as_text_and_as_html(server: MailServer, kind: str) -> None:
    order = ticketed() if kind in ABOUT_ORDERS else None
    message = mailed(server, kind, order, **CONTEXT)
    text, html = text_of(message), text_of(message, "html")
    for body in (text, html):
        assert not re.search(r"{[{%#]|[}%#]}|\bNone\b|Undefined", body), body
    assert message["Subject"]
    assert "\n\n\n" not in text
    assert all(len(line) < 200 for line in text.splitlines())
    assert html.startswith("<!doctype html>") and "<script" not in html
    assert re.search(r"src=\"(?!cid:)", html) is None, "no picture is loaded from outside"
    if kind != "alert":
        assert "help@example.org" in text and "help@example.org" in html
    if order is not None:
        assert order.code in text and order.code in html
        if kind != "top_up":
            assert urls.order(order) in text and urls.order(order) in html
            assert order.event is not None and order.event.title in text
            assert "Hello Ada Buyer," in text


@pytest.mark.parametrize("kind", ABOUT_ORDERS)
def test_what_people_typed_is_never_read_as_html(server: MailServer, kind: str) -> None:
    order = ticketed(title="<b>Brass</b> & Bass")
    order.name = "<img src=x onerror=alert(1)>"
    db.session.commit()
    html = text_of(mailed(server, kind, order, **CONTEXT), "html")
    assert "<b>Brass" not in html and "<img src=x" not in html


@pytest.mark.parametrize("kind", ABOUT_ORDERS)
def test_names_and_titles_that_are_long_or_not_latin_or_hostile(server: MailServer, kind: str) -> None:
    order = ticketed(title="Очень длинный вечер 音楽会\r\nBcc: everyone@example.org " * 3)
    order.name = "Ада\nBcc: x@example.org " * 8
    db.session.commit()
    message = mailed(server, kind, order, **CONTEXT)
    assert message["Bcc"] is None
    assert "\n" not in message["Subject"] and len(message["Subject"]) <= 200


def test_the_site_s_name_is_the_sender_s_whatever_it_is(server: MailServer) -> None:
    config.use(replace(config.get(), site_name='Театр "Луна", Jersey\nBcc: x'))
    message = mailed(server, "test")
    assert message["Bcc"] is None
    (sender,) = message["From"].addresses
    assert sender.display_name == 'Театр "Луна", Jersey Bcc: x'
    assert sender.addr_spec == "help@example.org"


def test_a_sender_with_a_name_of_its_own_still_shows_the_site_s(server: MailServer) -> None:
    config.use(replace(config.get(), mail_sender="Tickets <tickets@example.net>"))
    message = mailed(server, "test")
    assert message["From"] == "Kassa <tickets@example.net>"
    assert message["Message-ID"].endswith("@example.net>")


# --- Tickets --------------------------------------------------------------------------------------------


def test_the_tickets_mail_shows_each_code_and_carries_pdf_and_calendar(server: MailServer) -> None:
    order = ticketed(3, title="Brass Night", venue="Opera House")
    message = mailed(server, "tickets", order)
    assert message["Subject"] == f"Your tickets for Brass Night ({order.code})"
    assert [part.get_content_type() for part in parts(message)] == [
        "text/plain",
        "text/html",
        *["image/png"] * 3,
        "application/pdf",
        "text/calendar",
    ]
    html = text_of(message, "html")
    shown = re.findall(r'src="cid:([^"]+)"', html)
    pictures = {part["Content-ID"].strip("<>"): part for part in parts(message) if part["Content-ID"]}
    assert list(pictures) == shown
    for content_id, ticket in zip(shown, order.tickets, strict=True):
        picture = pictures[content_id]
        assert picture.get_content_disposition() == "inline"
        found = zxingcpp.read_barcodes(Image.open(io.BytesIO(picture.get_content())))
        assert [code.text for code in found] == [issuing.qr_text(ticket, order.code)]
        assert codes.show(ticket.code) in html
        assert codes.show(ticket.code) in text_of(message)
    pdf, calendar = (part for part in parts(message) if part.get_content_disposition() == "attachment")
    assert pdf.get_filename() == f"tickets-{order.code}.pdf"
    assert pdf.get_content().startswith(b"%PDF")
    assert calendar.get_filename() == "event.ics"
    content = calendar.get_payload(decode=True)
    assert isinstance(content, bytes)
    assert order.event is not None
    assert icalendar.Calendar.from_ical(content).walk("VEVENT")[0]["URL"] == urls.event(order.event)


def test_pictures_are_inside_the_html_so_that_clients_show_them_there(server: MailServer) -> None:
    message = mailed(server, "tickets", ticketed(1))
    assert [part.get_content_type() for part in message.walk() if part.is_multipart()] == [
        "multipart/mixed",
        "multipart/alternative",
        "multipart/related",
    ]


def test_the_tickets_mail_says_what_was_bought_where_and_when(server: MailServer) -> None:
    order = ticketed(2, address="Royal Square", venue="Opera House")
    text = text_of(mailed(server, "tickets", order))
    for said in (
        "Opera House, Royal Square",
        "(Jersey time)",
        "2 x Standard: €50.00",
        "Total: €50.00",
        "At the door",
    ):
        assert said in text, said


def test_only_valid_tickets_are_mailed(server: MailServer) -> None:
    order = ticketed(2)
    issuing.void(order.tickets[:1], "refunded")
    db.session.commit()
    message = mailed(server, "tickets", order)
    assert message["Subject"].startswith("Your ticket for")
    assert codes.show(order.tickets[0].code) not in text_of(message)
    issuing.void(order.tickets, "refunded")
    db.session.commit()
    message = mailed(server, "tickets", order)
    assert "no valid tickets any more" in text_of(message)
    assert "application/pdf" not in [part.get_content_type() for part in parts(message)]


def test_a_large_order_shows_some_codes_and_carries_all(server: MailServer) -> None:
    message = mailed(server, "tickets", ticketed(25))
    kinds = [part.get_content_type() for part in parts(message)]
    assert kinds.count("image/png") == 20
    assert "The other 5 tickets are in the attached PDF" in text_of(message, "html")
    assert text_of(message).count("Ticket ") == 25


def test_queries_do_not_grow_with_the_number_of_tickets(server: MailServer) -> None:
    counts = []
    for quantity in (1, 30):
        order = ticketed(quantity, slug=f"concert-{quantity}")
        outbox.stage("tickets", key=f"t:{quantity}", to="ada@example.org", order=order)
        db.session.commit()
        db.session.remove()
        with queries.recorded() as statements:
            assert outbox.deliver_due(only=f"t:{quantity}").sent == 1
        counts.append(len(statements))
    assert counts[0] == counts[1] <= 10


# --- The others -----------------------------------------------------------------------------------------


def test_an_order_received_asks_to_keep_the_link(server: MailServer) -> None:
    text = text_of(mailed(server, "order_received", place(make_event(), 2)))
    for said in ("waiting for its payment", "Your tickets come by mail", "Keep this mail.", "Total: €50.00"):
        assert said in text, said


def test_a_top_up_received_speaks_of_no_tickets(server: MailServer) -> None:
    order = placing.place_top_up(make_user("ada@example.org"), 5000)
    assert "ticket" not in text_of(mailed(server, "order_received", order)).lower()


def test_a_failed_payment_says_why_and_how_to_try_again(server: MailServer) -> None:
    order = place(make_event())
    text = text_of(mailed(server, "payment_failed", order, code="card_expired"))
    for said in (
        "We are sorry",
        "The card has expired. Use another one.",
        "To try again",
        urls.order(order),
        "help@example.org",
    ):
        assert said in text, said
    assert "reason we were given" not in text_of(mailed(server, "payment_failed", order))


def refund_of(order: Order, amount_minor: int, void: list[int], provider: str = "stripe") -> Refund:
    payment = order.payments[0] if order.payments else None
    if payment is None:
        payment = Payment(order=order, attempt=1, reference="ref", idempotency_key="key", params={})
    payment.provider, payment.state, payment.paid_at = provider, PaymentState.PAID, clock.now()
    payment.next_check_at = None
    refund = Refund(
        payment=payment,
        amount_minor=amount_minor,
        currency=order.currency,
        state=RefundState.SUCCEEDED,
        idempotency_key="refund-key",
        void_ticket_ids=void,
        created_at=clock.now(),
    )
    db.session.add(refund)
    db.session.commit()
    return refund


def test_a_refund_says_how_much_which_tickets_end_and_when_the_money_comes(server: MailServer) -> None:
    order = ticketed(2)
    ended, left = order.tickets
    refund = refund_of(order, 2500, [ended.id])
    context = {"amount_minor": 2500, "currency": "EUR", "refund_id": refund.id, "full": False}
    text = text_of(mailed(server, "refund", order, **context))
    assert "We have refunded €25.00" in text and "a part of the €50.00" in text
    assert "5 to 10 working days" in text
    no_longer, still = text.split("Still valid:")
    assert codes.show(ended.code) in no_longer.split("No longer valid:")[1]
    assert codes.show(left.code) in still
    full = text_of(mailed(server, "refund", order, **(context | {"full": True})))
    assert "all that was paid" in full


def test_a_refund_to_the_wallet_is_there_at_once(server: MailServer) -> None:
    order = ticketed(1)
    refund = refund_of(order, 2500, [], provider="wallet")
    context = {"amount_minor": 2500, "currency": "EUR", "refund_id": refund.id, "full": True}
    text = text_of(mailed(server, "refund", order, **context))
    assert "It is back in your wallet now." in text and "working days" not in text


def test_a_top_up_says_how_much(server: MailServer) -> None:
    order = placing.place_top_up(make_user("ada@example.org"), 5000)
    text = text_of(mailed(server, "top_up", order))
    assert "AED" in text and "50.00 has been added to your wallet" in text
    assert "http://localhost/wallet/" in text
    other = text_of(mailed(server, "top_up", order, amount_minor=1000, currency="EUR"))
    assert "€10.00 has been added" in other


def test_links_of_an_account_s_mails_are_whole(server: MailServer) -> None:
    link = "http://localhost/account/reset/" + "x" * 120 + "?a=1&b=2"
    message = mailed(server, "reset_password", link=link)
    assert link in text_of(message)
    assert f'href="{link.replace("&", "&amp;")}"' in text_of(message, "html")


@pytest.mark.parametrize("name", ["Win at www.evil.example", "https://evil.example", "evil.example"])
def test_a_stranger_s_name_is_no_link_in_somebody_s_mail(server: MailServer, name: str) -> None:
    """Anybody can type anybody's address, and get a mail of ours sent there."""
    # As rows of other times are; such a name is not taken any more.
    order = place(make_event())
    order.name = name
    db.session.commit()
    text = text_of(mailed(server, "order_received", order))
    assert "evil" not in text
