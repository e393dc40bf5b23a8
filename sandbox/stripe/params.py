"""Each request against the parameter types of the official SDK: its TypedDicts, read at run time.

Unknown names, missing required ones, values of another type and unknown words of a fixed vocabulary are
refused as Stripe refuses them. What comes out has real types: ints, bools, lists, dicts.
"""

from __future__ import annotations

import re
import types
import typing
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin

import typing_extensions
from stripe import _request_options
from stripe._request_options import RequestOptions
from stripe._stripe_object import UntypedStripeObject

from sandbox.stripe.wire import ApiError, Tree

_INTEGER = re.compile(r"^-?[0-9]{1,18}$")
_OPTIONS = frozenset(RequestOptions.__annotations__)
_NOT_REQUIRED: tuple[Any, ...] = (typing.NotRequired, typing_extensions.NotRequired)
# The SDK inherits RequestOptions' annotations by name, into modules that do not import those names.
_NAMES_OF_OPTIONS = {**vars(_request_options), "StripeContext": Any}


def check(tree: Tree, shape: type) -> dict[str, Any]:
    """Type the parameters in `tree` by the SDK's `shape`. Raises ApiError naming the parameter."""
    return _typed_dict(tree, shape, "")


@cache
def _fields(shape: type) -> tuple[dict[str, Any], frozenset[str]]:
    """The names and types of a TypedDict, and which are required. The SDK's own call options are not sent."""
    hints = typing_extensions.get_type_hints(shape, localns=_NAMES_OF_OPTIONS, include_extras=True)
    options = _OPTIONS if RequestOptions in getattr(shape, "__orig_bases__", ()) else frozenset[str]()
    fields, required = {}, set()
    for name, hint in hints.items():
        if name in options:
            continue
        if get_origin(hint) in _NOT_REQUIRED:
            fields[name] = get_args(hint)[0]
        else:
            fields[name] = hint
            required.add(name)
    return fields, frozenset(required)


def _typed_dict(value: Any, shape: type, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _bad(path, "hash", value)
    fields, required = _fields(shape)
    for name in value:
        if name not in fields:
            where = _join(path, name)
            raise ApiError(
                f"Received unknown parameter: {where}", code="parameter_unknown", param=where, kept=False
            )
    for name in sorted(required - value.keys()):
        where = _join(path, name)
        raise ApiError(f"Missing required param: {where}.", code="parameter_missing", param=where, kept=False)
    return {name: _value(item, fields[name], _join(path, name)) for name, item in value.items()}


def _value(value: Any, hint: Any, path: str) -> Any:
    """One value, by whichever member of a union describes its form."""
    members, words = _members(hint)
    if isinstance(value, str):
        if words is not None and value in words:
            return value
        if value == "":
            raise ApiError(
                f"You passed an empty string for '{path}'. We assume empty values are an attempt to unset a "
                f"parameter; however '{path}' cannot be unset. You should remove '{path}' from your request "
                "or supply a non-empty value.",
                code="parameter_invalid_empty",
                param=path,
                kept=False,
            )
        closed = words is not None and words != frozenset([""])
        if closed and not any(member in (int, bool, float, Decimal) for member in members):
            raise ApiError(
                f"Invalid {path}: must be one of {', '.join(sorted(words or ()))}", param=path, kept=False
            )
    refusal: ApiError | None = None
    for member in members:
        try:
            return _member(value, member, path)
        except ApiError as error:
            # A nested refusal says more than "this is no integer".
            if refusal is None or isinstance(value, dict) and member not in (int, str, bool, float, Decimal):
                refusal = error
    raise refusal or _bad(path, "value", value)


@cache
def _members(hint: Any) -> tuple[tuple[Any, ...], frozenset[str] | None]:
    """A hint as its alternatives, and the words of its Literals (with `| str`, too, they are all)."""
    members: list[Any] = []
    words: set[str] | None = None
    for alternative in _alternatives(hint):
        if get_origin(alternative) in (Literal, typing_extensions.Literal):
            words = (words or set()) | {str(word) for word in get_args(alternative)}
        elif alternative is not UntypedStripeObject and get_origin(alternative) is not UntypedStripeObject:
            members.append(alternative)
    return tuple(members), None if words is None else frozenset(words)


def _alternatives(hint: Any) -> list[Any]:
    if get_origin(hint) in (Union, types.UnionType):
        return [inner for arg in get_args(hint) for inner in _alternatives(arg)]
    return [hint]


def _member(value: Any, hint: Any, path: str) -> Any:
    origin = get_origin(hint)
    if origin is list:
        return _list(value, get_args(hint)[0], path)
    if origin is dict:
        return _mapping(value, get_args(hint)[1], path)
    if typing_extensions.is_typeddict(hint):
        return _typed_dict(value, hint, path)
    if hint is Any:
        return value
    return _scalar(value, hint, path)


def _list(value: Any, item: Any, path: str) -> list[Any]:
    if not isinstance(value, dict) or not all(key.isascii() and key.isdigit() for key in value):
        raise _bad(path, "array", value)
    ordered = sorted(value.items(), key=lambda pair: int(pair[0]))
    return [_value(inner, item, f"{path}[{index}]") for index, inner in ordered]


def _mapping(value: Any, item: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _bad(path, "hash", value)
    # An empty value unsets a key of metadata, so it is no error here.
    return {
        key: "" if inner == "" and item is str else _value(inner, item, f"{path}[{key}]")
        for key, inner in value.items()
    }


def _scalar(value: Any, kind: Any, path: str) -> Any:
    if not isinstance(value, str):
        raise _bad(path, _NAMES.get(kind, "string"), value)
    if kind is str:
        return value
    if kind is int and _INTEGER.match(value):
        return int(value)
    if kind is bool and value in ("true", "false"):
        return value == "true"
    if kind in (float, Decimal):
        try:
            number = Decimal(value)
        except InvalidOperation:
            raise _bad(path, "decimal", value) from None
        if number.is_finite():
            return number
    raise _bad(path, _NAMES.get(kind, "value"), value)


_NAMES: dict[Any, str] = {
    int: "integer",
    bool: "boolean",
    float: "decimal",
    Decimal: "decimal",
    str: "string",
}


def _bad(path: str, kind: str, value: Any) -> ApiError:
    code = "parameter_invalid_integer" if kind == "integer" else None
    return ApiError(f"Invalid {kind}: {value}", code=code, param=path, kept=False)


def _join(path: str, name: str) -> str:
    return f"{path}[{name}]" if path else name
