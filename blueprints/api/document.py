"""The API's document, in OpenAPI 3.1: made by spectree of what the endpoints declare, and completed here.

The library finds addresses, parameters and schemas. Added are what it does not know: who may, the limits'
headers, Idempotency-Key, and an example for everything that goes in or out.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import cache
from typing import Any

from spectree import Response, SecurityScheme, SpecTree
from spectree.models import SecureType, SecuritySchemeData, Tag

import config
from blueprints.api import repeating
from blueprints.api.endpoint import Area, Binary, Endpoint, Everybody, Members
from blueprints.api.errors import Problem
from blueprints.api.shapes import Error, PageQuery
from domain import repeated_requests

Schema = dict[str, Any]
TITLE = "Kassa's API"
VERSION = "1.0.0"
WORDS = (
    "Enter tournaments, pay for entries, and look at what became of it. Every answer is JSON. Where "
    "something is wrong, it has `detail` for a person, `status_code`, and `code` for a program."
)
_TOKEN, _KEY = "token", "key"
_REF = "#/components/schemas/"
# What one answer gives for another request, beside what is called an id.
_HANDED_ON = frozenset(("refresh_token", "slug", "text_hash"))
# A text that is sent: NUL is none that can be kept.
_TEXT = "^[^\\x00]*$"
# What may be wrong at every endpoint of its kind.
_BODY = (
    Problem(400, "invalid", "amount must be an amount such as 50.00."),
    Problem(400, "not_json", "Send the body as JSON, with the header Content-Type: application/json."),
)
_QUERY = Problem(400, "invalid", "since must be a day such as 2026-05-31.")
_CURSOR = Problem(400, "cursor", "This cursor is not one of this list. Begin at the first page.")
_UNREADABLE = Problem(400, "unreadable", "Some of what was sent is not text that can be kept.")
_NOBODY = (
    Problem(401, "token_expired", "This access token is older than ten minutes. Refresh it."),
    Problem(401, "unauthorized", "Send an access token or an API key: Authorization: Bearer ..."),
    Problem(401, "token_invalid", "This is no access token of ours. Get one at /api/v1/auth/token."),
    Problem(401, "token_revoked", "This login has ended. Log in again."),
    Problem(401, "key_unknown", "This is no API key of ours. Copy all of it, or make a new one."),
    Problem(401, "key_revoked", "This API key was revoked."),
    Problem(401, "key_expired", "This API key is past its end date. Make a new one."),
)
_MEMBERS_ONLY = Problem(403, "members_only", "This is for a member's own token; an API key may not do it.")
_NOT_ALLOWED = (
    Problem(403, "scope_missing", "This API key was not given payments:write."),
    Problem(403, "forbidden", "This account may not do that."),
)
_NOT_FOUND = Problem(404, "not_found", "There is nothing at this address of the API.")
_REPEATED = (
    Problem(400, "idempotency_key", "An Idempotency-Key has 1 to 255 printable ASCII characters."),
    Problem(409, "idempotency_in_progress", "The first request with this Idempotency-Key is still at work."),
    Problem(409, "idempotency_key_reused", "This Idempotency-Key was sent with another body before."),
)
_TOO_LARGE = Problem(413, "too_large", "That is more than the API takes.")
_ALWAYS = (
    Problem(429, "too_many_requests", "That was too often. Wait as long as Retry-After says, then go on."),
    Problem(500, "server_error", "Something went wrong here."),
    Problem(503, "busy", "Something else is in the way just now. Send it again in a few seconds."),
)
# What is wrong before an operation is found, which a document of operations cannot tell.
_BEFORE = (
    Problem(403, "not_encrypted", "This was sent without encryption; its token may have been read."),
    Problem(405, "method_not_allowed", "This address of the API is not used with that method."),
    Problem(421, "wrong_host", "This shop's API is not at this host."),
)
# Said once on the page; with every operation that they may come from in the document.
EVERYWHERE = (
    *_BEFORE,
    *_BODY,
    _UNREADABLE,
    _CURSOR,
    *_NOBODY,
    _MEMBERS_ONLY,
    *_NOT_ALLOWED,
    _NOT_FOUND,
    *_REPEATED,
    _TOO_LARGE,
    *_ALWAYS,
)
# Header -> what it says, and an example.
_HEADERS = {
    "RateLimit": ("What is left of the limit that counts: requests, seconds.", '"caller";r=899;t=60'),
    "RateLimit-Policy": ("The limits that count here.", '"network";q=2400;w=60, "caller";q=900;w=60'),
    "Retry-After": ("How many seconds to wait.", "7"),
    "WWW-Authenticate": ("How to say who you are.", 'Bearer realm="api", error="invalid_token"'),
}

_tree = SpecTree(
    "flask",
    mode="strict",
    title=TITLE,
    version=VERSION,
    description=WORDS,
    annotations=False,
    validation_error_status=400,
    validation_error_model=Error,
    page_templates={},
    naming_strategy=lambda model: model.__name__,
    nested_naming_strategy=lambda parent, child: child,
    security_schemes=[
        SecurityScheme(
            name=_TOKEN,
            data=SecuritySchemeData(
                type=SecureType.HTTP,
                scheme="bearer",
                bearer_format="JWT",
                description="A member's access token, from POST /api/v1/auth/token: ten minutes.",
            ),
        ),
        SecurityScheme(
            name=_KEY,
            data=SecuritySchemeData(
                type=SecureType.HTTP,
                scheme="bearer",
                description="An API key of a server, made in the account's pages; it begins with kassa_.",
            ),
        ),
    ],
)


def describe(endpoint: Endpoint) -> Callable[..., Any]:
    """What the library knows the endpoint by. It is never called."""
    shown: dict[str, Any] = {
        f"HTTP_{status}": None if shape is None or isinstance(shape, Binary) else shape
        for status, shape in endpoint.answers.items()
    }
    shown |= {f"HTTP_{problem.status}": Error for problem in _problems(endpoint)}
    bare = tuple(name for name, shape in shown.items() if shape is None)
    made: Callable[..., Any] = _tree.validate(
        json=endpoint.body,
        query=endpoint.query,
        resp=Response(*bare, **{name: shape for name, shape in shown.items() if shape is not None}),
        tags=[Tag(name=endpoint.area.tag, description=endpoint.area.words)],
        security=_security(endpoint),
        operation_id=_camel(endpoint.name),
        skip_validation=True,
    )(endpoint.function)
    return made


def _security(endpoint: Endpoint) -> list[dict[str, list[str]]]:
    if isinstance(endpoint.who, Everybody):
        return []
    if isinstance(endpoint.who, Members):
        return [{_TOKEN: []}]
    return [{_TOKEN: []}, {_KEY: [endpoint.who.value]}]


def _camel(name: str) -> str:
    return re.sub("_([a-z])", lambda found: found[1].upper(), name)


def _problems(endpoint: Endpoint) -> list[Problem]:
    """All that may be wrong there, by status; what the endpoint says itself comes first."""
    found = list(endpoint.problems)
    if endpoint.body is not None:
        found += _BODY
    elif endpoint.query is not None:
        found.append(_QUERY)
    if endpoint.query is not None and issubclass(endpoint.query, PageQuery):
        found.append(_CURSOR)
    found.append(_UNREADABLE)
    if isinstance(endpoint.who, Members):
        found += (*_NOBODY, _MEMBERS_ONLY)
    elif not isinstance(endpoint.who, Everybody):
        found += (*_NOBODY, *_NOT_ALLOWED)
    if "<" in endpoint.rule:
        found.append(_NOT_FOUND)
    if endpoint.idempotent:
        found += _REPEATED
    if endpoint.method != "GET":
        found.append(_TOO_LARGE)
    known: dict[tuple[int, str], Problem] = {}
    for problem in (*found, *_ALWAYS):
        known.setdefault((problem.status, problem.code), problem)
    return sorted(known.values(), key=lambda problem: problem.status)


# --- The whole ------------------------------------------------------------------------------------------


def made(areas: tuple[Area, ...]) -> Schema:
    """The document, at this shop's address."""
    return {
        **_made(areas),
        "servers": [{"url": config.get().public_url, "description": config.get().site_name}],
    }


