"""Payments, and the money inbox."""

from __future__ import annotations

from flask import render_template, request, url_for
from flask_wtf import FlaskForm
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
    found = overview.incident(incident_id)
    events = attaching.events(found)
    chosen = next((event for event in events if event.id == request.args.get("event", type=int)), None)
    return render_template("office/attach.html", incident=found, events=events, chosen=chosen)


@bp.post("/incidents/<int:incident_id>/attach")
def attach(incident_id: int) -> Response:
    def do() -> tuple[str, str]:
        form = AttachForm()
        checked(form)
        events = attaching.events(overview.incident(incident_id))
        event = next((event for event in events if event.id == form.event.data), None)
        if event is None:
            raise DomainError("event", "Choose an event.")
        counts = {
            kind.id: request.form.get(f"quantity-{kind.id}", 0, type=int) for kind in event.ticket_types
        }
        order = attaching.attach(
            incident_id,
            event,
            counts,
            name=text(form.name),
            email=text(form.email),
            reason=text(form.reason),
            actor_id=me(),
        )
        return "success", f"Order {order.code} has this money now."

    return act(do, url_for("admin.incident", incident_id=incident_id))


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
