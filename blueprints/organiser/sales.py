"""What is sold for an organiser's event: attendees, orders, refunds and the guest list."""

from __future__ import annotations

import secrets
from typing import Any

from flask import Response, flash, g, redirect, render_template, request, stream_with_context, url_for
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response as BaseResponse
from wtforms import IntegerField, SelectField, SelectMultipleField, StringField
from wtforms.validators import InputRequired, Length

from blueprints import refunding
from blueprints.organiser.blueprint import Page, act, bp, me
from blueprints.organiser.forms import by_rule, text
from domain import addresses, money, timeline
from domain.office import attendees, overview
from domain.orders import managing, placing
from domain.payments import refundable
from domain.providers import failure_reasons
from models import Order, OrderState, Role

# --- Attendees ------------------------------------------------------------------------------------------


@bp.get("/events/<slug>/attendees")
def attendee_list() -> str:
    words = request.args.get("q", "").strip()[:100]
    found = attendees.find(g.event, words, request.args.get("before", type=int))
    return render_template("organiser/attendees.html", event=g.event, found=found, words=words)


@bp.get("/events/<slug>/attendees.csv")
def attendee_file() -> Response:
    name = f"attendees-{g.event.slug}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    parts = stream_with_context(attendees.as_csv(g.event))
    return Response(parts, content_type="text/csv; charset=utf-8", headers=headers)


# --- Orders ---------------------------------------------------------------------------------------------


@bp.get("/events/<slug>/orders")
def order_list() -> str:
    words = request.args.get("q", "")[:200]
    try:
        state = OrderState(request.args.get("state", ""))
    except ValueError:
        state = None
    found = overview.orders(words, state, request.args.get("before", type=int), event_id=g.event.id)
    return render_template(
        "organiser/orders.html", event=g.event, found=found, words=words, state=state, states=OrderState
    )


@bp.get("/events/<slug>/orders/<code>")
def order(code: str) -> str:
    found = overview.order_file(code, event_id=g.event.id)
    left = {payment.id: refundable.refundable_minor(payment) for payment in found.order.payments}
    return render_template(
        "organiser/order.html",
        event=g.event,
        file=found,
        order=found.order,
        left=left,
        plain=money.plain,
        **_for_their_eyes(),
    )


def _for_their_eyes() -> dict[str, Any]:
    """What staff wrote about an order is between them: an organiser sees that something was done."""
    if me().role is Role.ADMIN:
        return {"outward": lambda code, reason: reason, "viewer_id": None, "is_hidden": None}
    return {
        "outward": failure_reasons.outward,
        "viewer_id": me().id,
        "is_hidden": timeline.is_staffs_word,
    }


def _order(code: str) -> Order:
    return overview.order_file(code, event_id=g.event.id).order


def _order_page(code: str) -> str:
    return url_for("organiser.order", slug=g.event.slug, code=code)


@bp.post("/events/<slug>/orders/<code>/resend")
def resend(code: str) -> BaseResponse:
    def do() -> str:
        found = _order(code)
        managing.resend(found, door="organiser", actor_id=me().id)
        return f"The tickets are on their way to {addresses.shown(found.email)}."

    return act(do, _order_page(code))


@bp.post("/events/<slug>/orders/<code>/refund")
def refund(code: str) -> Page:
    """Send all or part of a payment back, and void the tickets that were chosen: shown first, then done."""
    page = _order_page(code)
    return refunding.refund(
        _order(code), actor_id=me().id, door="organiser", page=page, frame="organiser/frame.html"
    )


class WithdrawForm(FlaskForm):
    reason = refunding.why(200)
    tickets = SelectMultipleField(coerce=int, validate_choice=False)


@bp.post("/events/<slug>/orders/<code>/withdraw")
def withdraw(code: str) -> BaseResponse:
    """Void tickets that cost nothing, such as a guest's."""
    form = WithdrawForm()

    def do() -> str:
        refunding.checked(form)
        chosen, reason = form.tickets.data or (), text(form.reason)
        number = managing.withdraw(_order(code), chosen, reason=reason, door="organiser", actor_id=me().id)
        return f"{number} {'ticket is' if number == 1 else 'tickets are'} not valid any more."

    return act(do, _order_page(code))


# --- The guest list -------------------------------------------------------------------------------------


class GuestForm(FlaskForm):
    name = StringField(validators=[InputRequired("Type a name."), Length(max=200)])
    email = StringField("E-mail", validators=[InputRequired("Type an address."), Length(max=254)])
    ticket_type_id = SelectField("Ticket", coerce=int)
    quantity = IntegerField("How many", default=1, validators=[InputRequired("Type a number.")])
    form_token = StringField()


@bp.route("/events/<slug>/guests", methods=["GET", "POST"])
def guests() -> Page:
    form = GuestForm()
    form.ticket_type_id.choices = [
        (kind.id, f"{kind.name} ({kind.available} left)") for kind in g.event.ticket_types
    ]

    def invite() -> Order:
        return placing.place_guests(
            g.event,
            form.ticket_type_id.data or 0,
            form.quantity.data or 0,
            name=text(form.name),
            email=text(form.email),
            actor_id=me().id,
            form_token=f"guest:{g.event.id}:{text(form.form_token)}" if text(form.form_token) else None,
        )

    if form.validate_on_submit():
        made = by_rule(invite, form)
        if made:
            flash(
                f"{made.name} is on the guest list. The tickets are mailed to {addresses.shown(made.email)}.",
                "success",
            )
            return redirect(url_for("organiser.guests", slug=g.event.slug), 303)
    token = text(form.form_token) or secrets.token_urlsafe(16)
    found = overview.orders("", None, request.args.get("before", type=int), event_id=g.event.id, guests=True)
    page = render_template("organiser/guests.html", event=g.event, form=form, found=found, token=token)
    return (page, 400) if form.is_submitted() else page
