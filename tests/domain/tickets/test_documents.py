"""Documents as their reader has them: pages drawn, codes scanned from them, calendars parsed."""

from __future__ import annotations

import gc
import io
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import icalendar
import pytest
import zxingcpp
from flask import Flask
from PIL import Image
from pypdf import PdfReader

import config
from domain import codes, urls
from domain.errors import DomainError
from domain.tickets import documents, issuing, logo
from extensions import db
from models import EventState, Order, TicketState
from tests.support.shop import make_event, place
from tests.support.threads import at_once

LONG = "Очень длинное название концерта с хором — ليلة الموسيقى العربية "


def ticketed(quantity: int = 1, **more: Any) -> Order:
    order = place(make_event(limit=100, capacity=200, **more), quantity)
    if not order.tickets:  # A free order has its own already.
        issuing.issue(order)
    db.session.commit()
    return order


def pages(pdf: bytes, folder: Path, dpi: int = 100) -> list[Image.Image]:
    """The pages as a screen or a printer shows them."""
    (folder / "it.pdf").write_bytes(pdf)
    subprocess.run(["pdftoppm", "-r", str(dpi), "-png", "it.pdf", "page"], cwd=folder, check=True, timeout=60)
    return [Image.open(path) for path in sorted(folder.glob("page*.png"))]


def codes_on(image: Image.Image) -> list[str]:
    return [found.text for found in zxingcpp.read_barcodes(image)]


# --- QR codes -------------------------------------------------------------------------------------------


def test_a_code_is_read_back_at_every_size(app: Flask) -> None:
    order = ticketed()
    text = issuing.qr_text(order.tickets[0], order.code)
    for scale in (2, 4, 8):
        png = documents.qr_png(text, scale=scale)
        assert codes_on(Image.open(io.BytesIO(png))) == [text]
        assert len(png) < 1000
    assert documents.qr_data_uri(text).startswith("data:image/png;base64,")


# --- The PDF --------------------------------------------------------------------------------------------


def test_each_ticket_has_a_page_whose_code_admits(app: Flask, tmp_path: Path) -> None:
    order = ticketed(3)
    pdf = documents.tickets_pdf(order)
    drawn = pages(pdf, tmp_path)
    assert len(drawn) == 3
    for page, ticket in zip(drawn, order.tickets, strict=True):
        (text,) = codes_on(page)
        claim = issuing.read(text)
        assert (claim.kind, claim.number, claim.code) == (
            issuing.ClaimKind.GENUINE,
            ticket.number,
            ticket.code,
        )


def test_a_code_can_be_scanned_from_a_phone_that_shows_the_whole_page(app: Flask, tmp_path: Path) -> None:
    order = ticketed()
    (page,) = pages(documents.tickets_pdf(order), tmp_path, dpi=48)
    assert page.width < 400
    assert codes_on(page) == [issuing.qr_text(order.tickets[0], order.code)]


def test_a_page_says_what_when_where_who_and_which(app: Flask) -> None:
    order = ticketed(
        2,
        title="Brass Night",
        venue="Opera House",
        address="Gloucester Street",
        starts_at=datetime(2027, 7, 1, 18, 30, tzinfo=UTC),
        ends_at=datetime(2027, 7, 1, 22, 0, tzinfo=UTC),
    )
    reader = PdfReader(io.BytesIO(documents.tickets_pdf(order)))
    text = reader.pages[1].extract_text()
    for said in (
        "Brass Night",
        "Thursday 1 July 2027",
        "19:30 – 23:00 (Jersey time)",
        "Opera House",
        "Gloucester Street",
        "Standard",
        "Ada Buyer",
        "€25.00",
        order.code,
        codes.show(order.tickets[1].code),
        "Ticket 2 of 2",
        config.get().site_name,
        "help@example.org",
        "http://localhost/terms",
    ):
        assert said in text, said
    assert (
        reader.metadata is not None and reader.metadata.title == f"Brass Night: tickets of order {order.code}"
    )
    assert reader.pages[0].mediabox[2:] == pytest.approx([595.28, 841.89], abs=0.1)  # A4


def test_a_free_ticket_and_an_event_over_midnight(app: Flask) -> None:
    order = ticketed(
        price_minor=0,
        starts_at=datetime(2027, 1, 1, 22, 0, tzinfo=UTC),
        ends_at=datetime(2027, 1, 2, 2, 0, tzinfo=UTC),
    )
    text = PdfReader(io.BytesIO(documents.tickets_pdf(order))).pages[0].extract_text()
    assert "Free" in text
    assert "22:00 – Saturday 2 January, 02:00" in text


@pytest.mark.parametrize("hours", [2, 6])
def test_no_text_however_long_needs_a_second_page(app: Flask, tmp_path: Path, hours: int) -> None:
    """Nor a date: of an event that ends on another day, it takes three lines."""
    starts = datetime(2030, 9, 25, 20, 30, tzinfo=UTC)
    when = {"starts_at": starts, "ends_at": starts + timedelta(hours=hours)}
    texts = {"title": (LONG * 4)[:200], "venue": (LONG * 4)[:200], "address": (LONG * 5)[:300]}
    order = ticketed(2, **texts, **when)
    for ticket in order.tickets:
        ticket.holder = (LONG * 4)[:200]
        ticket.ticket_type.name = (LONG * 2)[:100]
    drawn = pages(documents.tickets_pdf(order), tmp_path)
    assert [codes_on(page) for page in drawn] == [
        [issuing.qr_text(ticket, order.code)] for ticket in order.tickets
    ]


@pytest.mark.parametrize("title", ["W" * 200, "Ω" * 36, "x<script>&amp;", "\u202e reversed", "Fjögur “lög”"])
def test_titles_that_are_hard_to_set(app: Flask, tmp_path: Path, title: str) -> None:
    drawn = pages(documents.tickets_pdf(ticketed(title=title)), tmp_path)
    assert len(drawn) == 1
    assert len(codes_on(drawn[0])) == 1