@cache
def _made(areas: tuple[Area, ...]) -> Schema:
    """Made once in a process: the first request for it pays, inside an application's context."""
    found: Schema = dict(_tree.spec)
    found.pop("security", None)
    schemas = found["components"]["schemas"]
    for schema in schemas.values():
        if "examples" in schema and "properties" in schema:
            schema["examples"] = [_whole(example, schema, schemas) for example in schema["examples"]]
    for endpoint in (endpoint for area in areas for endpoint in area.endpoints):
        _complete(found["paths"][endpoint.path][endpoint.method.lower()], endpoint, schemas)
    _link(found["paths"], schemas)
    found["components"]["schemas"] = _kept(found["paths"], schemas)
    found["components"]["headers"] = {
        name: {"description": words, "schema": {"type": "string"}, "example": example}
        for name, (words, example) in _HEADERS.items()
    }
    exact: Schema = _exact(found)
    return exact


def _kept(paths: Schema, schemas: Schema) -> Schema:
    """The schemas that are in use: those of queries are written out where they stand.

    Answers may have more fields one day, so only what is sent is held to those there are.
    """
    bodies = [said.get("requestBody") for item in paths.values() for said in item.values()]
    sent = _reached(bodies, schemas)
    for name in sent:
        for field in schemas[name].get("properties", {}).values():
            _hold_to_text(field)
    for name in schemas.keys() - sent:
        if schemas[name].get("additionalProperties") is False:
            del schemas[name]["additionalProperties"]
    return {name: schemas[name] for name in sorted(_reached(paths, schemas))}


