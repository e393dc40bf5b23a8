"""What the pages of the back office share: who may come in, and how they say what came of it."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TypeVar

from flask import Blueprint, flash, redirect, request
from flask_login import current_user
from werkzeug.wrappers import Response
from wtforms import Field

from blueprints.access import role_required
from domain.errors import DomainError
from models import Role

bp = Blueprint("admin", __name__, url_prefix="/admin")
debug_bp = Blueprint("debug", __name__)
S = TypeVar("S", bound=StrEnum)


@bp.before_request
@role_required(Role.ADMIN)
def _only_admins() -> None:
    """Every page here is for admins."""


def text(field: Field) -> str:
    return str(field.data or "")


def chosen(kind: type[S], name: str = "state") -> S | None:
    """A filter from the address; None for all, and for what there is not."""
    try:
        return kind(request.args.get(name, ""))
    except ValueError:
        return None


def act(do: Callable[[], tuple[str, str]], back: str) -> Response:
    """Do something, say how it went, and go back to where it was asked."""
    try:
        category, words = do()
    except DomainError as error:
        category, words = "danger", error.message
    flash(words, category)
    return redirect(back, 303)


def me() -> int:
    return int(current_user.id)
