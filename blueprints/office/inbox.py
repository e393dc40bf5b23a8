"""Payments, and the money inbox."""

from __future__ import annotations

from flask import flash, redirect, render_template, request, url_for
from flask_wtf import FlaskForm
from werkzeug.datastructures import MultiDict
from werkzeug.wrappers import Response
from wtforms import IntegerField, SelectField, StringField, TextAreaField
from wtforms.validators import DataRequired, Email, Length

import config
from blueprints import proofs
from blueprints.office.blueprint import act, bp, chosen, me, text
from blueprints.refunding import checked
from domain.errors import DomainError
from domain.office import overview
from domain.orders import attaching
from domain.payments import incident_decisions, incidents
from models import PaymentState


class ResolveForm(FlaskForm):
    how = SelectField(choices=[(one, one) for one in incident_decisions.RESOLUTIONS])
    reason = TextAreaField(validators=[DataRequired("Say why."), Length(max=1000)])


class AttachForm(FlaskForm):
    event = IntegerField(validators=[DataRequired("Choose an event.")])
    name = StringField(validators=[DataRequired("Type a name."), Length(max=200)])
    email = StringField(validators=[DataRequired("Type an address."), Email("That is not an address.")])
    reason = StringField(validators=[DataRequired("Say why."), Length(max=1000)])


@bp.get("/payments")
def pending() -> str:
    state = chosen(PaymentState)
    found = overview.payments(state, request.args.get("before", type=int))
    polled = {payment.id: overview.polled(payment) for payment in found.rows}
    return render_template(
        "office/payments.html", found=found, polled=polled, state=state, states=PaymentState
    )


@bp.get("/incidents")
def inbox() -> str:
    decided = request.args.get("decided") == "1"
    found = overview.incidents(decided=decided, before=request.args.get("before", type=int))
    return render_template("office/incidents.html", found=found, decided=decided, kinds=incidents.KINDS)


@bp.get("/incidents/<int:incident_id>")
def incident(incident_id: int) -> str:
    found = overview.incident(incident_id)
    return render_template(
        "office/incident.html",
        incident=found,
        kinds=incidents.KINDS,
        resolutions=incident_decisions.resolutions(found),
        attachable=attaching.can(found),
    )


@bp.get("/incidents/<int:incident_id>/attach")
def attachable(incident_id: int) -> str:
    """What a new order for lost money could be of: an event first, then its tickets."""
    return _attach_page(incident_id, request.args)


@bp.post("/incidents/<int:incident_id>/attach")
def attach(incident_id: int) -> Response | tuple[str, int]:
    form = AttachForm()
    try:
        checked(form)
        events = attaching.events(overview.incident(incident_id))
        event = next((event for event in events if event.id == form.event.data), None)
        if event is None:
            raise DomainError("event", "Choose an event.")
        counts = {
            kind.id: request.form.get(f"quantity-{kind.id}", 0, type=int) for kind in event.ticket_types
        }
        who = {"name": text(form.name), "email": text(form.email)}
        order = attaching.attach(incident_id, event, counts, **who, reason=text(form.reason), actor_id=me())
    except DomainError as error:
        return _attach_page(incident_id, request.form, error.message), 400
    flash(f"Order {order.code} has this money now.", "success")
    return redirect(url_for("admin.incident", incident_id=incident_id), 303)


def _attach_page(incident_id: int, typed: MultiDict[str, str], problem: str = "") -> str:
    """With what was typed before."""
    found = overview.incident(incident_id)
    events = attaching.events(found)
    chosen = next((event for event in events if event.id == typed.get("event", type=int)), None)
    return render_template(
        "office/attach.html", incident=found, events=events, chosen=chosen, typed=typed, problem=problem
    )


@bp.post("/incidents/<int:incident_id>/resolve")
def resolve(incident_id: int) -> Response:
    """Hand over the goods, send the money back, credit it to the wallet, or dismiss the incident."""
    about = overview.incident(incident_id)
    asked = proofs.for_money(about.amount_minor or 0, about.currency or config.get().currency)
    if asked is not None:
        return asked

    def do() -> tuple[str, str]:
        form = ResolveForm()
        checked(form)
        found = incident_decisions.resolve(
            incident_id, how=form.how.data, reason=text(form.reason), actor_id=me()
        )
        return "success", f"Decided: {found.resolution}."

    return act(do, url_for("admin.incident", incident_id=incident_id))
