"""The public pages: what is on, an event with its one form, finding tickets again, the operator's texts."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from flask import Blueprint, Response, flash, redirect, render_template, request, url_for
from werkzeug.datastructures import MultiDict
from werkzeug.wrappers import Response as BaseResponse

from blueprints.shop import order_page
from blueprints.visitor import form_token, signed_in
from domain import addresses, money, site_texts
from domain.catalogue import events, front_page, pictures
from domain.catalogue.availability import Sale, Selling, say_span
from domain.catalogue.prices import PriceChanged, tag
from domain.errors import DomainError
from domain.orders import line_turns, managing, placing, waiting_line
from domain.payments.fulfilment import SoldOut
from domain.people import organisers
from domain.tickets import documents
from extensions import limiter
from models import Event, LinePlace

bp = Blueprint("shop", __name__)

_PRICE = "price-"
# By network address generously: a whole school may buy from behind one.
_BUYS_BY_ADDRESS = "600 per minute"
# How often one recipient is mailed is its budget's business, which refuses nobody.
_FINDS_BY_ADDRESS = "300 per hour"
# Which field a refusal of the domain is shown beside; everything else is about the order as a whole.
_FIELDS = {"name_missing": "name", "name_too_long": "name", "name_strange": "name", "email_invalid": "email"}


@bp.get("/")
def index() -> str:
    return render_template("shop/index.html", listings=front_page.upcoming())


@bp.get("/events/<slug>")
def event(slug: str) -> BaseResponse:
    found = visible(slug)
    if found.is_tournament:
        return redirect(found.path)
    return event_page(found)


@bp.post("/events/<slug>")
@limiter.limit(_BUYS_BY_ADDRESS)
def buy(slug: str) -> BaseResponse:
    found = visible(slug)
    if found.is_tournament:
        return redirect(found.path, 303)
    selling, in_line = events.selling(found), found.has_line
    if not selling.is_open:
        return _event_page(found, selling, request.form, {}, 409)
    errors = _buyer_errors(request.form)
    quantities = _quantities(selling, request.form, errors)
    if errors:
        return _event_page(found, selling, request.form, errors, 400)
    try:
        order = placing.place(
            found,
            quantities,
            name=request.form["name"],
            email=request.form["email"],
            user=signed_in(),
            provider=request.form.get("provider") or None,
            form_token=form_token(),
            client_address=request.remote_addr or "",
            shown=_prices_shown(request.form),
            turn=request.form.get("place", ""),
        )
    except DomainError as error:
        if error.code == "line_share":
            waiting_line.back_to_front(visible(slug), request.form.get("place", ""))
        return refused(slug, error)
    # In a line nothing is asked of the provider before its buyer goes on to pay.
    return redirect(order.path if in_line else order_page.onward(order), 303)


@bp.get("/events/<slug>/calendar.ics")
def event_calendar(slug: str) -> Response:
    found = visible(slug)
    return order_page.attachment(documents.calendar(found), "text/calendar; charset=utf-8", f"{slug}.ics")


@bp.get("/pictures/<sha256>")
def picture(sha256: str) -> Response:
    # The address is the content's hash, so whatever a browser has kept under it is still right.
    if request.if_none_match.contains(sha256):
        response = Response(status=304)
    else:
        found = pictures.find(sha256)
        response = Response(found.data, content_type=found.content_type)
    response.set_etag(sha256)
    response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
    # Posters are for everybody, on other sites, too.
    response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    return response


@bp.get("/tickets/find")
def find() -> str:
    return render_template("shop/find.html", typed="", error="")


@bp.post("/tickets/find")
@limiter.limit(_FINDS_BY_ADDRESS)
def send_links() -> tuple[str, int] | BaseResponse:
    typed = request.form.get("email", "").strip()
    try:
        managing.mail_links(typed)
    except DomainError as error:
        return render_template("shop/find.html", typed=typed, error=error.message), 400
    flash(
        f"If {addresses.shown(typed)} has bought anything here, a mail with its links is on its way.",
        "success",
    )
    return redirect(url_for("shop.find"), 303)


@bp.get("/<any(terms, privacy, contact, consent):slug>")
def page(slug: str) -> str:
    return render_template("shop/page.html", page=site_texts.read(slug))


def visible(slug: str) -> Event:
    """The event at this address; a draft only for those who run it."""
    found, user = events.event(slug, drafts=True), signed_in()
    return found if user is not None and organisers.may_manage(user, found) else events.published(found)


def event_page(event: Event, *, place: LinePlace | None = None) -> Response:
    """The event's page, with what is known of who looks at it; in their turn for a place in the line."""
    user = signed_in()
    typed = {"name": user.name, "email": addresses.shown(user.email)} if user is not None else {}
    if place is not None:
        typed |= {"email": addresses.shown(place.email), "place": place.secret}
    return _event_page(event, events.selling(event), typed, {}, 200)


