"""Everything that is wrong below /api/v1 is answered in one shape, whoever found it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

import config
import extensions
from app import create_app
from blueprints.api import caller, limits
from extensions import db, limiter, queue
from tests.support import api
from tests.support.people import make_member


def said(answer: TestResponse, status: int, code: str) -> str:
    """The words of an answer that is wrong in this way."""
    assert answer.status_code == status, answer.text
    assert answer.content_type == "application/json"
    body = answer.get_json()
    assert set(body) == {"detail", "status_code", "code"}
    assert (body["status_code"], body["code"]) == (status, code)
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Origin" in answer.headers["Vary"]
    words: str = body["detail"]
    return words


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/api/v1",
            "/api/v1/",
            "/api/v1/nothing",
            "/api/v1/auth/token/",
            "/api/v1//keys",
            "/api/v1/keys/x",
        ),
        "/api/v1/%2e%2e/account",
    ],
)
def test_nothing_there(client: FlaskClient, path: str) -> None:
    said(client.get(path, headers={"Accept": "text/html"}), 404, "not_found")


def test_the_pages_are_not_answered_so(client: FlaskClient) -> None:
    for path in ("/api/v2/nothing", "/api", "/api/v10", "/nothing"):
        answer = client.get(path)
        assert (answer.status_code, answer.mimetype) == (404, "text/html"), path


def test_methods_that_an_address_has_not(client: FlaskClient) -> None:
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        answer = client.open("/api/v1/auth/token", method=method)
        said(answer, 405, "method_not_allowed")
        assert set(answer.headers["Allow"].split(", ")) == {"OPTIONS", "POST"}


def test_what_is_too_large_or_too_deep(client: FlaskClient) -> None:
    for body in ('{"email": "' + "x" * 300_000 + '"}', "[" * 40 + "]" * 40):
        answer = client.post("/api/v1/auth/token", data=body, content_type="application/json")
        said(answer, 413, "too_large")


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        ("{", "application/json", "not_json"),
        ("", "application/json", "not_json"),
        ('{"email": NaN}', "application/json", "not_json"),
        ('{"email": "a", "email": "b", "password": "c"}', "application/json", "not_json"),
        ('{"email": "a\\u0000", "password": "b"}', "application/json", "unreadable"),
        ('{"email": "\\ud800", "password": "b"}', "application/json", "unreadable"),
        ('{"email": "a", "password": "b"}', "text/plain", "not_json"),
        ("email=a&password=b", "application/x-www-form-urlencoded", "not_json"),
        ("email=%ff", "application/x-www-form-urlencoded", "unreadable"),
    ],
)
def test_bodies_that_cannot_be_read(client: FlaskClient, body: str, kind: str, code: str) -> None:
    said(client.post("/api/v1/auth/token", data=body, content_type=kind), 400, code)


def test_a_path_that_is_no_text(client: FlaskClient) -> None:
    said(client.get("/api/v1/keys/%00"), 400, "unreadable")
    said(client.get("/api/v1/keys/%ff"), 400, "unreadable")


def test_a_fault_of_ours(client: FlaskClient, app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> caller.Credential:
        raise ZeroDivisionError("kassa_abcdefgh_ and other secrets")

    monkeypatch.setattr(caller, "credential", fail)
    app.testing = False
    app.config["PROPAGATE_EXCEPTIONS"] = False
    try:
        words = said(client.get("/api/v1/keys"), 500, "server_error")
    finally:
        app.testing = True
        app.config["PROPAGATE_EXCEPTIONS"] = None
    assert "secrets" not in words


def test_a_database_that_keeps_everybody_waiting(
    client: FlaskClient, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = api.as_member(client, make_member()).credential
    monkeypatch.setattr(extensions, "WEB", extensions.Limits(lock=0.3, statement=5, idle=60))
    db.session.rollback()
    with psycopg.connect(database_url) as stranger:
        stranger.execute("LOCK TABLE users, api_sessions IN ACCESS EXCLUSIVE MODE")
        answer = client.get("/api/v1/keys", headers={"Authorization": f"Bearer {token}"})
        said(answer, 503, "busy")
        assert int(answer.headers["Retry-After"]) > 0


# --- Limits ---------------------------------------------------------------------------------------------


@pytest.fixture(params=["redis", "without redis"])
def limited(app: Flask, request: pytest.FixtureRequest) -> Iterator[FlaskClient]:
    """A browser of an application whose limits are on; they hold without Redis, too."""
    settings = config.get()
    # Another test's Redis may have been away.
    limiter._storage_dead = False
    redis_url = settings.redis_url if request.param == "redis" else "redis://127.0.0.1:9"
    other = create_app(replace(settings, limits=True, redis_url=redis_url))
    try:
        yield other.test_client()
    finally:
        limiter.enabled = False
        config.use(settings)
        queue.bind(settings.redis_url)
        with other.app_context():
            db.engine.dispose()


def test_limits_are_told_and_kept(limited: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LOGINS", "6 per minute")
    member = make_member()
    first, other = (api.as_member(limited, member).credential for _ in range(2))
    asked = {"headers": {"Authorization": f"Bearer {first}"}}
    answer = limited.get("/api/v1/keys", **asked)
    assert answer.headers["RateLimit-Policy"] == '"network";q=2400;w=60, "caller";q=900;w=60'
    left = answer.headers["RateLimit"]
    assert left.startswith('"caller";r=899;t=')
    for _ in range(5):
        limited.post("/api/v1/auth/refresh", json={"refresh_token": "x"})
    last = limited.post("/api/v1/auth/refresh", json={"refresh_token": "x"})
    assert last.status_code == 401
    assert last.headers["RateLimit"].startswith('"login";r=0;t=')
    refused = limited.post("/api/v1/auth/token", json={"email": "a@example.org", "password": "b"})
    said(refused, 429, "too_many_requests")
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert refused.headers["RateLimit"] == f'"login";r=0;t={refused.headers["Retry-After"]}'
    # Who has a token goes on, each by its own count.
    assert limited.get("/api/v1/keys", **asked).headers["RateLimit"].startswith('"caller";r=898;')
    told = limited.get("/api/v1/keys", headers={"Authorization": f"Bearer {other}"}).headers["RateLimit"]
    assert told.startswith('"caller";r=899;')
    # From elsewhere it is another network's count.
    elsewhere = {"environ_overrides": {"REMOTE_ADDR": "192.0.2.7"}, "json": {"refresh_token": "x"}}
    assert limited.post("/api/v1/auth/refresh", **elsewhere).status_code == 401


def test_an_endpoints_own_limit(limited: FlaskClient) -> None:
    token = api.as_member(limited, make_member()).credential
    asked = {"headers": {"Authorization": f"Bearer {token}"}, "json": {}}
    statuses = [limited.post("/api/v1/keys", **asked).status_code for _ in range(31)]
    assert statuses == [400] * 30 + [429]
