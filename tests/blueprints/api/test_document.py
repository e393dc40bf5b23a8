"""The document is valid OpenAPI 3.1, whole, and true to the routes; its page shows all of it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from enum import StrEnum
from html import unescape
from typing import Any, get_args

import pytest
from flask import Flask
from flask.testing import FlaskClient
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import BaseModel

from blueprints.api import wire
from blueprints.api.endpoint import Everybody
from blueprints.visitor import API
from tests.support import api
from tests.support.sandbox import Sandbox


@pytest.fixture
def made(client: FlaskClient) -> Any:
    answer = client.get("/api/v1/openapi.json")
    assert answer.content_type == "application/json"
    return answer.get_json()


def operations(made: Any) -> list[tuple[str, str, Any]]:
    return [(path, method, said) for path, item in made["paths"].items() for method, said in item.items()]


def test_it_is_valid(made: Any) -> None:
    assert made["openapi"].startswith("3.1")
    assert list(OpenAPIV31SpecValidator(made).iter_errors()) == []
    assert made["servers"][0]["url"] == "http://localhost"


def test_it_has_every_route_and_no_other(app: Flask, made: Any) -> None:
    routes = {
        (re.sub(r"<(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        if rule.endpoint in api.endpoints()
        for method in rule.methods or set()
        if method not in ("HEAD", "OPTIONS")
    }
    assert {(path, method) for path, method, _ in operations(made)} == routes
    assert all(path.startswith(f"{API}/") for path, _ in routes)


def test_every_operation_is_described(made: Any) -> None:
    names = [said["operationId"] for _, _, said in operations(made)]
    assert len(names) == len(set(names))
    tags = {tag["name"]: tag["description"] for tag in made["tags"]}
    for path, method, said in operations(made):
        where = f"{method} {path}"
        assert said["summary"], where
        assert said["tags"] and all(tags[tag] for tag in said["tags"]), where
        assert {"400", "429", "500", "503"} <= set(said["responses"]), where
        assert any(status < "300" for status in said["responses"]), where
        if said["security"]:
            assert {"401", "403"} <= set(said["responses"]), where
        if "{" in path:
            assert "404" in said["responses"], where


def test_there_is_no_422(made: Any) -> None:
    for path, _, said in operations(made):
        assert "422" not in said["responses"], path
    assert "ValidationError" not in str(made)


def test_who_may_is_in_it(made: Any) -> None:
    known = {each.path + each.method.lower(): each for each in api.endpoints().values()}
    for path, method, said in operations(made):
        assert bool(said["security"]) is not isinstance(known[path + method].who, Everybody)
    assert set(made["components"]["securitySchemes"]) == {"token", "key"}


def test_its_examples_fit_their_schemas(client: FlaskClient) -> None:
    made = wire.read(client.get("/api/v1/openapi.json").data)
    for path, method, said in operations(made):
        for part in (said.get("requestBody", {}), *said["responses"].values()):
            for media in part.get("content", {}).values():
                shown = [media["example"]] if "example" in media else []
                shown += [each["value"] for each in media.get("examples", {}).values()]
                for example in shown:
                    api.check(media["schema"], example, made)
                assert shown or media["schema"].get("format") == "binary", f"{method} {path} has no example"


def kinds(annotation: Any) -> Iterator[type]:
    """The shapes and choices that an annotation names, with those within them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from kinds(field.annotation)
    elif isinstance(annotation, type) and issubclass(annotation, StrEnum):
        yield annotation
    for part in get_args(annotation):
        yield from kinds(part)


def test_no_two_shapes_have_one_name() -> None:
    """In the document one would silently take the other's place."""
    named: dict[str, set[type]] = {}
    for each in api.endpoints().values():
        for shape in (each.body, each.query, *each.answers.values()):
            for kind in kinds(shape):
                named.setdefault(kind.__name__, set()).add(kind)
    assert len(named) > 10
    assert {name: found for name, found in named.items() if len(found) > 1} == {}


def test_amounts_in_it_have_their_decimals(client: FlaskClient) -> None:
    assert not re.search(r"\d\.\d[,}\]]", client.get("/api/v1/openapi.json").text)


def test_the_page_shows_all_of_it(client: FlaskClient, made: Any) -> None:
    answer = client.get("/api/v1/docs")
    assert answer.mimetype == "text/html"
    page = unescape(answer.text)
    for path, _, said in operations(made):
        assert path in page
        assert said["summary"] in page
        assert f'id="{said["operationId"]}"' in page
    for problem in ("idempotency_key_reused", "wrong_login", "scope_missing"):
        assert problem in page


def test_the_page_is_under_the_strict_policy(client: FlaskClient) -> None:
    answer = client.get("/api/v1/docs")
    policy = answer.headers["Content-Security-Policy"]
    assert "script-src 'self' 'nonce-" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<script|\sstyle=|<style|\son\w+=", answer.text)
    assert set(re.findall(r'(?:src|href)="(https?://[^"]+)"', answer.text)) == set()


def test_its_lines_for_the_shell_are_whole(client: FlaskClient, sandbox: Sandbox) -> None:
    """Each is one command that a shell can read, to this address, with JSON in it."""
    page = client.get("/api/v1/docs").text
    lines = [unescape(line) for line in re.findall(r"<code>(curl .*?)</code>", page, re.S)]
    assert len(lines) > len(api.endpoints())
    for line in lines:
        shell = 'curl() { printf "%s\\n" "$@"; }\nKASSA_TOKEN=t\n'
        done = subprocess.run(
            ["sh", "-c", shell + line], capture_output=True, text=True, check=True, timeout=10
        )
        assert "http://localhost/api/v1/" in done.stdout or f"{sandbox.base_url}/control/" in done.stdout
        assert not done.stderr
