"""Organisers: who may sell, and through whose account."""

from __future__ import annotations

from flask import render_template, request, url_for
from flask_wtf import FlaskForm
from werkzeug.wrappers import Response
from wtforms import SelectField, StringField
from wtforms.validators import Length

import config
from blueprints import proofs
from blueprints.office.blueprint import act, bp, chosen, me, text
from blueprints.refunding import checked
from domain.catalogue import house_account as house
from domain.ledger import transfers
from domain.people import organisers
from models import OrganiserState


class OrganiserForm(FlaskForm):
    do = SelectField(choices=[(name, name) for name in ("approve", "reject", "suspend")])
    reason = StringField(validators=[Length(max=300)])


@bp.get("/organisers")
def organiser_list() -> str:
    state = chosen(OrganiserState)
    found = organisers.listed(state, request.args.get("before", type=int))
    return render_template("office/organisers.html", found=found, state=state, states=OrganiserState)


@bp.get("/organisers/<int:organiser_id>")
def organiser(organiser_id: int) -> str:
    found = organisers.find(organiser_id)
    events = organisers.events_of(found.user)
    return render_template(
        "office/organiser.html",
        organiser=found,
        events=events,
        held=transfers.held_for(found.user_id),
        everybody=config.get().house_account_for_organisers,
    )


@bp.post("/organisers/<int:organiser_id>/house")
@proofs.deed
def house_account(organiser_id: int) -> Response:
    """Let an organiser sell through the house's account, or not any more."""

    def do() -> tuple[str, str]:
        found = house.allow(organiser_id, request.form.get("allowed") == "yes")
        may = "may sell" if found.house_account else "does not sell"
        return "success", f"{found.name} {may} through the house’s account now."

    return act(do, url_for("admin.organiser", organiser_id=organiser_id))


@bp.post("/organisers/<int:organiser_id>")
@proofs.deed
def decide_organiser(organiser_id: int) -> Response:
    """Approve, reject or suspend."""

    def do() -> tuple[str, str]:
        form = OrganiserForm()
        checked(form)
        found = organisers.decide(organiser_id, form.do.data, reason=text(form.reason), actor_id=me())
        return "success", f"{found.name} is {found.state} now, and a mail tells them so."

    return act(do, url_for("admin.organiser", organiser_id=organiser_id))
