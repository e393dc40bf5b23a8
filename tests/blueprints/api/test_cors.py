"""Scripts of other sites: only listed ones, echoed letter by letter, never with cookies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from flask.testing import FlaskClient

import config
from tests.support import api
from tests.support.people import make_member

LISTED = "https://app.example.org"
ASKS = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type",
}


@pytest.fixture(autouse=True)
def listed(client: FlaskClient) -> Iterator[None]:
    before = config.get()
    config.use(replace(before, api_return_origins=(LISTED, "http://localhost:3000")))
    yield
    config.use(before)


@pytest.mark.parametrize(
    "path", ["/api/v1/auth/token", "/api/v1/keys", "/api/v1/nothing", "/api/v1/check-in"]
)
def test_a_listed_sites_browser_asks_first(client: FlaskClient, path: str) -> None:
    """Without a token, and where nothing is too."""
    answer = client.options(path, headers={"Origin": LISTED, **ASKS})
    assert answer.status_code == 204
    assert answer.headers["Access-Control-Allow-Origin"] == LISTED
    assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
    assert "Idempotency-Key" in answer.headers["Access-Control-Allow-Headers"]
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    assert "Access-Control-Allow-Credentials" not in answer.headers
    assert "RateLimit" not in answer.headers
    assert "Origin" in answer.headers["Vary"]


def test_its_script_reads_answers_and_refusals(client: FlaskClient) -> None:
    token = api.as_member(client, make_member()).credential
    for headers, status in (({"Authorization": f"Bearer {token}"}, 200), ({}, 401)):
        answer = client.get("/api/v1/keys", headers={"Origin": LISTED, **headers})
        assert answer.status_code == status
        assert answer.headers["Access-Control-Allow-Origin"] == LISTED
        assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]
        assert "Access-Control-Allow-Credentials" not in answer.headers
        assert "Origin" in answer.headers["Vary"]


@pytest.mark.parametrize(
    "origin",
    [
        *(
            "https://evil.example",
            "https://app.example.org.evil.example",
            "http://app.example.org",
            "null",
            "*",
            "",
        ),
        *(
            "https://APP.example.org",
            "https://app.example.org/",
            "https://app.example.org:443",
            "https://localhost:3000",
        ),
    ],
)
def test_no_other_site(client: FlaskClient, origin: str) -> None:
    for answer in (
        client.options("/api/v1/keys", headers={"Origin": origin, **ASKS}),
        client.get("/api/v1/keys", headers={"Origin": origin}),
    ):
        assert not [name for name, _ in answer.headers if name.startswith("Access-Control-")]
        assert "Origin" in answer.headers["Vary"]


def test_pages_are_nobodys_to_read(client: FlaskClient) -> None:
    answer = client.get("/", headers={"Origin": LISTED})
    assert not [name for name, _ in answer.headers if name.startswith("Access-Control-")]
