"""The door over HTTP: who gets in to scan, what a phone is told, and what works without JavaScript."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from unittest.mock import Mock
from uuid import uuid4

import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from sqlalchemy import event as sa_event
from sqlalchemy import func, select
from werkzeug.exceptions import Forbidden, TooManyRequests
from werkzeug.test import TestResponse

from domain import clock, codes
from domain.door import check_in, qr_reader, staff
from domain.tickets import documents, issuing
from extensions import db
from models import CheckIn, DoorPass, Event, Order, Role, Ticket
from tests.support.people import log_in, make_member, post
from tests.support.shop import make_event, place


class Phone:
    """A phone at a door, with the page's CSRF token as the page's script sends it."""

    def __init__(self, client: FlaskClient, base: str) -> None:
        self.client, self.base = client, base
        page = client.get(base).text
        token = re.search(r'name="csrf-token" content="([^"]+)"', page)
        assert token is not None, page
        self.token = token[1]

    def send(self, path: str, **body: object) -> TestResponse:
        headers = {"X-CSRFToken": self.token, "Accept": "application/json"}
        return self.client.post(self.base + path, json=body, headers=headers)

    def scan(self, text: str, scan_id: str = "") -> dict[str, object]:
        answer = self.send("scan", scan_id=scan_id or str(uuid4()), text=text)
        assert answer.status_code == 200, answer.text
        told: dict[str, object] = answer.get_json()
        return told

    def frame(self, data: bytes) -> TestResponse:
        headers = {"X-CSRFToken": self.token, "Accept": "application/json", "Content-Type": "image/jpeg"}
        return self.client.post(self.base + "frame", data=data, headers=headers)


@pytest.fixture
def order(app: Flask) -> Order:
    """Three free tickets of one order."""
    return place(make_event(price_minor=0), 3)


@pytest.fixture
def concert(order: Order) -> Event:
    assert order.event is not None
    return order.event


@pytest.fixture
def door_pass(concert: Event) -> tuple[DoorPass, str]:
    return staff.make_pass(concert, "North door", None)


@pytest.fixture
def phone(client: FlaskClient, door_pass: tuple[DoorPass, str]) -> Phone:
    """A phone whose owner typed the PIN."""
    return enter(client, *door_pass)


def enter(client: FlaskClient, made: DoorPass, pin: str, name: str = "Dora") -> Phone:
    base = f"/door/{made.token}/"
    answer = post(client, f"{base}enter", page=base, pin=pin, name=name)
    assert (answer.status_code, answer.location) == (303, base), answer.text
    return Phone(client, base)


def qr(ticket: Ticket) -> str:
    return issuing.qr_text(ticket, ticket.order.code)


# --- Getting in -----------------------------------------------------------------------------------------


def test_a_link_and_its_pin_open_the_door(app: Flask, door_pass: tuple[DoorPass, str], order: Order) -> None:
    made, pin = door_pass
    client = app.test_client()
    base = f"/door/{made.token}/"
    assert 'name="pin"' in client.get(base).text
    refused = post(client, f"{base}enter", page=base, pin="12", name="Dora")
    assert refused.status_code == 400
    assert "That PIN is not right" in refused.text and 'value="Dora"' in refused.text
    phone = enter(client, made, pin)
    page = client.get(base).text
    assert "Dora, North door" in page and "<b>" in page
    assert phone.scan(qr(order.tickets[0]))["by"] == "Dora, North door"
    cookie = client.get_cookie("kassa_door", path=base)
    assert cookie is not None and cookie.http_only and cookie.path == base and cookie.max_age
    assert post(client, f"{base}leave", page=base).status_code == 303
    assert 'name="pin"' in client.get(base).text


def test_nothing_at_a_door_opens_without_its_pin(app: Flask, phone: Phone, order: Order) -> None:
    stranger = app.test_client()
    assert stranger.get(phone.base + "count.json").status_code == 401
    for path in ("list", "search?q=ada"):
        answer = stranger.get(phone.base + path)
        assert (answer.status_code, answer.location) == (303, phone.base), path
        assert order.code not in answer.text
    token = re.search(r'name="csrf_token" value="([^"]+)"', stranger.get(phone.base).text)
    assert token is not None
    headers = {"X-CSRFToken": token[1], "Accept": "application/json"}
    for path in ("scan", "frame", "undo", "admit-rest"):
        answer = stranger.post(phone.base + path, json={}, headers=headers)
        assert answer.status_code == 401, path
        assert "PIN" in answer.get_json()["message"]
    assert db.session.scalars(select(func.count()).select_from(CheckIn)).one() == 0


def test_a_pass_opens_its_own_event_only(phone: Phone) -> None:
    made, _ = staff.make_pass(make_event("other"), "Other door", None)
    assert 'name="pin"' in phone.client.get(f"/door/{made.token}/").text
    # Even with the first pass's cookie carried over by hand.
    cookie = phone.client.get_cookie("kassa_door", path=phone.base)
    assert cookie is not None
    phone.client.set_cookie("kassa_door", cookie.value, path=f"/door/{made.token}/")
    assert 'name="pin"' in phone.client.get(f"/door/{made.token}/").text
    phone.client.set_cookie("kassa_door", "made.up", path=f"/door/{made.token}/")
    assert 'name="pin"' in phone.client.get(f"/door/{made.token}/").text


def test_a_pass_that_ended_closes_every_phone(phone: Phone, concert: Event, order: Order) -> None:
    phone.scan(qr(order.tickets[0]))
    made = db.session.scalars(select(DoorPass)).one()
    staff.revoke(concert, made.id)
    assert phone.client.get(phone.base).status_code == 404
    answer = phone.send("scan", scan_id=str(uuid4()), text=qr(order.tickets[1]))
    assert answer.status_code == 404
    assert "withdrawn" in answer.get_json()["message"]


def test_requests_without_the_csrf_token_do_nothing(phone: Phone, order: Order) -> None:
    body = {"scan_id": str(uuid4()), "text": qr(order.tickets[0])}
    assert phone.client.post(phone.base + "scan", json=body).status_code == 400
    assert phone.client.post(phone.base + "check", data=body).status_code == 400
    assert phone.client.post(phone.base + "frame", data=b"x").status_code == 400
    assert db.session.scalars(select(func.count()).select_from(CheckIn)).one() == 0


@pytest.mark.parametrize(
    ("role", "status", "manages"), [(Role.ADMIN, 200, 200), (Role.DOOR, 200, 403), (Role.BUYER, 403, 403)]
)
def test_members_by_their_role(
    client: FlaskClient, concert: Event, order: Order, role: Role, status: int, manages: int
) -> None:
    base = f"/door/events/{concert.slug}/"
    assert client.get(base).status_code == 303
    make_member(role=role)
    log_in(client)
    assert client.get(base).status_code == status
    assert client.get("/door/").status_code == status
    assert client.get(base + "list").status_code == status
    assert client.get(base + "passes").status_code == manages
    if status == 200:
        phone = Phone(client, base)
        assert phone.scan(qr(order.tickets[0]))["by"] == "Ann Example"


def test_an_organiser_has_the_doors_of_their_own_events(client: FlaskClient, concert: Event) -> None:
    user = make_member(role=Role.ORGANISER)
    own = make_event("own", organiser_id=user.id)
    log_in(client)
    assert client.get(f"/door/events/{own.slug}/").status_code == 200
    assert client.get(f"/door/events/{own.slug}/passes").status_code == 200
    assert client.get(f"/door/events/{concert.slug}/").status_code == 404
    assert client.get(f"/door/events/{concert.slug}/passes").status_code == 404
    index = client.get("/door/").text
    assert "Own" in index and "Concert" not in index


def test_passes_are_made_shown_once_and_withdrawn(app: Flask, client: FlaskClient, concert: Event) -> None:
    make_member(role=Role.ADMIN)
    log_in(client)
    path = f"/door/events/{concert.slug}/passes"
    page = post(client, path, label="South door").text
    pin = re.search(r"PIN <b>(\d{3} \d{3})</b>", page)
    link = re.search(r'href="http://localhost(/door/[^"]+/)"', page)
    assert pin is not None and link is not None
    assert pin[1] not in client.get(path).text
    made = db.session.scalars(select(DoorPass)).one()
    phone = enter(app.test_client(), made, pin[1])
    assert phone.base == link[1]
    assert post(client, f"{path}/{made.id}/revoke", page=path).status_code == 303
    assert phone.client.get(phone.base).status_code == 404
    assert "Withdrawn" in client.get(path).text


# --- Scanning by a script -------------------------------------------------------------------------------


def test_what_a_phone_is_told(phone: Phone, order: Order) -> None:
    told = phone.scan(qr(order.tickets[0]), "a-scan-id")
    when = told.pop("when")
    assert isinstance(when, str) and when.endswith("+00:00")
    assert re.fullmatch(r"\d\d:\d\d", str(told.pop("time")))
    assert told == {
        "scan_id": "a-scan-id",
        "verdict": "valid",
        "title": "Valid",
        "words": "Welcome.",
        "holder": "Ada Buyer",
        "type": "Standard",
        "by": "Dora, North door",
        "rest": 2,
        "count": {"admitted": 1, "total": 3},
    }
    assert phone.scan(qr(order.tickets[0]), "a-scan-id")["verdict"] == "valid"
    assert phone.scan(qr(order.tickets[0]))["verdict"] == "used"
    assert phone.scan("nonsense")["verdict"] == "unknown"
    assert phone.scan(qr(order.tickets[1])[:-1] + "1")["verdict"] == "forged"
    other = place(make_event("other", price_minor=0))
    assert phone.scan(qr(other.tickets[0]))["verdict"] == "wrong_event"
    issuing.void(order.tickets[1:2], "Refunded")
    db.session.commit()
    assert phone.scan(qr(order.tickets[1]))["verdict"] == "void"
    assert phone.client.get(phone.base + "count.json").get_json() == {"admitted": 1, "total": 2}


@pytest.mark.parametrize("body", [{}, {"scan_id": 1, "text": "x"}, {"scan_id": "12345678"}, {"text": "x"}])
def test_a_request_that_cannot_be_read(phone: Phone, body: dict[str, object]) -> None:
    answer = phone.send("scan", **body)
    assert answer.status_code == 400
    assert answer.get_json()["error"] == "unreadable"


def test_the_rest_of_an_order_and_undoing(phone: Phone, order: Order) -> None:
    first, group = str(uuid4()), str(uuid4())
    phone.scan(qr(order.tickets[0]), first)
    told = phone.send("admit-rest", of=first, scan_id=group).get_json()
    assert (told["number"], told["count"]) == (2, {"admitted": 3, "total": 3})
    assert phone.send("undo", scan_id=group).get_json()["count"] == {"admitted": 1, "total": 3}
    refused = phone.send("undo", scan_id=group)
    assert refused.status_code == 400
    assert refused.get_json()["error"] == "nothing_to_undo"


@pytest.fixture
def queries(app: Flask) -> Iterator[list[str]]:
    """Every statement that was sent since the list was last cleared."""
    sent: list[str] = []

    def note(connection: object, cursor: object, statement: str, *_: object) -> None:
        sent.append(statement)

    sa_event.listen(db.engine, "before_cursor_execute", note)
    yield sent
    sa_event.remove(db.engine, "before_cursor_execute", note)


def test_a_scan_over_http_costs_at_most_four_queries(
    app: Flask, phone: Phone, order: Order, concert: Event, queries: list[str]
) -> None:
    make_member("door@example.org", role=Role.DOOR)
    client = app.test_client()
    log_in(client, "door@example.org")
    member = Phone(client, f"/door/events/{concert.slug}/")
    texts = [qr(ticket) for ticket in order.tickets]
    for browser, text, most in ((phone, texts[0], 3), (phone, "nonsense", 3), (member, texts[1], 4)):
        queries.clear()
        browser.scan(text)
        assert len(queries) <= most, queries


# --- Frames ---------------------------------------------------------------------------------------------


def test_a_frame_is_read_and_then_scanned(phone: Phone, order: Order) -> None:
    text = qr(order.tickets[0])
    code = Image.open(io.BytesIO(documents.qr_png(text, scale=5))).convert("RGB")
    scene = Image.new("RGB", (960, 720), "grey")
    scene.paste(code.rotate(12, fillcolor="white"), (200, 100))
    out = io.BytesIO()
    scene.save(out, "JPEG", quality=50)
    told = phone.frame(out.getvalue()).get_json()
    assert told == {"text": text}
    assert phone.scan(told["text"])["verdict"] == "valid"


def test_frames_that_are_no_frames(phone: Phone) -> None:
    blank = io.BytesIO()
    Image.new("L", (320, 240), 128).save(blank, "JPEG")
    assert phone.frame(blank.getvalue()).get_json() == {"text": None}
    assert phone.frame(b"nothing").status_code == 400
    assert phone.frame(b"\xff" * (qr_reader.MAX_BYTES * 3)).status_code == 413
    large = phone.frame(b"\xff" * (qr_reader.MAX_BYTES + 1))
    assert (large.status_code, large.get_json()["error"]) == (400, "frame_too_large")


# --- Without JavaScript ---------------------------------------------------------------------------------


def form(client: FlaskClient, path: str, page: str, **fields: str) -> TestResponse:
    return post(client, path, page=page, **fields)


def test_a_code_is_typed_into_a_plain_form(phone: Phone, order: Order) -> None:
    code, scan_id = order.tickets[0].code, str(uuid4())
    check, page = phone.base + "check", phone.base
    first = form(phone.client, check, page, code=code.lower(), scan_id=scan_id).text
    assert 'data-verdict="valid"' in first and "Ada Buyer" in first
    assert "more of this order" in first
    # Reloading the answer sends the form again, and repeats it.
    assert 'data-verdict="valid"' in form(phone.client, check, page, code=code.lower(), scan_id=scan_id).text
    again = form(phone.client, check, page, code=code, scan_id=str(uuid4())).text
    assert 'data-verdict="used"' in again and "Already let in" in again
    assert form(phone.client, check, page, code=code, scan_id="").status_code == 400
    rest = form(phone.client, phone.base + "admit-rest", page, of=scan_id, scan_id=str(uuid4()))
    assert rest.location == phone.base
    assert "2 more of this order let in" in phone.client.get(phone.base).text
    form(phone.client, phone.base + "undo", page, scan_id=scan_id)
    shown = phone.client.get(phone.base).text
    assert "Undone: 1 ticket can be used again" in shown and "(undone)" in shown


def test_people_are_looked_up_and_let_in(phone: Phone, order: Order) -> None:
    page = phone.client.get(phone.base + "search?q=buyer").text
    assert page.count('class="found-entry"') == 3
    assert "ada@example.org" not in page and "a•••@example.org" in page
    code = re.search(r'name="code" value="([^"]+)"', page)
    assert code is not None
    answer = form(phone.client, phone.base + "check", phone.base, code=code[1], scan_id=str(uuid4()))
    assert 'data-verdict="valid"' in answer.text
    assert "In since" in phone.client.get(phone.base + "search?q=buyer").text
    assert "Nobody found" in phone.client.get(phone.base + "search?q=<script>").text


def test_the_list_to_print(phone: Phone, order: Order) -> None:
    phone.scan(qr(order.tickets[0]))
    page = phone.client.get(phone.base + "list").text
    assert page.count("Ada Buyer") == 3 and page.count("✓") == 1
    assert codes.show(order.tickets[1].code) in page


def test_pages_of_a_door_stay_in_no_cache_and_have_no_inline_code(phone: Phone) -> None:
    for path in ("", "list", "search?q=ada"):
        answer = phone.client.get(phone.base + path)
        assert answer.headers["Cache-Control"] == "no-store"
        assert not re.search(r"<script>|<style|\sstyle=|\son[a-z]+=", answer.text)


def test_a_door_that_is_not_there(client: FlaskClient) -> None:
    assert client.get("/door/nothing/").status_code == 404
    make_member(role=Role.ADMIN)
    log_in(client)
    assert client.get("/door/events/nothing/").status_code == 404
    assert "no events whose door" in client.get("/door/").text


def test_over_events_are_not_listed(client: FlaskClient, concert: Event) -> None:
    make_member(role=Role.DOOR)
    log_in(client)
    assert "Concert" in client.get("/door/").text
    concert.starts_at = clock.now() - staff.GOOD_AFTER_END * 3
    concert.ends_at = clock.now() - staff.GOOD_AFTER_END * 2
    db.session.commit()
    assert "Concert" not in client.get("/door/").text
    assert check_in.count(concert).total == 3


# --- Refusals that a script can read --------------------------------------------------------------------


@pytest.mark.parametrize("path", ["scan", "frame"])
@pytest.mark.parametrize("accept", ["application/json", "*/*"])
def test_every_refusal_of_a_script_is_json(
    phone: Phone, monkeypatch: pytest.MonkeyPatch, path: str, accept: str
) -> None:
    def told(base: str, status: int, **headers: str) -> str:
        answer = phone.client.post(base + path, data=b"x", headers={"Accept": accept, **headers})
        assert (answer.status_code, answer.mimetype) == (status, "application/json"), answer.text
        return str(answer.get_json()["message"])

    token = {"X-CSRFToken": phone.token}
    assert "open for too long" in told(phone.base, 400)
    assert told("/door/not-a-door/", 404, **token)
    assert told(phone.base, 400, **token)

    monkeypatch.setattr(phone.client.application, "testing", False)
    for fault, status in ((Forbidden(), 403), (TooManyRequests(), 429), (RuntimeError("ours"), 500)):
        monkeypatch.setattr(qr_reader, "read", Mock(side_effect=fault))
        monkeypatch.setattr("blueprints.door.scanning._json", Mock(side_effect=fault))
        assert told(phone.base, status, **token)
