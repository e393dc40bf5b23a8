"""Publishing an event: what it costs, and how that is paid."""

from __future__ import annotations

from flask import Blueprint, flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from blueprints import visitor
from blueprints.access import members_only
from blueprints.shop import order_page
from domain.catalogue import payees
from domain.errors import DomainError
from domain.orders import publishing
from domain.people import organisers
from extensions import limiter

bp = Blueprint("listing", __name__, url_prefix="/organiser/events/<slug>/publish")


bp.after_request(visitor.not_kept)


@bp.get("")
@members_only
def pay(slug: str) -> str:
    event = organisers.event_for(visitor.member(), slug)
    return render_template(
        "organiser/publish.html",
        event=event,
        offer=publishing.offer(event, visitor.member()),
        may_waive=visitor.is_admin(),
        lacks_a_way=payees.lacks_a_way(event),
    )


@bp.post("")
@members_only
@limiter.limit("60 per hour", key_func=visitor.member_key)
def publish(slug: str) -> BaseResponse:
    event = organisers.event_for(visitor.member(), slug)
    try:
        order = publishing.publish(
            event,
            visitor.member(),
            request.form.get("provider") or None,
            shown=request.form.get("price", ""),
        )
    except DomainError as error:
        flash(error.message, "warning")
        return redirect(url_for("listing.pay", slug=slug), 303)
    if order is not None:
        return redirect(order_page.onward(order), 303)
    flash("The event is on sale. Look at its page in the shop.", "success")
    return redirect(url_for("organiser.event", slug=slug), 303)


@bp.post("/waive")
@members_only
def waive(slug: str) -> BaseResponse:
    event = organisers.event_for(visitor.member(), slug)
    try:
        publishing.waive(event, visitor.member(), request.form.get("reason", ""))
    except DomainError as error:
        flash(error.message, "warning")
        return redirect(url_for("listing.pay", slug=slug), 303)
    flash("The fee is waived, and the event is on sale.", "success")
    return redirect(url_for("organiser.event", slug=slug), 303)
