"""What is kept about a member: their file of it, and asking to be forgotten."""

from __future__ import annotations

from flask import Response, flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from blueprints import access
from blueprints.people.account import bp
from blueprints.visitor import member
from domain.errors import DomainError
from domain.office import erasures, person_export
from domain.people import accounts


@bp.get("/data")
@access.members_only
def data() -> str:
    return render_template("people/data.html", plan=erasures.plan(member().email))


@bp.post("/data/file")
@access.members_only
def data_file() -> BaseResponse:
    """Everything about the member, once they have proven themselves again."""
    try:
        accounts.prove(member(), request.form.get("password", ""), **access.where())
    except DomainError as error:
        return _back("danger", error.message)
    return as_file(person_export.of(member().email))


def as_file(text: str) -> Response:
    headers = {"Content-Disposition": 'attachment; filename="my-data.json"', "Cache-Control": "no-store"}
    return Response(text, content_type="application/json; charset=utf-8", headers=headers)


@bp.post("/data/forget")
@access.members_only
def data_forget() -> BaseResponse:
    try:
        erasures.ask(member(), request.form.get("password", ""), **access.where())
    except DomainError as error:
        return _back("danger", error.message)
    return _back("success", "It is noted. We have mailed you until when, and how, you can take it back.")


@bp.post("/data/stay")
@access.members_only
def data_stay() -> BaseResponse:
    try:
        erasures.take_back(member())
    except DomainError as error:
        return _back("danger", error.message)
    return _back("success", "You stay. Nothing was forgotten.")


def _back(category: str, words: str) -> BaseResponse:
    flash(words, category)
    return redirect(url_for("account.data"), 303)
