"""Answers against the SDK's annotations, field by field.

The SDK's classes load anything, so loading proves nothing: here every annotated field that is not Optional
must be present and of its type, and no field may be one that the SDK does not know.
"""

from __future__ import annotations

import types
from decimal import Decimal
from typing import Any, ForwardRef, Literal, Union, get_args, get_origin

import stripe
from stripe import ListObject, StripeObject
from stripe._stripe_object import UntypedStripeObject

_ALIASES = {"TaxIdResource": stripe.TaxId, "DiscountResource": stripe.Discount, "CardResource": stripe.Card}


def faults_of(body: Any, shape: type) -> list[str]:
    """Everything in `body` that the SDK's class `shape` does not say; empty where it fits."""
    return _object(body, shape, shape.__name__)


def _object(body: Any, shape: type, path: str) -> list[str]:
    if not isinstance(body, dict):
        return [f"{path} is no object: {body!r}"]
    fields = {n: h for n, h in shape.__annotations__.items() if n != "OBJECT_NAME"}
    found = [f"{path}.{name} is not known to the SDK" for name in body if name not in fields]
    for name, hint in fields.items():
        if name in body:
            found += _value(body[name], hint, f"{path}.{name}")
        elif type(None) not in _members(hint):
            found.append(f"{path}.{name} is missing")
    return found


def _value(value: Any, hint: Any, path: str) -> list[str]:
    members = _members(hint)
    if value is None and type(None) in members:
        return []
    words = [word for m in members if get_origin(m) is Literal for word in get_args(m)]
    if words and isinstance(value, str | bool):
        return [] if value in words else [f"{path} is {value!r}, not one of {words}"]
    tried = [_one(value, member, path) for member in members if member is not type(None)]
    # The member that fits best says best what is wrong.
    return min(tried, key=len) if tried else [f"{path} is {value!r}"]


def _one(value: Any, hint: Any, path: str) -> list[str]:
    origin = get_origin(hint)
    if isinstance(hint, str | ForwardRef):
        name = hint if isinstance(hint, str) else hint.__forward_arg__
        resolved = _ALIASES.get(name) or getattr(stripe, name, None)
        return _object(value, resolved, path) if resolved else [f"{path}: no class {name}"]
    if origin is list:
        if not isinstance(value, list):
            return [f"{path} is no list: {value!r}"]
        return [f for i, item in enumerate(value) for f in _value(item, get_args(hint)[0], f"{path}[{i}]")]
    if origin is ListObject:
        return _list_object(value, get_args(hint)[0], path)
    if origin is UntypedStripeObject:
        return _untyped(value, get_args(hint)[0], path)
    if hint is Decimal:
        return [] if isinstance(value, str) else [f"{path} is no decimal string: {value!r}"]
    if isinstance(hint, type) and issubclass(hint, StripeObject):
        return _object(value, hint, path)
    if hint is Any or type(value) is hint:
        return []
    return [f"{path} is {value!r}, not {hint}"]


def _list_object(value: Any, item: Any, path: str) -> list[str]:
    if not isinstance(value, dict) or value.get("object") != "list":
        return [f"{path} is no list object: {value!r}"]
    found = [] if value.keys() == {"object", "data", "has_more", "url"} else [f"{path} has {sorted(value)}"]
    return found + [f for i, one in enumerate(value["data"]) for f in _value(one, item, f"{path}[{i}]")]


def _untyped(value: Any, item: Any, path: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{path} is no object: {value!r}"]
    return [fault for key, one in value.items() for fault in _value(one, item, f"{path}.{key}")]


def _members(hint: Any) -> list[Any]:
    if get_origin(hint) in (Union, types.UnionType):
        return [inner for arg in get_args(hint) for inner in _members(arg)]
    return [hint]