def _hold_to_text(schema: Schema) -> None:
    """Where any text is taken, say that NUL is none."""
    for inner in (schema, *schema.get("anyOf", ())):
        if inner.get("type") == "string" and not inner.keys() & {"pattern", "format", "enum", "const"}:
            inner["pattern"] = _TEXT


def _complete(operation: Schema, endpoint: Endpoint, schemas: Schema) -> None:
    words = inspect.getdoc(endpoint.function) or ""
    # Its first sentence stands in lists.
    first, _, rest = words.partition("\n")
    operation["summary"], _, more = first.rstrip(".").partition(". ")
    description = f"{more}.\n\n{rest}" if more else rest
    operation["description"] = re.sub(r"(?<!\n)\n(?!\n)", " ", description.strip())
    for parameter in operation["parameters"]:
        _hold_to_text(parameter["schema"])
    if endpoint.idempotent:
        operation["parameters"].append(_idempotency_key())
    if "requestBody" in operation:
        operation["requestBody"]["required"] = True
        _give_example(operation["requestBody"], schemas)
    for status, answer in operation["responses"].items():
        shape = endpoint.answers.get(int(status))
        if isinstance(shape, Binary):
            answer["content"] = {shape.content_type: {"schema": {"type": "string", "format": "binary"}}}
        elif int(status) < 400:
            _give_example(answer, schemas)
        else:
            _give_problems(answer, [each for each in _problems(endpoint) if each.status == int(status)])
        answer["headers"] = _headers(int(status), counted=bool(endpoint.count))


def _link(paths: Schema, schemas: Schema) -> None:
    """Say with each answer that has an id where that id leads: the addresses and bodies that it is a part of.

    With an id goes all that the next request has by the same name: the fee with the entry that is paid.
    """
    operations = [(path, each) for path, methods in paths.items() for each in methods.values()]
    for _, operation in operations:
        for status, answer in operation["responses"].items():
            links: Schema = {}
            for where, has in _told(answer, schemas) if int(status) < 300 else ():
                for path, to in operations:
                    link = _link_to(path, to, where, has, schemas)
                    if link and to["operationId"] != operation["operationId"]:
                        links.setdefault(to["operationId"], link)
            if links:
                answer["links"] = links


def _told(answer: Schema, schemas: Schema) -> Iterator[tuple[str, set[str]]]:
    """Where in an answer there are fields, and which: in itself, and in the first of its items."""
    fields = _properties(answer.get("content", {}).get("application/json", {}).get("schema", {}), schemas)
    yield "", set(fields)
    yield "/items/0", set(_properties(fields.get("items", {}).get("items", {}), schemas))