def _event_page(
    event: Event, selling: Selling, typed: Mapping[str, str], errors: dict[str, str], status: int
) -> Response:
    turn = waiting_line.turn_of(event, typed.get("place", ""))
    html = render_template(
        "shop/event.html",
        event=event,
        selling=selling,
        ways=events.ways_to_pay(event, signed_in()) if selling.costs_money else (),
        typed=typed,
        errors=errors,
        span=say_span(event),
        decimals=money.decimals(event.currency),
        price_tag=tag,
        form_token=secrets.token_urlsafe(16),
        place=typed.get("place", ""),
        turn=turn,
        third_of=line_turns.third_of if event.has_line and turn is not None else None,
        # Also while others hold all that is left: then most of all the line is of use.
        waits=event.has_line and turn is None and selling.state in (Sale.OPEN, Sale.ALL_HELD),
    )
    return Response(html, status, headers={"Cache-Control": "private, no-cache"})


def _buyer_errors(form: MultiDict[str, str]) -> dict[str, str]:
    """What is wrong with who buys, by field, all of it at once."""
    errors: dict[str, str] = {}
    for field, check in (("name", placing.clean_name), ("email", addresses.normal)):
        try:
            check(form.get(field, ""))
        except DomainError as error:
            errors[field] = error.message
    return errors


def _quantities(selling: Selling, form: MultiDict[str, str], errors: dict[str, str]) -> dict[int, int]:
    """Ticket type id -> how many are wanted; what cannot be had is said in `errors`, by field."""
    wanted: dict[int, int] = {}
    for kind in selling.types:
        field = f"quantity-{kind.ticket_type.id}"
        text = form.get(field, "").strip() or "0"
        if not (text.isascii() and text.isdigit() and len(text) < 6):
            errors[field] = "Type how many you want as a whole number."
        elif int(text) > kind.ticket_type.per_order_limit:
            errors[field] = f"One order may have at most {kind.ticket_type.per_order_limit} of these."
        elif int(text):
            wanted[kind.ticket_type.id] = int(text)
    if not wanted and not any(name.startswith("quantity-") for name in errors):
        errors["quantities"] = "Choose how many tickets you want."
    return wanted


def _prices_shown(form: MultiDict[str, str]) -> dict[int, str]:
    """Ticket type id -> the price that the form carries for it, as `prices.tag` makes it."""
    known = ((name.removeprefix(_PRICE), value) for name, value in form.items() if name.startswith(_PRICE))
    return {int(kind): value for kind, value in known if kind.isascii() and kind.isdigit() and len(kind) < 19}


def refused(slug: str, error: DomainError) -> Response:
    """The page again, as things are now, with the reason beside the field that it concerns."""
    found = visible(slug)
    errors = {_FIELDS.get(error.code, "form"): error.message}
    too_late = isinstance(error, SoldOut | PriceChanged | waiting_line.Waits)
    status = 409 if too_late else 429 if error.code.startswith("too_many_") else 400
    return _event_page(found, events.selling(found), request.form, errors, status)
