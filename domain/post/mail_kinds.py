"""What each kind of mail says: its subject, its template pair in templates/mail/, its pictures and files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, select
from sqlalchemy.orm import joinedload, selectinload

import config
from domain import names, rendering, urls
from domain.catalogue import availability
from domain.post.transport import Attachment, Letter
from domain.providers import failure_reasons, registry
from domain.tickets import documents, issuing
from extensions import db
from models import (
    Event,
    EventState,
    LineKind,
    Order,
    OrderLine,
    OutboxMail,
    Payment,
    Refund,
    Ticket,
    TicketState,
    User,
)

Context = dict[str, Any]
# The method is the one that the file itself names; some readers believe this one only.
_CALENDAR = "text/calendar; charset=utf-8; method=PUBLISH"
# Larger orders show the first codes in the mail; the PDF has them all.
_MOST_INLINE = 20


@dataclass(frozen=True)
class _Said:
    """A kind's subject, what its templates need besides the common things, and its files."""

    subject: str
    context: Context
    files: tuple[Attachment, ...] = ()
    # Its templates, where they are not those of the kind.
    template: str = ""


def compose(mail: OutboxMail) -> Letter:
    """The letter for a row of the outbox, from what the database says now. Only reads."""
    order = _order(mail) if mail.order_id is not None else None
    user = db.session.get(User, mail.user_id) if mail.user_id is not None else None
    said = _SAY[mail.kind](mail, order)
    template = said.template or mail.kind
    context: Context = {
        "subject": said.subject,
        "order": order,
        # An order for a listing fee has an event, and no tickets that the mails speak of where there is one.
        "event": order.event if order is not None and order.sells_tickets else None,
        # An order for an athlete's place, whose mails speak of the entry and not of tickets.
        "entry": _entry(order),
        "order_url": urls.order(order) if order is not None else "",
        "name": _name(order, user),
        "reason": "",
        **mail.context,
        **said.context,
    }
    return Letter(
        to=mail.to,
        subject=said.subject,
        text=rendering.render(f"mail/{template}.txt", **context).strip() + "\n",
        html=rendering.render(f"mail/{template}.html", **context),
        message_id=mail.message_id,
        date=mail.created_at,
        attachments=said.files,
    )


# Made once. An order's lines are few, so they come with it; its tickets only where a mail names them.
_ORDER = (
    select(Order)
    .where(Order.id == bindparam("order_id"))
    .options(joinedload(Order.event), joinedload(Order.lines).joinedload(OrderLine.ticket_type))
    .execution_options(populate_existing=True)
)
_ORDER_WITH_TICKETS = _ORDER.options(selectinload(Order.tickets).joinedload(Ticket.ticket_type))
_NAMES_TICKETS = ("tickets", "refund", "refund_failed", "dispute_lost")


def _order(mail: OutboxMail) -> Order:
    """The order with all that a mail or a PDF shows, in a number of queries that does not grow with it."""
    query = _ORDER_WITH_TICKETS if mail.kind in _NAMES_TICKETS else _ORDER
    return db.session.scalars(query, {"order_id": mail.order_id}).unique().one()


def _name(order: Order | None, user: User | None) -> str:
    """Whom to greet, or an empty text: a buyer's name is mailed to an address that anybody may type.

    So a name that carries an address of the web, as rows of other times do, is not repeated.
    """
    name = (order.name if order is not None else "") or (user.name if user is not None else "")
    return "" if names.carries_address(name) else names.unlinked(name)


def _what(order: Order | None) -> str:
    """What an order is about, for a subject: the event's title, or its first line."""
    if order is None:
        return config.get().site_name
    event: Event | None = order.event if order.sells_tickets else None
    return event.title if event is not None else order.lines[0].description


def _entry(order: Order | None) -> OrderLine | None:
    """An athlete's place, where the order is for one."""
    lines = order.lines if order is not None else []
    return next((line for line in lines if line.kind is LineKind.TOURNAMENT_ENTRY), None)


def _code(order: Order | None) -> str:
    return order.code if order is not None else ""


