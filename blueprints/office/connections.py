"""Every organiser's account at a provider, as admins see them."""

from __future__ import annotations

from flask import Blueprint, render_template

from blueprints.access import role_required
from domain.connections import linked_accounts
from models import Role

bp = Blueprint("admin_connections", __name__, url_prefix="/admin/connections")


@bp.get("")
@role_required(Role.ADMIN)
def everyone() -> str:
    return render_template("office/connections.html", shown=linked_accounts.for_admins())
