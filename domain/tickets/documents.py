"""Documents made from an order: QR codes, the tickets' PDF, the calendar file. Nothing is written anywhere.

A page is laid out by WeasyPrint, which costs more than anything else Kassa does, so what can be made once
is made once, and QR codes go in with one pixel for each module.
"""

from __future__ import annotations

import base64
import gc
import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import qrcode
from icalendar import Calendar
from icalendar import Event as CalendarEvent
from PIL import Image
from qrcode.constants import ERROR_CORRECT_M

import config
from domain import rendering, urls
from domain.errors import DomainError
from domain.tickets import fonts, issuing, logo
from models import Event, EventState, Order, Ticket, TicketState

# The encoder would try all eight masks and keep the prettiest; any of them can be read.
_MASK = 3
_QUIET_ZONE = 4
# WeasyPrint's font configuration is shared, and is not made for two threads at once.
_drawing = Lock()


# --- QR codes -------------------------------------------------------------------------------------------


def qr_png(text: str, *, scale: int = 8) -> bytes:
    """A black and white PNG of `scale` pixels a module, with the quiet zone that readers need."""
    small = _qr(text)
    large = small.resize((small.width * scale, small.height * scale), Image.Resampling.NEAREST)
    return _png(large.convert("1"))


def qr_data_uri(text: str, *, scale: int = 8) -> str:
    """The PNG as an address for `<img src>`. With `scale=1` a page says `image-rendering: pixelated`."""
    return _data_uri(qr_png(text, scale=scale))


@lru_cache(maxsize=1024)
def _qr(text: str) -> Image.Image:
    """The code in 8-bit grey, one pixel for each module; not to be changed.

    Encoding costs more than anything else on an order page, and a mail shows each code twice.
    """
    code = qrcode.QRCode(error_correction=ERROR_CORRECT_M, border=_QUIET_ZONE, mask_pattern=_MASK)
    code.add_data(text, optimize=0)
    code.make(fit=True)
    rows = code.get_matrix()
    return Image.frombytes(
        "L", (len(rows), len(rows)), bytes(0 if dark else 255 for row in rows for dark in row)
    )


def _png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "png")
    return out.getvalue()


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


# --- The tickets' PDF -----------------------------------------------------------------------------------


def tickets_pdf(order: Order) -> bytes:
    """The order's valid tickets, one on each A4 page. DomainError when it has none.

    The order's secret link is left out: a PDF is passed on to those who come along.
    """
    valid = [ticket for ticket in order.tickets if ticket.state is TicketState.VALID]
    if order.event is None or not valid:
        raise DomainError("no_tickets", f"Order {order.code} has no valid tickets to print.")
    prices = {line.id: line.unit_minor for line in order.lines}
    html = rendering.render(
        "pdf/tickets.html",
        order=order,
        event=order.event,
        tickets=[_shown(ticket, order, prices) for ticket in valid],
        count=len(order.tickets),
        logo=logo.data_uri(),
    )
    with _drawing, _no_garbage_collection():
        return _draw(html)


def pdf_name(order: Order) -> str:
    """What the PDF's file is called."""
    return f"{'entry' if order.is_entry else 'tickets'}-{order.code}.pdf"


def _shown(ticket: Ticket, order: Order, prices: dict[int, int]) -> dict[str, Any]:
    return {
        "number": ticket.number,
        "code": ticket.code,
        "holder": ticket.holder,
        "type": ticket.ticket_type.name,
        "price_minor": prices[ticket.order_line_id],
        # In grey: WeasyPrint would turn a picture of two tones into a larger one in colours.
        "qr": _data_uri(_png(_qr(issuing.qr_text(ticket, order.code)))),
    }


def _draw(html: str) -> bytes:
    style, found, fetcher = _tools()
    from weasyprint import HTML

    pdf: bytes = HTML(string=html, url_fetcher=fetcher).write_pdf(stylesheets=[style], font_config=found)
    return pdf


@cache
def _tools() -> tuple[Any, Any, Any]:
    """The stylesheet, the fonts, and a fetcher that opens no file and no connection: pictures come inside.

    WeasyPrint takes most of a second to import, so only a process that draws pays for it.
    """
    fonts.prepare()
    from weasyprint import CSS
    from weasyprint.text.fonts import FontConfiguration
    from weasyprint.urls import URLFetcher

    found = FontConfiguration()
    css = (config.ROOT / "templates" / "pdf" / "tickets.css").read_text()
    return CSS(string=css, font_config=found), found, URLFetcher(allowed_protocols=["data"])


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Laying out makes many objects that live until the page is drawn: collecting meanwhile finds nothing."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


# --- The calendar file ----------------------------------------------------------------------------------


def calendar(subject: Order | Event) -> bytes:
    """An iCalendar file with the event of an order, or with an event; a later one replaces it in a calendar.

    DomainError for an order without an event.
    """
    event = subject.event if isinstance(subject, Order) else subject
    if event is None:
        raise DomainError("no_event", "This order is not for an event.")
    public_url, url = config.get().public_url, urls.event(event)
    description = f"{event.description}\n\n{url}".strip()
    if isinstance(subject, Order):
        # Calendars are shared with colleagues and copied to other services: the order's link is its secret.
        what = "The code for the door is" if subject.is_entry else "Your tickets are"
        again = f"{public_url}/tickets/find sends {'it' if subject.is_entry else 'them'} once more."
        description = f"Order {subject.code}. {what} in your mail. {again}"
    entry = CalendarEvent()
    entry.add("uid", f"event-{event.id}@{urlsplit(public_url).hostname}")
    entry.add("dtstamp", event.updated_at)
    # It rises with every change, and with each move even within one second.
    age = int(event.updated_at.timestamp()) - int(event.created_at.timestamp())
    entry.add("sequence", age + event.calendar_sequence)
    entry.add("dtstart", event.starts_at)
    entry.add("dtend", event.ends_at)
    entry.add("summary", event.title)
    entry.add("location", ", ".join(part for part in (event.venue, event.address) if part))
    entry.add("description", description)
    entry.add("url", url)
    entry.add("status", "CANCELLED" if event.state is EventState.CANCELLED else "CONFIRMED")
    return _calendar_of(entry)


def _calendar_of(entry: CalendarEvent) -> bytes:
    whole = Calendar()
    whole.add("prodid", f"-//{config.get().site_name}//Kassa//EN")
    whole.add("version", "2.0")
    whole.add("method", "PUBLISH")
    whole.add_component(entry)
    content: bytes = whole.to_ical()
    return content