# --- The kinds ------------------------------------------------------------------------------------------


def _order_received(mail: OutboxMail, order: Order | None) -> _Said:
    return _Said(f"Your order {_code(order)}: {_what(order)}", {})


def _tickets(mail: OutboxMail, order: Order | None) -> _Said:
    assert order is not None
    valid = [ticket for ticket in order.tickets if ticket.state is TicketState.VALID]
    shown, files = [], []
    for ticket in valid[:_MOST_INLINE]:
        content_id = f"ticket-{ticket.number}@{order.code.lower()}"
        picture = documents.qr_png(issuing.qr_text(ticket, order.code), scale=6)
        shown.append({"ticket": ticket, "content_id": content_id})
        files.append(Attachment(f"ticket-{ticket.number}.png", "image/png", picture, content_id))
    if valid:
        name = documents.pdf_name(order)
        files.append(Attachment(name, "application/pdf", documents.tickets_pdf(order)))
    if order.event is not None:
        files.append(Attachment("event.ics", _CALENDAR, documents.calendar(order)))
    noun = "ticket" if len(valid) == 1 else "tickets"
    context = {"valid": valid, "shown": shown, "noun": noun}
    whose = "Your entry in" if _entry(order) is not None else f"Your {noun} for"
    return _Said(f"{whose} {_what(order)} ({order.code})", context, tuple(files))


def _payment_failed(mail: OutboxMail, order: Order | None) -> _Said:
    return _off(order) or _Said(f"Your payment did not go through: order {_code(order)}", _reason(mail))


def _order_expired(mail: OutboxMail, order: Order | None) -> _Said:
    return _off(order) or _Said(f"Your order {_code(order)} has expired", _reason(mail))


def _order_cancelled(mail: OutboxMail, order: Order | None) -> _Said:
    return _off(order) or _Said(f"Your order {_code(order)} was cancelled", _reason(mail))


def _reason(mail: OutboxMail) -> Context:
    """Why an order ended, in our words: a provider's own are not for its buyer."""
    # A row that the version before wrote has words instead of a code.
    return {"reason": failure_reasons.words(mail.context.get("code", "")) or mail.context.get("reason", "")}


def _off(order: Order | None) -> _Said | None:
    """What whoever has not paid is told instead, where the event was cancelled: to pay again is no use."""
    event = order.event if order is not None and order.sells_tickets else None
    if event is None or event.state is not EventState.CANCELLED:
        return None
    return _Said(f"Cancelled: {event.title}", {}, template="event_cancelled_unpaid")


def _entry_withdrawn(mail: OutboxMail, order: Order | None) -> _Said:
    assert order is not None and order.event is not None
    bought = [payment for payment in order.payments if payment.fulfilled]
    context: Context = {
        "paid_minor": sum(payment.received_minor or 0 for payment in bought),
        "back_minor": sum(payment.asked_back_minor for payment in bought),
        "by_bank": any(dispute.has_money for payment in bought for dispute in payment.disputes),
        "admitted": bool(order.tickets),
        "event_url": urls.event(order.event),
    }
    return _Said(f"Withdrawn: the entry in {order.event.title} ({order.code})", context)


def _event_cancelled(mail: OutboxMail, order: Order | None) -> _Said:
    assert order is not None and order.event is not None
    context = {"refunding": order.event.refunding_since is not None}
    # It says so in the calendar that the ticket's own file had put it into.
    file = Attachment("event.ics", "text/calendar", documents.calendar(order))
    return _Said(f"Cancelled: {order.event.title}", context, (file,))


def _event_moved(mail: OutboxMail, order: Order | None) -> _Said:
    assert order is not None and order.event is not None
    event, was = order.event, mail.context["was"]
    before = Event(
        starts_at=datetime.fromisoformat(was["starts_at"]),
        ends_at=datetime.fromisoformat(was["ends_at"]),
        timezone=was["timezone"],
        venue=was["venue"],
        address=was["address"],
    )
    context = {"when": availability.say_span(event), "where": _place(event)}
    context |= {"when_before": availability.say_span(before), "where_before": _place(before)}
    file = Attachment("event.ics", _CALENDAR, documents.calendar(order))
    return _Said(f"Changed: {event.title}", context, (file,))


