"""Rings that were left undone, to be looked at again."""

from __future__ import annotations

from flask import render_template, request, url_for
from werkzeug.wrappers import Response

from blueprints.office.blueprint import act, bp, me
from domain.payments import dead_rings, webhooks


@bp.get("/rings")
def rings() -> str:
    found = dead_rings.page(request.args.get("before", type=int))
    return render_template("office/rings.html", found=found, number=dead_rings.count()[0])


@bp.post("/rings/<int:event_id>/again")
def ring_again(event_id: int) -> Response:
    """Ask the provider about what one ring told of, and settle it."""

    def do() -> tuple[str, str]:
        error = webhooks.look_again(event_id, actor_id=me())
        if error is None:
            return "success", "Looked at again: it is done."
        return "warning", f"It is not done, so it stays here. {error}"

    return act(do, url_for("admin.rings"))


@bp.post("/rings/again")
def rings_again() -> Response:
    """The same for all of them, as far as the time of a request goes."""

    def do() -> tuple[str, str]:
        looked = dead_rings.look_again(actor_id=me())
        words = f"Looked at again: {looked.done} done."
        if looked.error is None:
            return "success", words
        return "warning", f"{words} {looked.failed} in vain, which stay here. {looked.error}"

    return act(do, url_for("admin.rings"))
