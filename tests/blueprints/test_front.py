"""Production behind a front that speaks TLS: whose forms are taken, and under which address."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from itertools import product
from typing import Any

import pytest
from flask import Flask, abort
from PIL import Image
from werkzeug.test import TestResponse

import config
from app import create_app
from domain.catalogue import pictures
from domain.connections import credentials
from domain.door import staff
from extensions import db
from models import Order
from tests.conftest import Browser
from tests.support import production
from tests.support.people import PASSWORD, log_in, make_member, post
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, place
from tests.support.web import ring

HOME = "https://tickets.example.org"


class Fronted(Browser):
    """A browser as the front lets us see it. `passed` is what each request has in its environ."""

    passed: dict[str, str]

    def open(self, *args: Any, **kwargs: Any) -> TestResponse:
        return super().open(*args, environ_overrides=self.passed, **kwargs)


@pytest.fixture(scope="module")
def live(migrated: Flask, environ: dict[str, str], sandbox: Sandbox) -> Iterator[Flask]:
    """A Kassa in production."""
    before = config.get()
    made = create_app(production.settings(environ, HOME, sandbox.base_url))
    made.config["KASSA_SETTINGS"] = config.get()
    yield made
    config.use(before)
    with made.app_context():
        db.engine.dispose()


@pytest.fixture
def deployed(app: Flask, live: Flask) -> Iterator[Fronted]:
    """A browser at it."""
    config.use(live.config["KASSA_SETTINGS"])
    with live.app_context():
        credentials.use(db.engine)
    yield visitor(live)
    credentials.use(db.engine)


def visitor(live: Flask, **options: bool) -> Fronted:
    """Somebody who asks for the right host by https."""
    client = Fronted(live, live.response_class, **options)
    client.passed = {"wsgi.url_scheme": "https", "HTTP_HOST": "tickets.example.org"}
    return client


def front(client: Fronted, host: str = "tickets.example.org", **headers: str) -> None:
    """What the front passes on from now on: the host that was asked for, and more headers."""
    client.passed = {"wsgi.url_scheme": "https", "HTTP_HOST": host}
    says(client, **headers)


def says(client: Fronted, **headers: str) -> None:
    """Every request of this browser carries these headers from now on."""
    client.passed |= {f"HTTP_{name.upper()}": value for name, value in headers.items()}


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
def test_a_browser_s_form_is_taken_over_https(deployed: Fronted, headers: dict[str, str]) -> None:
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
def test_a_form_of_another_site_is_not_taken(deployed: Fronted, headers: dict[str, str]) -> None:
    make_member()
    says(deployed, **headers)
    answer = log_in(deployed)
    assert answer.status_code == 400
    assert "another site" in answer.text
    assert deployed.get("/account/").status_code == 303


def test_without_cookies_a_form_says_so(deployed: Fronted) -> None:
    blocked = visitor(deployed.application, use_cookies=False)
    make_member()
    answer = log_in(blocked)
    assert answer.status_code == 400
    assert "Allow cookies for tickets.example.org" in answer.text
    assert "too long" not in answer.text
    # Who has cookies, and an old form, reads the old words.
    deployed.get("/account/login")
    old = deployed.post("/account/login", data={"csrf_token": "of yesterday"})
    assert "open for too long" in old.text and "cookie" not in old.text


# --- One address, by https ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("host", ["tickets.example.org", "evil.example", "tickets.example.org:80"])
def test_what_is_asked_for_in_clear_leads_to_https(deployed: Fronted, method: str, host: str) -> None:
    front(deployed, host, x_forwarded_proto="http")
    answer = deployed.open("/events/no%20such?a=b%26c&d=%C3%A9", method=method)
    assert answer.status_code == 308
    assert answer.location == f"{HOME}/events/no%20such?a=b%26c&d=%C3%A9"


def test_a_form_in_clear_is_refused_in_words(deployed: Fronted) -> None:
    make_member()
    front(deployed, x_forwarded_proto="http")
    answer = deployed.post("/account/login", data={"email": "ann@example.org", "password": PASSWORD})
    assert answer.status_code == 403
    assert "without encryption" in answer.text and HOME in answer.text
    assert "Log in</a> with an account" not in answer.text
    told = deployed.post("/account/login", json={}, headers={"Accept": "application/json"})
    assert (told.status_code, told.get_json()["error"]) == (403, "not_encrypted")


@pytest.mark.parametrize(
    ("proxies", "told", "status"),
    [
        *[(1, "https", 200), (1, "", 200), (1, "https, http", 308)],
        *[
            (2, "http, https", 308),
            (2, "https, http", 200),
            (2, "http", 308),
            (2, "https", 200),
            (2, "", 200),
        ],
    ],
)
def test_only_the_trusted_front_says_what_came_in_clear(
    deployed: Fronted, proxies: int, told: str, status: int
) -> None:
    config.use(replace(config.get(), trusted_proxies=proxies))
    front(deployed, x_forwarded_proto=told)
    assert deployed.get("/").status_code == status


def test_nobody_is_led_to_https_by_a_front_that_is_not_there(deployed: Fronted) -> None:
    config.use(replace(config.get(), trusted_proxies=0))
    front(deployed, x_forwarded_proto="http", x_forwarded_host="tickets.example.org")
    assert deployed.get("/").status_code == 200
    front(deployed, "evil.example")
    assert deployed.get("/").status_code == 307


@pytest.mark.parametrize("path", ["/livez", "/healthz", "/metrics"])
def test_hosts_ask_how_we_are_under_any_name_and_in_clear(deployed: Fronted, path: str) -> None:
    config.use(replace(config.get(), metrics_token="measure"))
    front(deployed, "10.0.0.7:8000", x_forwarded_proto="http", authorization="Bearer measure")
    assert deployed.get(path).status_code == 200


def test_a_ring_is_served_under_any_name_and_in_clear(deployed: Fronted) -> None:
    front(deployed, "old.example.org", x_forwarded_proto="http")
    body = '{"id": "evt_1", "object": "event", "type": "invoice.paid", "data": {"object": {}}}'
    assert ring(deployed, body, production.KEYS["STRIPE_WEBHOOK_SECRET"]).status_code == 200
    assert ring(deployed, body, "whsec_another").status_code == 400


@pytest.mark.parametrize("host", ["evil.example", "tickets.example.org.", "evil.example:443", "[broken", ""])
def test_another_host_s_name_leads_home(deployed: Fronted, host: str) -> None:
    front(deployed, host)
    paths = ("/", "/wallet", "/wallet/?a=1", "/static/kassa.css", "/nothing", "/stripe/webhook", "/admin")
    for method, path in product(("GET", "POST"), paths):
        answer = deployed.open(path, method=method)
        assert (answer.status_code, answer.location) == (307, f"{HOME}{path}")
        assert "evil.example" not in answer.text


@pytest.mark.parametrize(
    "host", ["TICKETS.example.org", "tickets.example.org:443", "tickets.example.org:8443"]
)
def test_our_own_name_is_served_whatever_its_port(deployed: Fronted, host: str) -> None:
    front(deployed, host)
    assert deployed.get("/").status_code == 200
    # A missing slash repeats nothing of what the request came with.
    assert deployed.get("/wallet?a=%C3%A9").location == "/wallet/?a=%C3%A9"
    deployed.passed |= {"PATH_INFO": "//wallet"}
    assert deployed.get("/").location == "/wallet/"


def test_a_front_may_pass_the_name_on_beside_its_own(deployed: Fronted) -> None:
    front(deployed, "127.0.0.1:8000", x_forwarded_host="tickets.example.org")
    assert deployed.get("/").status_code == 200
    front(deployed, "127.0.0.1:8000", x_forwarded_host="tickets.example.org, evil.example")
    assert deployed.get("/").status_code == 307


def test_a_name_in_other_letters_is_ours_as_browsers_write_it(deployed: Fronted) -> None:
    config.use(replace(config.get(), public_url="https://kasse.m\u00fcnchen.example"))
    front(deployed, "kasse.xn--mnchen-3ya.example")
    assert deployed.get("/").status_code == 200
    front(deployed, "evil.example")
    assert deployed.get("/").location == "https://kasse.xn--mnchen-3ya.example/"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_program_is_led_nowhere(deployed: Fronted, method: str) -> None:
    """It would bring its token along."""
    sent = {"headers": {"Authorization": "Bearer x"}, "method": method}
    front(deployed, x_forwarded_proto="http")
    clear = deployed.open("/api/v1/keys", **sent)
    assert (clear.status_code, clear.get_json()["code"]) == (403, "not_encrypted")
    assert HOME in clear.get_json()["detail"]
    front(deployed, host="other.example.org")
    elsewhere = deployed.open("/api/v1/keys", **sent)
    assert (elsewhere.status_code, elsewhere.get_json()["code"]) == (421, "wrong_host")
    assert "Location" not in clear.headers
    assert "Location" not in elsewhere.headers
    front(deployed)
    assert deployed.open("/api/v1/keys", **sent).get_json()["code"] == "token_invalid"


@pytest.mark.parametrize(
    ("development", "url", "host", "status"),
    [
        (True, "http://localhost:8000", "127.0.0.1:8000", 200),
        (True, "http://localhost:8000", "192.168.1.7:8000", 200),
        (True, "http://localhost:8000", "kassa:8000", 200),
        (True, "http://localhost:8000", "evil.example", 307),
        # A production that was not told where it is.
        (False, "http://localhost:8000", "tickets.example.org", 200),
        (False, "https://tickets.example.org", "127.0.0.1:8000", 307),
    ],
)
def test_a_developer_may_come_by_any_name_of_the_machine(
    deployed: Fronted, development: bool, url: str, host: str, status: int
) -> None:
    config.use(replace(config.get(), development=development, public_url=url))
    front(deployed, host)
    assert deployed.get("/").status_code == status


def kinds_of_answers(app: Flask, order: Order) -> Iterator[tuple[str, str, int, dict[str, Any]]]:
    """(method, path, status, more) of each kind of answer that there is."""
    yield from (
        ("GET", path, status, {})
        for path, status in {
            "/": 200,
            "/events/concert": 200,
            "/events/concert/calendar.ics": 200,
            "/account/login": 200,
            f"/o/{order.code}/{order.secret}": 200,
            f"/o/{order.code}/{order.secret}.json": 200,
            f"/o/{order.code}/{order.secret}/event.ics": 200,
            f"/o/{order.code}/wrong": 404,
            "/static/css/kassa.css": 200,
            "/static/favicon.svg": 200,
            "/static/../app.py": 404,
            "/static/": 404,
            "/.git/config": 404,
            "/.env": 404,
            "/bootstrap/static/css/bootstrap.min.css": 200,
            "/account/devices/": 303,
            "/admin": 308,
            "/events/%00": 400,
            "/livez": 200,
            "/healthz": 200,
            "/metrics": 404,
            "/api/v1/docs": 200,
            "/api/v1/openapi.json": 200,
            "/api/v1/tournaments": 200,
            "/api/v1/athletes": 401,
            "/api/v1/nothing": 404,
        }.items()
    )
    yield "POST", "/account/login", 400, {"data": {"email": "a@example.org"}}
    yield "POST", "/account/login", 413, {"data": b"a" * 300_000}
    yield "TRACE", "/", 405, {}
    yield "PUT", "/account/login", 405, {}
    yield "OPTIONS", "/", 200, {}
    yield "GET", "/admin/", 401, {"headers": {"Accept": "application/json"}}
    yield "POST", "/api/v1/auth/token", 400, {"json": {}}
    yield "PUT", "/api/v1/auth/token", 405, {}
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    yield "OPTIONS", "/api/v1/athletes", 204, {"headers": asked}

    def breaks() -> Any:
        raise RuntimeError("on purpose")

    app.view_functions["shop.find"] = breaks
    yield "GET", "/tickets/find", 500, {}
    app.view_functions["shop.find"] = lambda: abort(429)
    yield "GET", "/tickets/find", 429, {}


def test_every_kind_of_answer_carries_the_headers(deployed: Fronted, monkeypatch: pytest.MonkeyPatch) -> None:
    """A browser shows, loads, sends on and frames of none of them what it should not."""
    app = deployed.application
    monkeypatch.setitem(app.view_functions, "shop.find", app.view_functions["shop.find"])
    order, seen = place(make_event(price_minor=0)), set()
    for method, path, status, more in kinds_of_answers(app, order):
        answer = deployed.open(path, method=method, **more)
        told, asked = answer.headers, f"{method} {path}"
        assert answer.status_code == status, asked
        policy = dict(part.strip().partition(" ")[::2] for part in told["Content-Security-Policy"].split(";"))
        for directive in ("object-src", "base-uri", "frame-ancestors"):
            assert policy[directive] == "'none'", asked
        assert policy["default-src"] == "'self'" and "unsafe" not in told["Content-Security-Policy"], asked
        assert told["X-Content-Type-Options"] == "nosniff", asked
        assert told["Referrer-Policy"] == "no-referrer", asked
        assert told["Strict-Transport-Security"].startswith("max-age=31536000"), asked
        assert told["Cross-Origin-Opener-Policy"] == "same-origin", asked
        assert told["Cross-Origin-Resource-Policy"] == "same-origin", asked
        assert "Access-Control-Allow-Origin" not in told and "Server" not in told, asked
        kind = told["Content-Type"]
        assert not kind.startswith("text/") or "charset=utf-8" in kind, asked
        assert "Traceback" not in answer.text and "on purpose" not in answer.text, asked
        for cookie in told.getlist("Set-Cookie"):
            name, flags = cookie.split("=", 1)[0], cookie.lower()
            assert name.startswith("__Host-") and "domain=" not in flags, asked
            assert all(flag in flags for flag in ("secure", "httponly", "samesite=lax", "path=/")), asked
            seen.add(name)
    assert seen == {"__Host-session"}
    before = dict(app.extensions["plain_headers"])
    assert before["Strict-Transport-Security"] == "max-age=31536000"
    assert before["Content-Security-Policy"].startswith("default-src 'none'")


def test_what_is_answered_in_clear_says_nothing_that_browsers_complain_of(deployed: Fronted) -> None:
    says(deployed, x_forwarded_proto="http")
    led = deployed.get("/events/concert")
    assert (led.status_code, "Cross-Origin-Opener-Policy" in led.headers) == (308, False)


def test_every_cookie_is_of_this_host_alone(deployed: Fronted) -> None:
    make_member()
    form = {"email": "ann@example.org", "password": PASSWORD, "remember": "yes"}
    answer = post(deployed, "/account/login", **form)
    cookies = {one.split("=", 1)[0]: one.lower() for one in answer.headers.getlist("Set-Cookie")}
    assert set(cookies) == {"__Host-session", "__Host-remember_token", "__Host-device"}
    for flags in cookies.values():
        assert all(flag in flags for flag in ("secure", "httponly", "samesite=lax", "path=/"))
        assert "domain=" not in flags and len(flags) < 4096


def test_a_door_s_cookie_is_of_its_address_alone(deployed: Fronted) -> None:
    door_pass, pin = staff.make_pass(make_event(), "Main", None)
    base = f"/door/{door_pass.token}/"
    cookie = post(deployed, f"{base}enter", page=base, pin=pin, name="Dora").headers["Set-Cookie"]
    assert cookie.startswith("__Secure-kassa_door=")
    assert all(flag in cookie for flag in ("Secure", "HttpOnly", "SameSite=Lax", f"Path={base}"))
    assert deployed.get(f"{base}count.json").status_code == 200
    # A phone that has been at the door since before the cookie had that name stays there.
    value = cookie.partition("=")[2].partition(";")[0]
    before = visitor(deployed.application)
    before.set_cookie("kassa_door", value, domain="tickets.example.org", path=base, secure=True)
    assert before.get(f"{base}count.json").status_code == 200


def test_what_other_sites_may_show_says_so(deployed: Fronted) -> None:
    image = BytesIO()
    Image.new("RGB", (40, 20)).save(image, "PNG")
    picture = pictures.store(image.getvalue())
    db.session.commit()
    answer = deployed.get(f"/pictures/{picture.sha256}")
    assert answer.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert answer.headers["Content-Type"] == "image/jpeg"


@pytest.mark.parametrize(("bound", "told"), [(False, ""), (True, "; includeSubDomains")])
def test_other_hosts_of_the_domain_are_bound_only_where_it_is_said(
    deployed: Fronted, bound: bool, told: str
) -> None:
    config.use(replace(config.get(), hsts_subdomains=bound))
    assert deployed.get("/").headers["Strict-Transport-Security"] == f"max-age=31536000{told}"
