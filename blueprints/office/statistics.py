"""What is measured of payments, over a time that somebody chooses: charts, tables and files."""

from __future__ import annotations

from flask import Response, render_template, request

from blueprints.office.blueprint import bp
from domain.errors import DomainError
from domain.office import statistics as measured


def _span() -> measured.Span:
    return measured.span(*(request.args.get(name, "") for name in ("from", "to", "by", "event")))


@bp.get("/statistics")
def statistics() -> tuple[str, int]:
    problem = ""
    try:
        asked = _span()
    except DomainError as error:
        asked, problem = measured.span(), error.message
    page = render_template(
        "office/statistics.html",
        found=measured.read(asked),
        span=asked,
        problem=problem,
        steps=measured.Step,
        events=measured.choices(),
        by_event=measured.by_event,
        by_step=measured.by_step,
    )
    return page, 400 if problem else 200


@bp.get("/statistics/<any(methods, failures, revenue):what>.csv")
def statistics_file(what: str) -> Response:
    asked = _span()
    name = f"{what}-{asked.first}-{asked.last}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    found = measured.as_csv(measured.read(asked), what)
    return Response(found, content_type="text/csv; charset=utf-8", headers=headers)
