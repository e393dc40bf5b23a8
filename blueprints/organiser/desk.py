"""Who answers an organiser's buyers at the telephone."""

from __future__ import annotations

from flask import render_template, request, url_for
from werkzeug.wrappers import Response

from blueprints import proofs
from blueprints.organiser.blueprint import act, bp, me
from domain import addresses
from domain.payments import desk_refunds
from domain.people import desks


@bp.get("/desk")
def desk() -> str:
    people, may_refund = desks.people(me()), desk_refunds.allowed()
    return render_template("organiser/desk.html", people=people, may_refund=may_refund)


@bp.post("/desk")
@proofs.deed
def desk_give() -> Response:
    def do() -> str:
        given = desks.give(me(), request.form.get("email", "").strip()[:300])
        return f"{addresses.shown(given.email)} may answer for you, and a mail tells them so."

    return act(do, url_for("organiser.desk"))


@bp.post("/desk/<int:grant_id>/end")
@proofs.deed
def desk_end(grant_id: int) -> Response:
    def do() -> str:
        return f"{addresses.shown(desks.take(me(), grant_id))} does not answer for you any more."

    return act(do, url_for("organiser.desk"))
