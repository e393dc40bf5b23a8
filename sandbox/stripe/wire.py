"""How requests and errors travel: nested form encoding, and Stripe's error object."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

# A request's parameters: strings at the leaves, dicts between. Lists are dicts with number keys until
# params.py, which knows where a list is expected, makes them lists.
Tree = dict[str, Any]

_KEY = re.compile(r"^([^\[\]]+)((?:\[[^\[\]]*\])*)$")
_PART = re.compile(r"\[([^\[\]]*)\]")
DEEPEST = 10


class ApiError(Exception):
    """An error as Stripe answers it. `kept`: whether an idempotency key keeps it, as none does validation."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        type: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        kept: bool = True,
        **more: Any,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kept = kept
        error = {"code": code, "message": message, "param": param, "type": type, **more}
        self.body: dict[str, Any] = {
            "error": {name: value for name, value in error.items() if value is not None}
        }


def missing(kind: str, object_id: str, param: str = "id") -> ApiError:
    """What Stripe answers about an id it does not have."""
    return ApiError(f"No such {kind}: '{object_id}'", status=404, code="resource_missing", param=param)


def parse(pairs: Iterable[tuple[str, str]]) -> Tree:
    """Nest `a[b][0]=c` pairs. Raises ApiError for keys that do not nest."""
    tree: Tree = {}
    for key, value in pairs:
        match = _KEY.match(key)
        if match is None:
            raise ApiError(f"Invalid parameter name: {key}", param=key, kept=False)
        path = [match.group(1), *_PART.findall(match.group(2))]
        if len(path) > DEEPEST:
            raise ApiError(f"Parameter is nested too deeply: {key}", param=key, kept=False)
        _put(tree, path, value, key)
    return tree


def _put(tree: Tree, path: list[str], value: str, key: str) -> None:
    for part in path[:-1]:
        child = tree.setdefault(part or str(len(tree)), {})
        if not isinstance(child, dict):
            raise ApiError(f"Parameter is both a value and a hash: {key}", param=key, kept=False)
        tree = child
    last = path[-1] or str(len(tree))
    if last in tree:
        raise ApiError(f"Parameter was given twice: {key}", param=key, kept=False)
    tree[last] = value
