"""Production behind a front that speaks TLS: whose forms are taken."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app import create_app
from domain import credentials
from extensions import db
from tests.conftest import Browser
from tests.support import production
from tests.support.people import log_in, make_member
from tests.support.sandbox import Sandbox

HOME = "https://tickets.example.org"


@pytest.fixture
def deployed(app: Flask, environ: dict[str, str], sandbox: Sandbox) -> Iterator[FlaskClient]:
    """A browser at a Kassa in production."""
    live = create_app(production.settings(environ, HOME, sandbox.base_url))
    live.test_client_class = Browser
    client = live.test_client()
    client.environ_base |= {"wsgi.url_scheme": "https", "HTTP_HOST": "tickets.example.org"}
    yield client
    with live.app_context():
        db.engine.dispose()
    credentials.use(db.engine)


def says(client: FlaskClient, **headers: str) -> None:
    """Every request of this browser carries these headers from now on."""
    client.environ_base |= {f"HTTP_{name.upper()}": value for name, value in headers.items()}


# What Chromium, Firefox and Safari send with a form of a page that sends no Referer; what Safari before 16.4
# sends; a browser whose owner lets it say nothing; and a page that is loaded again.
@pytest.mark.parametrize(
    "headers",
    [
        {"sec_fetch_site": "same-origin", "origin": "null"},
        {"sec_fetch_site": "same-origin", "origin": HOME},
        {"origin": "null"},
        {"origin": HOME},
        {},
        {"sec_fetch_site": "none", "origin": "null"},
    ],
)
def test_a_browser_s_form_is_taken_over_https(deployed: FlaskClient, headers: dict[str, str]) -> None:
    make_member()
    says(deployed, **headers)
    assert log_in(deployed).status_code == 303
    page = deployed.get("/account/")
    assert page.status_code == 200
    assert page.headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize(
    "headers",
    [
        {"sec_fetch_site": "cross-site"},
        # A sister domain could plant a cookie, and with it a token, in the browser.
        {"sec_fetch_site": "same-site", "origin": "https://blog.example.org"},
        {"origin": "https://evil.example"},
        {"origin": "http://tickets.example.org"},
    ],
)
def test_a_form_of_another_site_is_not_taken(deployed: FlaskClient, headers: dict[str, str]) -> None:
    make_member()
    says(deployed, **headers)
    answer = log_in(deployed)
    assert answer.status_code == 400
    assert "another site" in answer.text
    assert deployed.get("/account/").status_code == 303


def test_without_cookies_a_form_says_so(deployed: FlaskClient) -> None:
    blocked = deployed.application.test_client(use_cookies=False)
    blocked.environ_base |= {"wsgi.url_scheme": "https", "HTTP_HOST": "tickets.example.org"}
    make_member()
    answer = log_in(blocked)
    assert answer.status_code == 400
    assert "Allow cookies for tickets.example.org" in answer.text
    assert "too long" not in answer.text
    # Who has cookies, and an old form, reads the old words.
    deployed.get("/account/login")
    old = deployed.post("/account/login", data={"csrf_token": "of yesterday"})
    assert "open for too long" in old.text and "cookie" not in old.text
