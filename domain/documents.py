"""Documents made from an order: QR codes, the tickets' PDF, the calendar file. Nothing is written anywhere.

A page is laid out by WeasyPrint, which costs more than anything else Kassa does, so what can be made once
is made once: the stylesheet, the font configuration, a QR picture of one pixel for each module.
"""

from __future__ import annotations

import base64
import gc
import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import segno
from icalendar import Calendar
from icalendar import Event as CalendarEvent
from PIL import Image

import config
from domain import logo, rendering, tickets
from domain.errors import DomainError
from models import Event, EventState, Order, Ticket, TicketState

# The encoder would try all eight masks and keep the prettiest; any of them can be read.
_MASK = 3
_QUIET_ZONE = 4
# WeasyPrint's font configuration is shared, and is not made for two threads at once.
_drawing = Lock()


# --- QR codes -------------------------------------------------------------------------------------------


def _qr(text: str) -> segno.QRCode:
    return segno.make_qr(text, error="m", mask=_MASK, boost_error=False)


def qr_png(text: str, *, scale: int = 8) -> bytes:
    """A PNG of `scale` pixels a module, with the quiet zone that readers need."""
    out = io.BytesIO()
    _qr(text).save(out, kind="png", scale=scale, border=_QUIET_ZONE)
    return out.getvalue()


def qr_data_uri(text: str, *, scale: int = 8) -> str:
    """The PNG as an address for `<img src>`. With `scale=1` the page says `image-rendering: pixelated`."""
    return "data:image/png;base64," + base64.b64encode(qr_png(text, scale=scale)).decode()


def _qr_for_pdf(text: str) -> str:
    """One pixel for each module, in 8-bit grey: WeasyPrint turns pictures of two tones into colours."""
    rows = _qr(text).matrix_iter(border=_QUIET_ZONE)
    grey = [bytes(0 if dark else 255 for dark in row) for row in rows]
    out = io.BytesIO()
    Image.frombytes("L", (len(grey[0]), len(grey)), b"".join(grey)).save(out, "png")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def qr_svg(text: str) -> str:
    """An `<svg>` of one path that takes the size of its box; black on white, quiet zone included."""
    return _qr(text).svg_inline(
        border=_QUIET_ZONE, light="#fff", omitsize=True, svgclass=None, lineclass=None
    )


# --- The tickets' PDF -----------------------------------------------------------------------------------


def tickets_pdf(order: Order) -> bytes:
    """The order's valid tickets, one on each A4 page. DomainError when it has none."""
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
        order_url=f"{config.get().public_url}/o/{order.code}/{order.secret}",
        logo=logo.data_uri(),
    )
    with _drawing, _no_garbage_collection():
        return _draw(html)


def _shown(ticket: Ticket, order: Order, prices: dict[int, int]) -> dict[str, Any]:
    return {
        "number": ticket.number,
        "code": ticket.code,
        "holder": ticket.holder,
        "type": ticket.ticket_type.name,
        "price_minor": prices[ticket.order_line_id],
        "qr": _qr_for_pdf(tickets.qr_text(ticket, order.code)),
    }


def _draw(html: str) -> bytes:
    from weasyprint import HTML

    style, fonts, fetcher = _tools()
    pdf: bytes = HTML(string=html, url_fetcher=fetcher).write_pdf(stylesheets=[style], font_config=fonts)
    return pdf


@cache
def _tools() -> tuple[Any, Any, Any]:
    """The stylesheet, the fonts, and a fetcher that opens no file and no connection: pictures come inside.

    WeasyPrint takes most of a second to import, so only a process that draws pays for it.
    """
    from weasyprint import CSS
    from weasyprint.text.fonts import FontConfiguration
    from weasyprint.urls import URLFetcher

    fonts = FontConfiguration()
    css = (config.ROOT / "templates" / "pdf" / "tickets.css").read_text()
    return CSS(string=css, font_config=fonts), fonts, URLFetcher(allowed_protocols=["data"])


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
    public_url = config.get().public_url
    if isinstance(subject, Order):
        url = f"{public_url}/o/{subject.code}/{subject.secret}"
        description = f"Order {subject.code}. Your tickets: {url}"
    else:
        url = f"{public_url}/events/{event.slug}"
        description = f"{event.description}\n\n{url}".strip()
    entry = CalendarEvent()
    entry.add("uid", f"event-{event.id}@{urlsplit(public_url).hostname}")
    entry.add("dtstamp", event.updated_at)
    entry.add("sequence", int(event.updated_at.timestamp()) - int(event.created_at.timestamp()))
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
