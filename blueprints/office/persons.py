"""Whoever writes to the shop and wants to know, or to have forgotten, what it keeps about them."""

from __future__ import annotations

from flask import Response, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from blueprints.office.blueprint import act, bp
from blueprints.visitor import member
from domain.errors import DomainError
from domain.office import erasures, person_export


@bp.get("/persons")
def persons() -> str:
    email, problem, plan = request.args.get("q", "").strip()[:300], "", None
    try:
        plan = erasures.plan(email) if email else None
    except DomainError as error:
        problem = error.message
    return render_template(
        "office/persons.html", email=email, plan=plan, problem=problem, listed=erasures.listed()
    )


@bp.post("/persons/file")
def person_file() -> Response:
    text = person_export.of(request.form.get("email", ""))
    headers = {"Content-Disposition": 'attachment; filename="person.json"', "Cache-Control": "no-store"}
    return Response(text, content_type="application/json; charset=utf-8", headers=headers)


@bp.post("/persons/forget")
def person_forget() -> BaseResponse:
    def do() -> tuple[str, str]:
        erasures.ask_for(request.form.get("email", ""), member(), request.form.get("reason", ""))
        return "success", "It is done within some minutes, and a mail tells them so."

    return act(do, url_for("admin.persons"))