def _link_to(path: str, operation: Schema, where: str, has: set[str], schemas: Schema) -> Schema:
    """What an answer with these fields gives to another request; nothing where it has no id for it."""
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    in_path = [name for name in re.findall(r"\{(\w+)\}", path) if name in has and _is_name(name)]
    in_body = [name for name in _properties(body, schemas) if name in has]
    parts = {}
    if in_path:
        parts["parameters"] = {name: f"$response.body#{where}/{name}" for name in in_path}
    if any(_is_name(name) for name in in_body):
        parts["requestBody"] = {name: f"$response.body#{where}/{name}" for name in in_body}
    return {"operationId": operation["operationId"], **parts} if parts else {}


def _is_name(field: str) -> bool:
    return field.endswith("_id") or field in _HANDED_ON


def _properties(schema: Schema, schemas: Schema) -> Schema:
    found: Schema = schemas.get(schema.get("$ref", "").removeprefix(_REF), {}).get("properties", {})
    return found


def _idempotency_key() -> Schema:
    return {
        "name": repeating.HEADER,
        "in": "header",
        "required": False,
        "description": "A name of your own for this request. Sent again with it within 24 hours, it is "
        "answered again and not done again.",
        "schema": {
            "type": "string",
            "pattern": "^[ -~]+$",
            "minLength": 1,
            "maxLength": repeated_requests.LONGEST_KEY,
        },
        "example": "5f0c1a52-entry-17",
    }


def _give_example(part: Schema, schemas: Schema) -> None:
    for media in part.get("content", {}).values():
        media["example"] = sample(media["schema"], schemas)


def _give_problems(answer: Schema, problems: list[Problem]) -> None:
    shown = {
        problem.code: {
            "value": {"detail": problem.detail, "status_code": problem.status, "code": problem.code}
        }
        for problem in problems
    }
    answer["content"]["application/json"]["examples"] = shown


def _headers(status: int, *, counted: bool) -> Schema:
    names = ["RateLimit", "RateLimit-Policy"] if counted else []
    names += ["Retry-After"] if status in (429, 503) else []
    names += ["WWW-Authenticate"] if status == 401 else []
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def sample(schema: Schema, schemas: Schema) -> Any:
    """Something that fits a schema: its own example where it has one."""
    if "$ref" in schema:
        return sample(schemas[schema["$ref"].removeprefix(_REF)], schemas)
    if "examples" in schema:
        return schema["examples"][0]
    for given in ("example", "const"):
        if given in schema:
            return schema[given]
    if "enum" in schema:
        return schema["enum"][0]
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return sample(schema[several][0], schemas)
    return _sample_of_type(schema, schemas)


def _whole(example: Schema, schema: Schema, schemas: Schema) -> Schema:
    """An example with all that the schema requires: that of a smaller shape is inherited by a larger one."""
    missing = [name for name in schema.get("required", []) if name not in example]
    return {**example, **{name: sample(schema["properties"][name], schemas) for name in missing}}


def _sample_of_type(schema: Schema, schemas: Schema) -> Any:
    kind = schema.get("type")
    if kind == "object":
        return {name: sample(inner, schemas) for name, inner in schema.get("properties", {}).items()}
    if kind == "array":
        return [sample(schema["items"], schemas)] if "items" in schema else []
    plain = {"integer": schema.get("minimum", 1), "number": schema.get("minimum", 1), "boolean": True}
    return plain.get(str(kind), "text" if kind == "string" else None)


def _reached(part: Any, schemas: Schema) -> set[str]:
    """The schemas that something refers to, directly or through others."""
    wanted, found = list(_refs(part)), set[str]()
    while wanted:
        name = wanted.pop()
        if name not in found:
            found.add(name)
            wanted += _refs(schemas[name])
    return found


def _refs(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if str(part.get("$ref", "")).startswith(_REF):
            yield part["$ref"].removeprefix(_REF)
        for inner in part.values():
            yield from _refs(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from _refs(inner)


def _exponent(number: Decimal) -> int:
    return int(number.as_tuple().exponent)


def _exact(part: Any) -> Any:
    """The same with amounts as they are on the line: the only numbers with a point are those of examples."""
    if isinstance(part, float):
        return max(Decimal(str(part)), Decimal(f"{part:.2f}"), key=lambda number: -_exponent(number))
    if isinstance(part, dict):
        return {name: _exact(inner) for name, inner in part.items()}
    if isinstance(part, list | tuple):
        return [_exact(inner) for inner in part]
    return part
