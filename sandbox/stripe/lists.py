"""Lists a page at a time, newest first, and the objects behind ids where `expand` asks for them."""

from __future__ import annotations

import types
from typing import Any, ForwardRef, Union, get_args, get_origin

import stripe
from stripe import ListObject

from sandbox.store import Stored
from sandbox.stripe.books import CHARGE, DISPUTE, EVENT, INTENT, METHOD, REFUND, SESSION
from sandbox.stripe.wire import ApiError, missing
from sandbox.stripe.world import World

Body = dict[str, Any]
_CLASSES: dict[str, type] = {
    SESSION: stripe.checkout.Session,
    INTENT: stripe.PaymentIntent,
    CHARGE: stripe.Charge,
    REFUND: stripe.Refund,
    DISPUTE: stripe.Dispute,
    EVENT: stripe.Event,
    METHOD: stripe.PaymentMethod,
    "balance_transaction": stripe.BalanceTransaction,
    "account": stripe.Account,
    "item": stripe.LineItem,
    "price": stripe.Price,
    "webhook_endpoint": stripe.WebhookEndpoint,
    "payment_method_domain": stripe.PaymentMethodDomain,
}
_DEEPEST = 4
_COMPARE = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


def page(world: World, kind: str, url: str, params: Body, filters: list[tuple[str, Any]]) -> Body:
    """A list object. `filters`: SQL conditions with one value each, besides created and the cursors."""
    limit = page_size(params)
    conditions = [*filters, *_created(params.get("created"))]
    after, before = params.get("starting_after"), params.get("ending_before")
    if after and before:
        raise ApiError("You may only specify one of these parameters: starting_after, ending_before.")
    where = [sql for sql, _ in conditions]
    values = [value for _, value in conditions]
    if after or before:
        name = "starting_after" if after else "ending_before"
        cursor = world.store.find(kind, after or before or "")
        if cursor is None:
            error = missing(kind, after or before or "", name)
            error.status = 400
            raise error
        where.append(f"(created, seq) {'<' if after else '>'} (?, ?)")
        values += [cursor.created, cursor.seq]
    found = _found(world, kind, " AND ".join(where), values, limit + 1, backwards=bool(before))
    bodies = [stored.body for stored in found[:limit]]
    if before:
        bodies.reverse()
    expand_in(world, bodies, _under_data(params.get("expand", [])))
    return {"object": "list", "data": bodies, "has_more": len(found) > limit, "url": url}


def page_size(params: Body) -> int:
    """The `limit` of a list call, 10 by default."""
    limit = params.get("limit", 10)
    if not 1 <= limit <= 100:
        raise ApiError("Limit must be between 1 and 100.", code="parameter_invalid_integer", param="limit")
    return int(limit)


def _found(
    world: World, kind: str, where: str, values: list[Any], limit: int, *, backwards: bool
) -> list[Stored]:
    """The rows. Sessions that are over expire first: those on the page, or all where status is asked."""
    if kind == SESSION and "status" in where:
        while world.run_due():
            pass
    read = world.store.oldest_first if backwards else world.store.select
    found = read(kind, where, values, limit)
    over = [
        s.id
        for s in found
        if kind == SESSION and s.body["status"] == "open" and s.body["expires_at"] <= world.now()
    ]
    for session_id in over:
        world.run_due(object_id=session_id)
    return read(kind, where, values, limit) if over else found


def _created(created: Any) -> list[tuple[str, Any]]:
    if created is None:
        return []
    if isinstance(created, int):
        return [("created = ?", created)]
    return [(f"created {_COMPARE[name]} ?", value) for name, value in created.items()]


def _under_data(paths: list[str]) -> list[str]:
    for path in paths:
        if not path.startswith("data."):
            raise cannot_expand(path)
    return [path.removeprefix("data.") for path in paths]


def expand_in(world: World, bodies: list[Body], paths: list[str]) -> None:
    """Put the objects in the place of their ids, a query a level however many bodies there are."""
    tree: Body = {}
    for path in paths:
        parts = path.split(".")
        if len(parts) > _DEEPEST:
            raise ApiError(f"You cannot expand more than {_DEEPEST} levels of a property. Property: {path}")
        node = tree
        for part in parts:
            node = node.setdefault(part, {})
    _expand(world, bodies, tree, "")


def _expand(world: World, bodies: list[Body], tree: Body, above: str) -> None:
    for name, below in tree.items():
        path = f"{above}{name}"
        for body in bodies:
            if not _expandable(body["object"], name):
                raise cannot_expand(path)
        if name in ("line_items", "refunds"):
            for body in bodies:
                body[name] = _included(world, body, name)
            if below:
                inner = [item for body in bodies for item in body[name]["data"]]
                _expand(world, inner, below.get("data", below), f"{path}.data.")
            continue
        ids = {body[name] for body in bodies if isinstance(body.get(name), str)}
        found = world.store.bodies(sorted(ids))
        for body in bodies:
            if body.get(name) in found:
                body[name] = found[body[name]]
        if below:
            _expand(world, list(found.values()), below, f"{path}.")


def _included(world: World, body: Body, name: str) -> Body:
    """A list that is part of an object when it is asked for: its first ten."""
    if name == "line_items":
        lines = world.get(SESSION, body["id"]).inner["lines"]
        url = f"/v1/checkout/sessions/{body['id']}/line_items"
    else:
        lines = [refund.body for refund in world.refunds_of(world.get(CHARGE, body["id"]))]
        url = f"/v1/charges/{body['id']}/refunds"
    return {"object": "list", "data": lines[:10], "has_more": len(lines) > 10, "url": url}


def _expandable(kind: str, name: str) -> bool:
    """Whether the SDK says that this field is an id or an object, or a list that can be asked for."""
    members = set(_members(_CLASSES[kind].__annotations__.get(name)))
    classes = [
        m for m in members if isinstance(m, ForwardRef | type) and m not in (str, int, bool, type(None))
    ]
    return str in members and bool(classes) or ListObject in {get_origin(m) for m in members}


def _members(hint: Any) -> list[Any]:
    if get_origin(hint) in (Union, types.UnionType):
        return [inner for arg in get_args(hint) for inner in _members(arg)]
    return [hint]


def cannot_expand(path: str) -> ApiError:
    return ApiError(f"This property cannot be expanded ({path}).", param="expand")
