"""Calling the API as a program does: a token or a key, JSON both ways, answers held against the document."""

from __future__ import annotations

from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from openapi_schema_validator import OAS31Validator
from werkzeug.test import TestResponse

from blueprints.api import areas, document, wire
from blueprints.api.endpoint import Endpoint
from blueprints.visitor import API
from domain.people import api_access
from domain.security import api_tokens
from domain.security.scopes import Scope
from models import User


class Api:
    """A program. Its answers are checked: the status, and that the document says so."""

    def __init__(self, client: FlaskClient, credential: str = "") -> None:
        self.client = client
        self.credential = credential
        self.last: TestResponse

    def get(self, path: str, *, status: int | str | None = None, **query: str) -> Any:
        """A `status` in words is a query's own."""
        if isinstance(status, str):
            return self.send("GET", path, query={**query, "status": status})
        return self.send("GET", path, status=status, query=query)

    def post(
        self, path: str, body: Any = None, *, status: int | None = None, idempotency_key: str | None = None
    ) -> Any:
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        return self.send("POST", path, body, status=status, headers=headers)

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        status: int | None = None,
        query: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Any:
        """What is answered, with numbers exact. `body` is sent as JSON; a text goes as it is."""
        sent = dict(headers or {})
        if self.credential:
            sent["Authorization"] = f"Bearer {self.credential}"
        data = body if isinstance(body, str) or body is None else wire.write(body)
        kind = None if body is None else "application/json"
        self.last = self.client.open(
            API + path, method=method, data=data, query_string=query, headers=sent, content_type=kind
        )
        if status is None:
            assert self.last.status_code < 300, (self.last.status_code, self.last.text)
        else:
            assert self.last.status_code == status, (self.last.status_code, self.last.text)
        documented(self.client.application, method, API + path, self.last)
        return wire.read(self.last.data) if self.last.is_json else self.last.data


def as_nobody(client: FlaskClient) -> Api:
    return Api(client)


def as_member(client: FlaskClient, user: User) -> Api:
    """A program that this member has logged in with."""
    return Api(client, api_tokens.begin(user, "A test").access)


def as_key(client: FlaskClient, user: User, *scopes: Scope) -> Api:
    """A server with a key of this member's."""
    return Api(client, api_access.make_key(user, "A server", scopes, 30)[1])


def endpoints() -> dict[str, Endpoint]:
    """Every endpoint by its name in Flask."""
    return {f"api.{each.name}": each for area in areas.AREAS for each in area.endpoints}


def documented(app: Flask, method: str, path: str, response: TestResponse) -> None:
    """Hold an answer against what the document says of its endpoint and status."""
    name, _ = app.url_map.bind("localhost").match(path, method)
    endpoint = endpoints()[str(name)]
    with app.app_context():
        made = document.made(areas.AREAS)
    answers = made["paths"][endpoint.path][method.lower()]["responses"]
    assert str(response.status_code) in answers, f"{response.status_code} is not in the document of {path}."
    media = answers[str(response.status_code)].get("content", {}).get(wire.JSON)
    if media is not None:
        check(media["schema"], wire.read(response.data), made)


def check(schema: dict[str, Any], value: Any, made: dict[str, Any]) -> None:
    """Raises where `value` does not fit a schema of the document."""
    OAS31Validator({**schema, "components": made["components"]}).validate(value)