def _place(event: Event) -> str:
    return ", ".join(part for part in (event.venue, event.address) if part)


def _refund(mail: OutboxMail, order: Order | None) -> _Said:
    refund = db.session.get(Refund, mail.context["refund_id"]) if "refund_id" in mail.context else None
    payment: Payment | None = refund.payment if refund is not None else None
    void_ids = set(refund.void_ticket_ids) if refund is not None else set()
    tickets_of = order.tickets if order is not None else []
    context = {
        "full": mail.context.get(
            "full", order is not None and mail.context["amount_minor"] >= order.total_minor
        ),
        "void": [ticket for ticket in tickets_of if ticket.id in void_ids],
        "left": [
            ticket for ticket in tickets_of if ticket.state is TicketState.VALID and ticket.id not in void_ids
        ],
        "to_wallet": payment is not None and registry.get(payment.provider, payment.account).immediate,
    }
    return _Said(f"Your refund for order {_code(order)}", context)


def _refund_failed(mail: OutboxMail, order: Order | None) -> _Said:
    assert order is not None
    refund = db.session.get(Refund, mail.context["refund_id"]) if "refund_id" in mail.context else None
    chosen = set(refund.void_ticket_ids) if refund is not None else set()
    about = [ticket for ticket in order.tickets if ticket.id in chosen]
    context = {
        "left": [ticket for ticket in about if ticket.state is TicketState.VALID],
        "void": [ticket for ticket in about if ticket.state is TicketState.VOID],
        "to_wallet": mail.context.get("to_wallet", False),
    }
    return _Said(f"Your refund for order {order.code} did not get through", context)


def _dispute_lost(mail: OutboxMail, order: Order | None) -> _Said:
    assert order is not None
    context = {
        "left": [ticket for ticket in order.tickets if ticket.state is TicketState.VALID],
        "void": any(ticket.state is TicketState.VOID for ticket in order.tickets),
    }
    return _Said(f"Your bank has taken back what you paid for order {order.code}", context)


def _money_arrived(mail: OutboxMail, order: Order | None) -> _Said:
    context = {"kind": mail.context.get("kind", ""), "how": mail.context.get("how", "")}
    return _Said(f"Your payment for order {_code(order)} has arrived", context)


def _payment_unclear(mail: OutboxMail, order: Order | None) -> _Said:
    return _Said(f"We are looking for your payment: order {_code(order)}", _reason(mail))


def _money_decided(mail: OutboxMail, order: Order | None) -> _Said:
    return _Said(f"Your payment for order {_code(order)} was looked at", {})


def _top_up(mail: OutboxMail, order: Order | None) -> _Said:
    context: Context = {"wallet_url": f"{config.get().public_url}/wallet/"}
    if "amount_minor" not in mail.context and order is not None:
        context |= {"amount_minor": order.total_minor, "currency": order.currency}
    return _Said("Your wallet was topped up", context)


def _connection_broken(mail: OutboxMail, order: Order | None) -> _Said:
    url = f"{config.get().public_url}/organiser/connect/{mail.context['provider']}"
    return _Said(f"Please connect your {mail.context['label']} account again", {"connect_url": url})


def _organiser_approved(mail: OutboxMail, order: Order | None) -> _Said:
    labels = [own.label for own in map(registry.get, registry.names()) if own.connects]
    return _Said(f"You are an organiser at {config.get().site_name} now", {"connects": " or ".join(labels)})


def _listing_review(mail: OutboxMail, order: Order | None) -> _Said:
    assert order is not None and order.event is not None
    return _Said(f"“{order.event.title}” is off sale for now", _about_listing(order.event))


def _listing_decided(mail: OutboxMail, order: Order | None) -> _Said:
    assert order is not None and order.event is not None
    again = mail.context["state"] == EventState.PUBLISHED.value
    words = "is on sale again" if again else "was cancelled"
    return _Said(f"“{order.event.title}” {words}", {"again": again, **_about_listing(order.event)})


