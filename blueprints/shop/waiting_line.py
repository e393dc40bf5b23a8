"""An event's waiting line: taking a place in it, and the page that says when it is one's turn."""

from __future__ import annotations

from flask import Response, flash, redirect, render_template, request
from werkzeug.wrappers import Response as BaseResponse

from blueprints.shop import events as shop
from blueprints.shop.events import bp
from blueprints.visitor import secret_mark, signed_in
from domain import addresses
from domain.catalogue import events
from domain.catalogue.availability import Sale
from domain.errors import DomainError
from domain.orders import waiting_line
from extensions import limiter

# By network address generously, as purchases are.
_PLACES_BY_ADDRESS = "600 per minute"
# A place's page looks again by itself, and hundreds may do so behind one address: each for itself.
_LOOKS = "60 per minute"


def _place_key() -> str:
    named = request.view_args or {}
    return f"line:{named.get('slug', '')}:{secret_mark(named.get('secret', ''))}"


@bp.post("/events/<slug>/line")
@limiter.limit(_PLACES_BY_ADDRESS)
def take_place(slug: str) -> BaseResponse:
    event = shop.visible(slug)
    try:
        place = waiting_line.ask(
            event,
            request.form.get("email", ""),
            user=signed_in(),
            client_address=request.remote_addr or "",
        )
    except DomainError as error:
        return shop.refused(slug, error)
    if place is not None:
        return redirect(waiting_line.path(event, place), 303)
    shown = addresses.shown(request.form["email"].strip())
    flash(
        f"We have sent a mail to {shown}. Open its link to take your place in the line. No mail after a "
        "few minutes? Look among the spam, or type the address again.",
        "success",
    )
    return redirect(event.path, 303)


@bp.get("/events/<slug>/line/<secret>")
@limiter.limit(_LOOKS, key_func=_place_key)
def place(slug: str, secret: str) -> BaseResponse:
    event = shop.visible(slug)
    seen = waiting_line.look(event, secret)
    if seen.place.order is not None:
        return redirect(seen.place.order.path, 303)
    if seen.state == "turn":
        answer = shop.event_page(event, place=seen.place)
    else:
        selling = events.selling(event)
        # Baskets come back within minutes; what is sold out, closed or called off is not worth an open page.
        nothing = "" if selling.is_open or selling.state is Sale.ALL_HELD else selling.words
        answer = Response(render_template("shop/line.html", event=event, seen=seen, nothing=nothing))
    # Whoever has the link has the place, and reads whose it is.
    answer.headers["Cache-Control"] = "private, no-store"
    return answer


@bp.post("/events/<slug>/line/<secret>")
@limiter.limit(_LOOKS, key_func=_place_key)
def confirm_place(slug: str, secret: str) -> BaseResponse:
    event = shop.visible(slug)
    taken = waiting_line.confirm(event, secret, client_address=request.remote_addr or "")
    return redirect(waiting_line.path(event, taken), 303)
