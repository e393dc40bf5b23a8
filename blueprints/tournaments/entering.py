"""Tournaments for everybody, and the form by which a member enters an athlete."""

from __future__ import annotations

import secrets

from flask import Blueprint, redirect, render_template, request
from werkzeug.wrappers import Response

from blueprints import visitor
from blueprints.access import members_only
from blueprints.shop import order_page
from blueprints.visitor import signed_in
from domain.catalogue import events, front_page, tournaments
from domain.catalogue.availability import say_span
from domain.catalogue.prices import PriceChanged, tag
from domain.errors import DomainError
from domain.office import participants
from domain.orders import entries
from domain.payments.fulfilment import SoldOut
from domain.people import athletes, organisers
from extensions import limiter
from models import Event, EventKind, TicketType

bp = Blueprint("tournaments", __name__, url_prefix="/tournaments")


@bp.get("/")
def index() -> str:
    found = front_page.upcoming(kind=EventKind.TOURNAMENT)
    return render_template("tournaments/index.html", found=found)


@bp.get("/<slug>")
def tournament(slug: str) -> str:
    found = _visible(slug)
    own = found.tournament
    return render_template(
        "tournaments/tournament.html",
        event=found,
        selling=tournaments.states(found),
        limits=tournaments.say_limits,
        withdrawal=tournaments.say_withdrawal(
            found, costs=any(kind.price_minor for kind in found.ticket_types)
        ),
        span=say_span(found),
        start_list=participants.start_list(found) if own is not None and own.public_list else None,
    )


@bp.get("/<slug>/enter/<int:type_id>")
@members_only
def form(slug: str, type_id: int) -> str | tuple[str, int]:
    return _form(tournaments.category(_visible(slug), type_id))


@bp.post("/<slug>/enter/<int:type_id>")
@limiter.limit("120 per hour", key_func=visitor.member_key)
@members_only
def enter(slug: str, type_id: int) -> str | tuple[str, int] | Response:
    kind, member = tournaments.category(_visible(slug), type_id), visitor.member()
    try:
        made = entries.enter(
            kind,
            athletes.find(member, request.form.get("athlete", "")),
            member,
            provider=request.form.get("provider") or None,
            consent=request.form.get("consent_text") if request.form.get("consent") else None,
            form_token=visitor.form_token(),
            client_address=request.remote_addr or "",
            shown=request.form.get("price", ""),
        )
    except DomainError as error:
        status = 409 if isinstance(error, SoldOut | PriceChanged) else 400
        return _form(tournaments.category(_visible(slug), type_id), error.message, status)
    return redirect(order_page.onward(made.order), 303)


def _form(kind: TicketType, problem: str = "", status: int = 200) -> str | tuple[str, int]:
    member, event = visitor.member(), kind.event
    selling = tournaments.states(event)
    offer = next(offer for offer in selling.types if offer.ticket_type.id == kind.id)
    page = render_template(
        "tournaments/enter.html",
        event=event,
        kind=kind,
        offer=offer,
        closed=offer.words or selling.words,
        limits=tournaments.say_limits(kind),
        withdrawal=tournaments.say_withdrawal(event, costs=bool(kind.price_minor)),
        choices=entries.choices(member, kind),
        consent_text=athletes.consent_text(),
        consent_hash=athletes.consent_hash(),
        ways=events.ways_to_pay(event, member, kind=kind) if kind.price_minor else (),
        chosen=request.form.get("athlete", ""),
        way=request.form.get("provider", ""),
        price=tag(kind.price_minor, kind.priced_in),
        problem=problem,
        form_token=secrets.token_urlsafe(16),
    )
    return (page, status) if status != 200 else page


def _visible(slug: str) -> Event:
    """The tournament at this address; a draft only for those who run it."""
    found, user = tournaments.find(slug, drafts=True), signed_in()
    return found if user is not None and organisers.may_manage(user, found) else events.published(found)