def _about_listing(event: Event) -> Context:
    base = config.get().public_url
    return {"event": event, "desk_url": f"{base}/organiser/events/{event.slug}"}


def _listing_live(mail: OutboxMail, order: Order | None) -> _Said:
    assert order is not None and order.event is not None
    base = config.get().public_url
    context: Context = {
        "event": order.event,
        "event_url": f"{base}/events/{order.event.slug}",
        "desk_url": f"{base}/organiser/",
    }
    return _Said(f"“{order.event.title}” is on sale", context)


def _plain(subject: str) -> Callable[[OutboxMail, Order | None], _Said]:
    """A kind whose words are all in its templates."""
    return lambda mail, order: _Said(subject.format(site=config.get().site_name), {})


def _alert(mail: OutboxMail, order: Order | None) -> _Said:
    return _Said(mail.context["subject"], {})


def _held_back(mail: OutboxMail, order: Order | None) -> _Said:
    return _Said(f"{mail.context['count']} messages from {config.get().site_name} in one", {})


def _line_place(mail: OutboxMail, order: Order | None) -> _Said:
    return _Said(f"Your place in the line: {mail.context['title']}", {})


def _line_turn(mail: OutboxMail, order: Order | None) -> _Said:
    return _Said(f"It is your turn: {mail.context['title']}", {})


def _line_on(mail: OutboxMail, order: Order | None) -> _Said:
    return _Said(f"The waiting line is on: {mail.context['title']}", {})


def about(mail: OutboxMail) -> str:
    """What a mail is about, in the words of its subject, for a line of a mail that joins several."""
    order: Order | None = mail.order
    if mail.kind == "tickets":
        # Its own subject is known only once its tickets are drawn.
        return f"Your tickets for {_what(order)} ({_code(order)})"
    return _SAY[mail.kind](mail, order).subject


_SAY: dict[str, Callable[[OutboxMail, Order | None], _Said]] = {
    "order_received": _order_received,
    "tickets": _tickets,
    "payment_failed": _payment_failed,
    "order_expired": _order_expired,
    "order_cancelled": _order_cancelled,
    "entry_withdrawn": _entry_withdrawn,
    "event_cancelled": _event_cancelled,
    "event_moved": _event_moved,
    "refund": _refund,
    "refund_failed": _refund_failed,
    "dispute_lost": _dispute_lost,
    "money_arrived": _money_arrived,
    "payment_unclear": _payment_unclear,
    "money_decided": _money_decided,
    "top_up": _top_up,
    "held_back": _held_back,
    "line_place": _line_place,
    "line_turn": _line_turn,
    "line_on": _line_on,
    "order_links": _plain("Your orders at {site}"),
    "confirm_address": _plain("Confirm your address at {site}"),
    "reset_password": _plain("Choose a new password for {site}"),
    "login_code": _plain("Your code to log in to {site}"),
    "password_changed": _plain("Your password at {site} was changed"),
    "second_factor_changed": _plain("Your second factor at {site} was changed"),
    "second_factor_reset": _plain("A second factor at {site} was taken away"),
    "api_key_made": _plain("An API key was made in your account at {site}"),
    "already_registered": _plain("You already have an account at {site}"),
    "listing_live": _listing_live,
    "listing_review": _listing_review,
    "listing_decided": _listing_decided,
    "connection_broken": _connection_broken,
    "desk_given": _plain("You may answer buyers for an organiser at {site}"),
    "erasure_asked": _plain("You have asked {site} to forget you"),
    "erasure_done": _plain("{site} has forgotten you"),
    "new_admin": _plain("Somebody became an admin of {site}"),
    "organiser_applied": _plain("We have your application to {site}"),
    "organiser_approved": _organiser_approved,
    "organiser_rejected": _plain("Your application to {site}"),
    "organiser_suspended": _plain("Your sales at {site} are stopped"),
    "alert": _alert,
    "test": _plain("Test mail from {site}"),
}
KINDS = frozenset(_SAY)
