"""What one visitor does or sees is not another's: limits, caches, and what a file gives away."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select

import config
from app import create_app
from domain.orders import waiting_line
from domain.tickets import documents
from extensions import db, limiter, queue
from models import Event, LineMode, LinePlace, Role
from tests.support.people import log_in, make_member, post
from tests.support.shop import make_event, place


@pytest.fixture
def limited(app: Flask) -> Iterator[FlaskClient]:
    """A browser of an application whose limits are on, each process for itself."""
    settings = config.get()
    other = create_app(replace(settings, limits=True, redis_url="redis://127.0.0.1:9"))
    try:
        yield other.test_client()
    finally:
        limiter.enabled = False
        config.use(settings)
        queue.bind(settings.redis_url)
        with other.app_context():
            db.engine.dispose()


def test_who_knows_a_code_alone_uses_up_nothing_of_its_buyer_s(limited: FlaskClient) -> None:
    order = place(make_event(price_minor=0))
    own, guessed = (f"/o/{order.code}/{secret}/resend" for secret in (order.secret, "guessed"))
    assert [post(limited, guessed, page="/tickets/find").status_code for _ in range(6)] == [404] * 5 + [429]
    assert [post(limited, own, page="/tickets/find").status_code for _ in range(6)] == [303] * 5 + [429]


def test_hundreds_wait_in_a_line_behind_one_address(limited: FlaskClient) -> None:
    """Each page looks again by itself: who looks too often keeps nobody else from it."""
    event = make_event("rush", line=LineMode.ON)
    for name in "ab":
        waiting_line.ask(event, f"{name}@example.org", user=None, client_address="127.0.0.1")
    own, other = (waiting_line.path(event, found) for found in db.session.scalars(select(LinePlace)))
    assert [limited.get(own).status_code for _ in range(61)] == [200] * 60 + [429]
    assert limited.get(other).status_code == 200


def test_asking_for_passwords_has_a_limit_of_its_network(limited: FlaskClient) -> None:
    codes = set()
    for number in range(3):
        limited.environ_base["REMOTE_ADDR"] = f"2001:db8:1:2::{number:x}"
        limited.get("/account/forgot")
        codes |= {post(limited, "/account/forgot", email=f"a{n}@example.org").status_code for n in range(100)}
    assert codes == {303}
    assert post(limited, "/account/forgot", email="last@example.org").status_code == 429
    limited.environ_base["REMOTE_ADDR"] = "2001:db8:1:3::1"
    assert post(limited, "/account/forgot", email="last@example.org").status_code == 303


def test_a_calendar_s_file_has_no_link_to_the_order(app: Flask) -> None:
    """Calendars are shared, and copied to other services."""
    order = place(make_event(price_minor=0))
    told = documents.calendar(order).replace(b"\r\n ", b"").decode()
    assert order.secret not in told
    assert order.code in told and "/events/concert" in told


def test_nothing_behind_a_login_is_stored(app: Flask) -> None:
    """Every page without a part to fill in, as an admin sees it; and the same event for a guest."""
    make_member("boss@example.org", Role.ADMIN)
    order = place(make_event(price_minor=0))
    browser = app.test_client()
    log_in(browser, "boss@example.org")
    pages = [
        str(rule) for rule in app.url_map.iter_rules() if "GET" in (rule.methods or ()) and not rule.arguments
    ]
    shown = {path: browser.get(path) for path in pages if "poll" not in path and path != "/stripe/debug"}
    shown |= {path: browser.get(path) for path in ("/events/concert", f"/admin/orders/{order.code}")}
    stored = {
        path: answer.headers.get("Cache-Control", "")
        for path, answer in shown.items()
        if answer.status_code == 200 and "no-store" not in answer.headers.get("Cache-Control", "")
    }
    # The same for everybody, whoever asks: nothing of them depends on a login.
    open_to_all = ("/livez", "/healthz", "/metrics", "/api/", "/favicon", "/.well-known", "/robots", "/apple")
    assert {path for path in stored if not path.startswith(open_to_all)} == set(), stored
    assert len(shown) > 25
    assert app.test_client().get("/events/concert").headers["Cache-Control"] == "private, no-cache"
    # An order's page is behind its link: a phone without a connection still shows it.
    own, guest = f"/o/{order.code}/{order.secret}", app.test_client()
    assert browser.get(own).headers["Cache-Control"] == "private, no-cache"
    # What else is behind a secret is stored nowhere, whoever asks.
    line = waiting_line.ask(
        make_event("rush", line=LineMode.ON), "a@example.org", user=None, client_address="192.0.2.1"
    )
    place_of = db.session.scalars(select(LinePlace)).one()
    assert line is None
    behind = [f"{own}/tickets.pdf", f"{own}/event.ics", f"{own}.json", waiting_line.path(rush(), place_of)]
    for path in behind:
        answer = guest.get(path)
        assert answer.status_code == 200 and "no-store" in answer.headers["Cache-Control"], path
    waiting_line.confirm(rush(), place_of.secret, client_address="192.0.2.1")
    turn = guest.get(behind[-1])
    assert "It is your turn" in turn.text and turn.headers["Cache-Control"] == "private, no-store"


def rush() -> Event:
    return db.session.scalars(select(Event).filter_by(slug="rush")).one()
