"""Payments, and the money inbox."""

from __future__ import annotations

from flask import flash, redirect, render_template, request, url_for
from flask_wtf import FlaskForm
from werkzeug.datastructures import MultiDict
from werkzeug.wrappers import Response
from wtforms import SelectField, StringField, TextAreaField
from wtforms.validators import DataRequired, Email, Length, Optional

from blueprints import proofs
from blueprints.office.blueprint import act, bp, chosen, me, text
from blueprints.refunding import checked
from domain.errors import DomainError
from domain.office import overview
from domain.orders import attaching, lost_goods
from domain.payments import incident_decisions, incidents
from domain.payments import lost_money as lost
from models import PaymentState


class ResolveForm(FlaskForm):
    how = SelectField(choices=[(one, one) for one in incident_decisions.RESOLUTIONS])
    reason = TextAreaField(validators=[DataRequired("Say why."), Length(max=1000)])


class BuyerForm(FlaskForm):
    name = StringField(validators=[DataRequired("Type a name."), Length(max=200)])
    email = StringField(validators=[DataRequired("Type an address."), Email("That is not an address.")])
    reason = StringField(validators=[DataRequired("Say why."), Length(max=1000)])


class ReturnForm(BuyerForm):
    name = StringField(validators=[Length(max=200)])
    email = StringField(validators=[Optional(), Email("That is not an address.")])


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
    """What lost money can have bought: the thing first, then what it needs."""
    return _attach_page(incident_id, request.args)


@bp.post("/incidents/<int:incident_id>/attach")
def attach(incident_id: int) -> Response | tuple[str, int]:
    form, word = BuyerForm(), request.form.get("what", "")
    try:
        checked(form)
        order = attaching.attach(incident_id, word, _buyer(form), reason=text(form.reason), actor_id=me())
    except DomainError as error:
        return _attach_page(incident_id, request.form, error.message), 400
    flash(f"Order {order.code} has this money now.", "success")
    return redirect(url_for("admin.incident", incident_id=incident_id), 303)


def _attach_page(incident_id: int, typed: MultiDict[str, str], problem: str = "") -> str:
    """With what was typed before."""
    found = overview.incident(incident_id)
    payer = found.evidence.get("payer") or {}
    who = {name: typed.get(name, payer.get(name) or "") for name in ("name", "email")}
    choices = lost_goods.choices(attaching.money_of(found))
    return render_template(
        "office/attach.html",
        incident=found,
        choices=choices,
        chosen=next((choice for choice in choices if choice.word == typed.get("what")), None),
        athletes=lost_goods.athletes_of(who["email"]),
        payer=who,
        typed=typed,
        problem=problem,
    )


def _asked_for(incident_id: int) -> Response | None:
    """The second factor, where one of the sums that may leave by a decision is a large one."""
    for amount_minor, currency in incident_decisions.sums_of(overview.incident(incident_id)):
        asked = proofs.for_money(amount_minor, currency)
        if asked is not None:
            return asked
    return None


@bp.post("/incidents/<int:incident_id>/send-back")
def send_back(incident_id: int) -> Response:
    """Give lost money back to whoever paid it, by the provider."""
    asked = _asked_for(incident_id)
    if asked is not None:
        return asked

    def do() -> tuple[str, str]:
        form = ReturnForm()
        checked(form)
        order = attaching.send_back(incident_id, _buyer(form), reason=text(form.reason), actor_id=me())
        return "success", f"The money goes back. Order {order.code} keeps what became of it."

    return act(do, url_for("admin.incident", incident_id=incident_id))


def _buyer(form: BuyerForm) -> lost_goods.Buyer:
    counts = {
        int(name.removeprefix("quantity-")): request.form.get(name, 0, type=int)
        for name in request.form
        if name.removeprefix("quantity-").isdecimal() and name.startswith("quantity-")
    }
    category = request.form.get("category", 0, type=int)
    return lost_goods.Buyer(
        text(form.name), text(form.email), counts, request.form.get("athlete", ""), category
    )


@bp.get("/incidents/lost")
def lost_money() -> str:
    """Where a person writes down what came at a provider that does not tell it by itself."""
    return render_template("office/lost_money.html", providers=lost.silent(), written=None)


@bp.post("/incidents/lost")
def write_down_lost() -> Response | str:
    try:
        name, lines = request.form.get("provider", ""), request.form.get("lines", "")[:20_000]
        written = lost.write_down(name, lines, actor_id=me())
    except DomainError as error:
        flash(error.message, "danger")
        return redirect(url_for("admin.lost_money"), 303)
    return render_template("office/lost_money.html", providers=lost.silent(), written=written)


@bp.post("/incidents/<int:incident_id>/resolve")
def resolve(incident_id: int) -> Response:
    """Hand over the goods, send the money back, credit it to the wallet, or dismiss the incident."""
    pays_out = request.form.get("how") in incident_decisions.PAY_OUT
    asked = _asked_for(incident_id) if pays_out else None
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
