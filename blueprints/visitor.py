"""Who is looking at the page."""

from __future__ import annotations

import hashlib
from typing import cast

from flask import Response, g, has_request_context, request
from flask_login import current_user
from sqlalchemy import inspect

from domain.acting import Actor
from domain.orders import managing
from models import ActorKind, Role, User

# Below this nobody looks at a page: programs ask there.
API = "/api/v1"
# What only a page's script asks for.
_ONLY_JSON = frozenset({"door.scan", "door.frame", "door.count"})


def signed_in() -> User | None:
    """The member who is logged in, or None for a guest."""
    return cast(User, current_user._get_current_object()) if current_user.is_authenticated else None


def member() -> User:
    """The member who is logged in, on a page that only members reach."""
    user = signed_in()
    if user is None:
        raise RuntimeError("A page for members was reached without a login.")
    return user


def member_key() -> str:
    """What a limit counts by on a page for members, instead of the address: each person once.

    A limit counts before the page asks who is there, so it may be a stranger.
    """
    user = signed_in()
    return f"member:{user.id if user is not None else ''}"


def order_key() -> str:
    """What a limit counts by where an order's link is used: once an order, however its code is spelled.

    Its code is known to more people than its secret, who must not be able to use up what its buyer may do: so
    whoever has another secret is counted for themselves.
    """
    named = request.view_args or {}
    return f"order:{managing.canonical(named.get('code', ''))}:{secret_mark(named.get('secret', ''))}"


def secret_mark(secret: str) -> str:
    """A short name for a secret in an address, for what is counted by it."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()[:16]


def not_kept(response: Response) -> Response:
    """For after_request: what such a page shows stays in nobody's cache."""
    response.headers.setdefault("Cache-Control", "private, no-store")
    return response


def actor() -> Actor | None:
    """Who acts in this request, for what is kept of it; None outside of one."""
    if not has_request_context():
        return None
    door = request.path.split("/")[1][:30] or "shop"
    if is_for_api():
        called = g.get("api_caller")
        if called is None:
            return Actor(ActorKind.VISITOR, "api")
        kind = ActorKind.MEMBER if called.key is None else ActorKind.KEY
        return Actor(kind, "api", _id(called.user), called.key.prefix if called.key is not None else "")
    user = signed_in()
    if user is None:
        return Actor(ActorKind.VISITOR, door)
    return Actor(ActorKind.MEMBER, door, _id(user))


def _id(user: User) -> int:
    """Their id, without asking the database for a row that a commit has let go."""
    return int(inspect(user).identity[0])


def is_admin() -> bool:
    """Whether the visitor is logged in as an admin."""
    user = signed_in()
    return user is not None and user.role is Role.ADMIN


def is_for_api() -> bool:
    """Whether the request is for the API, by its path alone."""
    return request.path == API or request.path.startswith(f"{API}/")


def wants_json() -> bool:
    """Whether a program asks: by the address, by what it accepts or sends, or where only JSON is answered."""
    return (
        request.path.endswith(".json")
        or is_for_api()
        or request.is_json
        or request.accept_mimetypes.best == "application/json"
        or request.endpoint in _ONLY_JSON
    )


def form_token() -> str | None:
    """The form's token with what was typed: the same form sent twice is one order, a changed one another."""
    if not request.form.get("form_token"):
        return None
    content = [(name, value) for name, value in sorted(request.form.items()) if name != "csrf_token"]
    return hashlib.sha256(repr((request.path, content)).encode()).hexdigest()
