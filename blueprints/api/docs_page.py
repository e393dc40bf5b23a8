"""The API's document for programs, and the same to read: a page of our own, made of it on the server."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

from flask import Blueprint, Response, render_template

import config
from blueprints.api import document, limits, wire
from blueprints.api.document import Schema, sample
from blueprints.api.endpoint import Area
from blueprints.visitor import API
from domain import clock
from domain.security.scopes import WORDS

_REF = "#/components/schemas/"
_EVERYWHERE = frozenset((problem.status, problem.code) for problem in document.EVERYWHERE)


@dataclass(frozen=True)
class Field:
    """A line of a table of fields."""

    name: str
    kind: str
    required: bool
    words: str


@dataclass(frozen=True)
class Said:
    """An answer, as the page shows it."""

    status: str
    words: str
    fields: list[Field]
    example: str
    is_wrong: bool
    # (code, words) of what may be wrong here and not everywhere.
    problems: list[tuple[str, str]]


@dataclass(frozen=True)
class Operation:
    """An endpoint, as the page shows it."""

    id: str
    method: str
    path: str
    summary: str
    paragraphs: list[str]
    who: str
    parameters: list[Field]
    body: list[Field]
    curl: str
    answers: list[Said]


def add(bp: Blueprint, areas: tuple[Area, ...]) -> None:
    """Route the document and its page."""

    @bp.get("/openapi.json")
    def openapi() -> Response:
        limits.count_open()
        response = Response(wire.write(document.made(areas)), content_type=wire.JSON)
        response.headers["Cache-Control"] = "public, max-age=300"
        return response

    @bp.get("/docs")
    def docs() -> str:
        limits.count_open()
        made = document.made(areas)
        chapters = [(area, [_operation(made, path, method) for path, method in _of(area)]) for area in areas]
        return render_template(
            "api/docs.html",
            made=made,
            base=made["servers"][0]["url"] + API,
            chapters=chapters,
            scopes=WORDS,
            everywhere=sorted(document.EVERYWHERE, key=lambda problem: problem.status),
            minor_born=clock.now().date().replace(day=1) - timedelta(days=15 * 365),
            sandbox=_sandbox(),
        )


def _sandbox() -> str:
    """Where the sandbox is told what a person does at the bank; "" where none stands for the providers."""
    settings = config.get()
    parts = urlsplit(settings.stripe_api_base)
    return f"{parts.scheme}://{parts.netloc}/control" if settings.development and parts.netloc else ""


def _of(area: Area) -> list[tuple[str, str]]:
    return [(endpoint.path, endpoint.method.lower()) for endpoint in area.endpoints]


def _operation(made: Schema, path: str, method: str) -> Operation:
    said, schemas = made["paths"][path][method], made["components"]["schemas"]
    body = said.get("requestBody", {}).get("content", {}).get(wire.JSON)
    return Operation(
        id=said["operationId"],
        method=method.upper(),
        path=path,
        summary=said["summary"],
        paragraphs=[part for part in said["description"].split("\n\n") if part],
        who=_who(said["security"]),
        parameters=[_parameter(each, schemas) for each in said["parameters"]],
        body=_fields(body["schema"], schemas) if body else [],
        curl=_curl(made["servers"][0]["url"], path, method.upper(), said, body),
        answers=[_said(status, answer, schemas) for status, answer in said["responses"].items()],
    )


def _who(security: list[dict[str, list[str]]]) -> str:
    if not security:
        return "Anybody. No token is needed."
    scopes = [scope for way in security for scope in way.get("key", [])]
    if not scopes:
        return "A member's access token. An API key may not do it."
    return f"A member's access token, or an API key with {' and '.join(scopes)}."


def _parameter(said: Schema, schemas: Schema) -> Field:
    words = said.get("description", "")
    where = {"path": "in the path", "header": "header", "query": "query"}[said["in"]]
    return Field(said["name"], f"{_kind(said['schema'], schemas)}, {where}", said["required"], words)


def _fields(schema: Schema, schemas: Schema) -> list[Field]:
    whole = _resolved(schema, schemas)
    required = whole.get("required", [])
    return [
        Field(name, _kind(inner, schemas), name in required, _resolved(inner, schemas).get("description", ""))
        for name, inner in whole.get("properties", {}).items()
    ]


def _resolved(schema: Schema, schemas: Schema) -> Schema:
    if "$ref" not in schema:
        return schema
    found: Schema = schemas[schema["$ref"].removeprefix(_REF)]
    return {**found, **{name: value for name, value in schema.items() if name != "$ref"}}


def _kind(schema: Schema, schemas: Schema) -> str:
    """A schema's type in a few words: text, list of Key, one of a, b; null is said too."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_kind(inner, schemas) for inner in schema["anyOf"]))
    whole = _resolved(schema, schemas)
    if "enum" in whole or "const" in whole:
        return "one of " + ", ".join(str(value) for value in whole.get("enum", [whole.get("const")]))
    if whole.get("type") == "array":
        return f"list of {_kind(whole.get('items', {}), schemas)}"
    if whole.get("type") == "object":
        inner = ", ".join(whole.get("properties", {}))
        return f"object ({inner})" if inner else "object"
    words = {"string": "text", "integer": "whole number", "boolean": "true or false"}
    kind = str(whole.get("format") or whole.get("type", "anything"))
    return words.get(kind, kind)


def _said(status: str, answer: Schema, schemas: Schema) -> Said:
    content: dict[str, Schema] = answer.get("content", {})
    kind = next(iter(content), "")
    media = content.get(kind, {})
    examples: dict[str, Schema] = media.get("examples", {})
    problems = [
        (code, each["value"]["detail"])
        for code, each in examples.items()
        if (int(status), code) not in _EVERYWHERE
    ]
    is_json = kind == wire.JSON and not examples
    return Said(
        status=status,
        words=answer["description"] + (f" ({kind})" if kind not in ("", wire.JSON) else ""),
        fields=_fields(media["schema"], schemas) if is_json else [],
        example=wire.write_to_read(media["example"]) if is_json else "",
        is_wrong=bool(examples),
        problems=problems,
    )


def _curl(home: str, path: str, method: str, said: Schema, body: Schema | None) -> str:
    """A line that works when it is pasted into a shell where KASSA_TOKEN is set."""
    shown = re.sub(r"{(\w+)}", lambda found: _path_example(said, found[1]), path)
    parts = [f"curl {shlex.quote(home + shown)}"]
    if method not in ("GET", "POST") or (method == "POST" and body is None):
        parts.append(f"-X {method}")
    if said["security"]:
        parts.append('-H "Authorization: Bearer $KASSA_TOKEN"')
    if body is not None:
        parts.append("-H 'Content-Type: application/json'")
        parts.append(f"-d {shlex.quote(wire.write(body['example']))}")
    return " \\\n  ".join(parts)


def _path_example(said: Schema, name: str) -> str:
    schema = next(each["schema"] for each in said["parameters"] if each["name"] == name)
    return str(sample(schema, {}) if "examples" in schema else f"{name.removesuffix('_id')}_...")