def test_only_valid_tickets_are_printed(app: Flask, tmp_path: Path) -> None:
    order = ticketed(3)
    issuing.void(order.tickets[:1], "refunded")
    issuing.suspend(order.tickets[1:2], "disputed")
    assert [codes_on(page) for page in pages(documents.tickets_pdf(order), tmp_path)] == [
        [issuing.qr_text(order.tickets[2], order.code)]
    ]
    issuing.void(order.tickets, "refunded")
    with pytest.raises(DomainError, match="no valid tickets"):
        documents.tickets_pdf(order)


def test_a_large_order_stays_small(app: Flask) -> None:
    order = ticketed(10)
    sizes = [len(documents.tickets_pdf(ticketed(slug="one"))), len(documents.tickets_pdf(order))]
    assert sizes[0] < 15_000
    assert sizes[1] < 40_000
    assert order.tickets[0].state is TicketState.VALID


def test_many_can_draw_at_once(app: Flask, tmp_path: Path) -> None:
    ids = [ticketed(slug=f"concert-{number}").id for number in range(4)]

    def draw(number: int) -> bytes:
        return documents.tickets_pdf(db.session.get_one(Order, ids[number]))

    for number, pdf in enumerate(at_once(app, 4, draw)):
        assert isinstance(pdf, bytes)
        order = db.session.get_one(Order, ids[number])
        (page,) = pages(pdf, tmp_path)
        assert codes_on(page) == [issuing.qr_text(order.tickets[0], order.code)]


def test_drawing_leaves_the_garbage_collector_as_it_was(app: Flask) -> None:
    order = ticketed()
    documents.tickets_pdf(order)
    assert gc.isenabled()
    gc.disable()
    try:
        documents.tickets_pdf(order)
        assert not gc.isenabled()
    finally:
        gc.enable()


# --- The logo -------------------------------------------------------------------------------------------


@pytest.fixture
def fresh_logo() -> Iterator[None]:
    logo._kept.url = ""
    yield
    logo._kept.url = ""


def test_a_logo_of_the_site_s_own_files_is_drawn(app: Flask, fresh_logo: None) -> None:
    order = ticketed()
    plain = documents.tickets_pdf(order)
    config.use(replace(config.get(), logo_url="/static/favicon.svg"))
    assert logo.data_uri().startswith("data:image/svg+xml;base64,")
    with_logo = documents.tickets_pdf(order)
    assert len(with_logo) > len(plain)
    assert config.get().site_name not in PdfReader(io.BytesIO(with_logo)).pages[0].extract_text()


def test_a_logo_elsewhere_is_fetched_once(
    app: Flask, fresh_logo: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def get(url: str, **options: object) -> httpx.Response:
        calls.append(url)
        return httpx.Response(200, content=b"\x89PNG", request=httpx.Request("GET", url))

    monkeypatch.setattr(httpx, "get", get)
    config.use(replace(config.get(), logo_url="https://example.org/logo.png"))
    assert logo.data_uri() == logo.data_uri() == "data:image/png;base64,iVBORw=="
    assert calls == ["https://example.org/logo.png"]


@pytest.mark.parametrize(
    "url", ["/static/../config.py", "/static/none.png", "/static/css/kassa.css", "http://127.0.0.1:9/x.png"]
)
def test_a_logo_that_cannot_be_had_is_left_out(app: Flask, fresh_logo: None, url: str) -> None:
    config.use(replace(config.get(), logo_url=url))
    assert logo.data_uri() == ""
    assert documents.tickets_pdf(ticketed())


# --- The calendar file ----------------------------------------------------------------------------------


def entry_of(content: bytes) -> Any:
    (entry,) = icalendar.Calendar.from_ical(content).walk("VEVENT")
    return entry


def test_an_order_s_calendar_file(app: Flask) -> None:
    order = ticketed(title="Brass; Night, part 2", venue="Opera House", address="Gloucester Street")
    assert order.event is not None
    entry = entry_of(documents.calendar(order))
    assert entry["SUMMARY"] == "Brass; Night, part 2"
    assert entry["LOCATION"] == "Opera House, Gloucester Street"
    assert entry["URL"] == urls.event(order.event)
    assert order.code in entry["DESCRIPTION"] and "/tickets/find" in entry["DESCRIPTION"]
    assert entry["STATUS"] == "CONFIRMED"
    assert entry["UID"] == f"event-{order.event_id}@localhost"
    assert entry.decoded("DTSTART") == order.event.starts_at.replace(microsecond=0)
    assert entry.decoded("DTEND") == order.event.ends_at.replace(microsecond=0)
    assert documents.calendar(order) == documents.calendar(order)


def test_a_cancelled_event_replaces_its_entry_in_a_calendar(app: Flask) -> None:
    event = make_event(description="Two hours of brass.")
    before = entry_of(documents.calendar(event))
    assert "Two hours of brass." in before["DESCRIPTION"]
    assert before["URL"] == "http://localhost/events/concert"
    event.state = EventState.CANCELLED
    event.updated_at = event.updated_at.replace(year=event.updated_at.year + 1)
    after = entry_of(documents.calendar(event))
    assert (after["UID"], after["STATUS"]) == (before["UID"], "CANCELLED")
    assert after["SEQUENCE"] > before["SEQUENCE"]


def test_an_order_without_an_event_has_no_calendar_file(app: Flask) -> None:
    order = Order(code="ORD-X", event=None)
    with pytest.raises(DomainError):
        documents.calendar(order)
    with pytest.raises(DomainError):
        documents.tickets_pdf(order)
