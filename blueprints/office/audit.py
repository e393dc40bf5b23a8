"""The audit log: who changed what, from what to what. It is read here, and nothing of it can be changed."""

from __future__ import annotations

from flask import render_template, request

from blueprints.office.blueprint import bp, chosen
from domain import audit
from models import AuditArea


@bp.get("/audit")
def audit_log() -> str:
    words, area = request.args.get("q", "")[:200], chosen(AuditArea, "area")
    found = audit.entries(words, area, request.args.get("before", type=int))
    return render_template("office/audit.html", found=found, words=words, area=area, areas=AuditArea)
