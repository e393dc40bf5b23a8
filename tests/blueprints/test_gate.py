"""What is held before a request is parsed, and that no input makes a page of ours fail."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from io import BytesIO
from urllib.parse import quote, urlencode

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select

from blueprints import gate
from domain.door import staff
from extensions import db
from models import Event, Role, User
from tests.support.people import log_in, make_member
from tests.support.shop import make_event, place, settled

FORM = "application/x-www-form-urlencoded"
DEEP = "[" * 100_000

# What no page may answer with a fault of ours, in any field and any address. (What is no text stops before.)
NASTY = ("1e999999999", "9" * 5000, "9" * 18, "NaN", "²", "-1", "x" * 20_000, "\u202e'\"><\\%_")


@pytest.fixture
def admin(app: Flask) -> FlaskClient:
    """An admin's browser, who may see every page."""
    make_member("boss@example.org", Role.ADMIN)
    client = app.test_client()
    log_in(client, "boss@example.org")
    return client


# --- The limits, one by one -----------------------------------------------------------------------------


def test_the_endpoints_that_take_more_are_there(app: Flask) -> None:
    assert set(gate.LARGER) <= set(app.view_functions)


def test_the_server_refuses_by_what_the_gate_says(app: Flask) -> None:
    limit_of = app.extensions["body_limit"]
    assert limit_of("POST", "/organiser/events/new") == gate.PICTURE_BYTES
    assert limit_of("POST", "/events/show") == limit_of("POST", "/nowhere") == gate.MOST_BYTES
    assert limit_of("PUT", "/organiser/events/new") == gate.MOST_BYTES


@pytest.mark.parametrize("body", [b"a" * (gate.MOST_BYTES + 1), b"&" * gate.MOST_FIELDS])
def test_too_large_and_too_many(client: FlaskClient, body: bytes) -> None:
    answer = client.post("/account/register", data=body, content_type=FORM)
    assert answer.status_code == 413
    assert "more than this address takes" in answer.text


def test_too_many_in_parts_and_in_the_address(client: FlaskClient) -> None:
    parts = {f"f{number}": (BytesIO(b"x"), "x") for number in range(gate.MOST_FIELDS + 50)}
    assert client.post("/account/register", data=parts).status_code == 413
    assert client.get("/?" + "a&" * gate.MOST_FIELDS).status_code == 413


def test_a_large_text_is_not_taken_where_a_picture_is(admin: FlaskClient) -> None:
    picture = {"picture": (BytesIO(b"a" * 5_000_000), "a.png"), "title": "x"}
    assert admin.post("/organiser/events/new", data=picture).status_code == 400
    text = {"picture": (BytesIO(b""), ""), "title": "x" * 400_000}
    answer = admin.post("/organiser/events/new", data=text, content_type="multipart/form-data")
    assert answer.status_code == 413


@pytest.mark.parametrize("kind", ["application/json", "text/plain"])
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (DEEP, 413),
        ('{"a":' * 33 + "1" + "}" * 33, 413),
        ('{"text": "\\ud800"}', 400),
        ('{"a": "\\u0000"}', 400),
        ('[{"\\udfff": 1}]', 400),
        (b'{"text": "\xed\xa0\x80"}', 400),
    ],
)
def test_json_that_nobody_can_keep(client: FlaskClient, body: str | bytes, status: int, kind: str) -> None:
    answer = client.post("/sumup/webhook/", data=body, content_type=kind)
    assert answer.status_code == status


def test_json_in_another_alphabet(client: FlaskClient) -> None:
    body = json.dumps({"a": "[" * 40}).encode("utf-16")
    assert client.post("/sumup/webhook/", data=body, content_type="application/json").status_code == 400


def test_brackets_in_a_text_are_not_deep(client: FlaskClient) -> None:
    body = json.dumps({"text": "[{" * 100 + '\\"[', "list": [[1], [2]] * 40})
    assert client.post("/sumup/webhook/", data=body, content_type="application/json").status_code == 400
    assert gate._depth(body.encode()) == 3


@pytest.mark.parametrize("text", ["%ED%A0%80", "%FF", "%00", "a%00b"])
@pytest.mark.parametrize("where", ["query", "form", "name", "path"])
def test_what_is_no_text(client: FlaskClient, text: str, where: str) -> None:
    if where == "query":
        answer = client.get(f"/?q={text}")
    elif where == "path":
        answer = client.get(f"/events/{text}")
    else:
        body = f"email={text}" if where == "form" else f"{text}=1"
        answer = client.post("/account/register", data=body, content_type=FORM)
    assert answer.status_code == 400
    assert "not text" in answer.text


@pytest.mark.parametrize("number", ["0" * 19, "9" * 5000, "-1", "²"])
def test_a_number_that_no_row_has_is_no_address(admin: FlaskClient, number: str) -> None:
    assert admin.get(f"/admin/incidents/{quote(number)}").status_code == 404


# --- Everything, everywhere -----------------------------------------------------------------------------


class Forms(HTMLParser):
    """The forms of a page: where they are sent, and what they would send untouched."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str, dict[str, str]]] = []
        self._select = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.found.append((told.get("method", "get").lower(), told.get("action", ""), {}))
        if not self.found:
            return
        fields, name = self.found[-1][2], told.get("name", "")
        if tag in ("input", "textarea", "button") and name and told.get("type") != "file":
            fields.setdefault(name, told.get("value", ""))
        elif tag == "select":
            self._select = name
        elif tag == "option" and (self._select not in fields or "selected" in told):
            fields[self._select] = told.get("value", "")


@pytest.fixture
def crowded(admin: FlaskClient) -> Event:
    """An event with everything that a page may be about."""
    boss = db.session.scalars(select(User).filter_by(email="boss@example.org")).one()
    event = make_event("spray", price_minor=0)
    staff.make_pass(event, "Main", boss)
    place(event)
    settled(place(make_event("paid")), "open", "paid")
    return event


def addresses(app: Flask, event: Event) -> Iterator[tuple[str, str, str]]:
    """Every rule of the site, an address of it that there is, and a method."""
    order = place(event)
    door_pass, _ = staff.make_pass(event, "Spray", db.session.scalars(select(User)).first())
    parts = {
        "slug": event.slug, "code": order.code, "secret": order.secret, "type_id": event.ticket_types[0].id,
        "token": door_pass.token, "export_type": "csv", "filename": "app.css", "provider": "stripe",
    }  # fmt: skip
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<any\((\w+)[^)]*\):\w+>", r"\1", rule.rule)
        path = re.sub(r"<(?:[^:<>]+:)?(\w+)>", lambda match: str(parts.get(match[1], 1)), path)
        for method in sorted((rule.methods or set()) & {"GET", "POST"}):
            if rule.endpoint != "account.log_out":
                yield rule.rule, path, method


def known(app: Flask, event: Event) -> list[tuple[str, str, str]]:
    """All of `addresses`, with no transaction left open behind it."""
    found = list(addresses(app, event))
    db.session.commit()
    return found


PARAMETERS = (
    *("q", "before", "state", "decided", "event_id", "page", "next", "session_id", "code", "error", "id"),
    *("sort", "desc", "search", "page_size", "flt0_0", "url", "query", "offset", "limit", "name"),
)
# Sent last, because they end what the others are about.
ENDING = re.compile("/(cancel|delete|end|revoke|leave|logout|withdraw|refund|decide|password)")


@pytest.fixture
def as_deployed(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails is a page with 500 on it, and not an exception in the test."""
    monkeypatch.setitem(app.config, "PROPAGATE_EXCEPTIONS", False)


@pytest.mark.usefixtures("as_deployed")
def test_no_address_fails_whatever_it_is_asked(app: Flask, admin: FlaskClient, crowded: Event) -> None:
    failed = set()
    for number, (rule, path, method) in enumerate(known(app, crowded)):
        ask = partial(admin.open, method=method)
        for turn in range(0, len(NASTY), 3) if method == "GET" else (0,):
            # Each name meets some texts at each address, and all of them at its neighbours.
            asked = {name: NASTY[(at + turn + number) % len(NASTY)] for at, name in enumerate(PARAMETERS)}
            if ask(f"{path}?{urlencode(asked)}").status_code >= 500:
                failed.add((method, path, str(asked)[:300]))
        for text in NASTY[2::5] if "<" in rule else ():
            if ask(re.sub(r"<[^>]*>", quote(text, safe=""), rule)).status_code >= 500:
                failed.add((method, rule, text))
    assert failed == set()


@pytest.mark.usefixtures("as_deployed")
def test_no_form_fails_whatever_is_typed(app: Flask, admin: FlaskClient, crowded: Event) -> None:
    """Each field of each form of each page, one at a time, the others as the page filled them in."""
    forms: dict[str, dict[str, str]] = {}
    for _, path, method in known(app, crowded):
        if method == "GET":
            page = admin.get(f"{path}?id=1" if path.startswith("/admin/records/") else path)
            for sent_by, action, fields in Forms(page.text if page.mimetype == "text/html" else "").found:
                if sent_by == "post":
                    forms.setdefault(action or page.request.full_path, fields)
    assert len(forms) > 30
    failed = set()
    for action in sorted(forms, key=lambda action: (ENDING.search(action) is not None, action)):
        fields = forms[action]
        for name in set(fields) - {"csrf_token"}:
            for text in NASTY[::2]:
                if admin.post(action, data={**fields, name: text}).status_code >= 500:
                    failed.add((action, name, text))
    assert failed == set()


@pytest.mark.usefixtures("as_deployed")
@pytest.mark.parametrize("text", [*NASTY, "\ud800", "a\0b"])
def test_no_json_fails_at_the_door(admin: FlaskClient, crowded: Event, text: str) -> None:
    where = f"/door/events/{crowded.slug}"
    token = re.search(r'name="csrf_token" value="([^"]+)"', admin.get(f"{where}/").text)
    assert token is not None
    for path in ("scan", "undo", "admit-rest"):
        body = json.dumps({"scan_id": text, "text": text, "of": text})
        answer = admin.post(
            f"{where}/{path}", data=body, content_type="application/json", headers={"X-CSRFToken": token[1]}
        )
        assert answer.status_code < 500
        assert answer.status_code == 400 or text.isprintable()


@pytest.mark.usefixtures("as_deployed")
@pytest.mark.parametrize(
    "text", ["x" * 5000, "1e999999999", "\xed\xa0\x80\x7f", "::1%\xb2, 999.1.1.1", "'\"><"]
)
def test_no_header_fails(client: FlaskClient, crowded: Event, text: str) -> None:
    """What strangers write into headers is theirs, too: also where the front passes it on."""
    names = (
        *("X-Forwarded-For", "User-Agent", "Accept-Language", "Accept", "If-None-Match", "Range"),
        *("Cookie", "If-Modified-Since", "X-Request-ID", "Referer", "Origin", "Accept-Encoding"),
    )
    headers = dict.fromkeys(names, text)
    pages = (
        f"/events/{crowded.slug}",
        "/",
        "/account/login",
        "/tickets/find",
        "/livez",
        "/static/css/kassa.css",
    )
    for page in pages:
        assert client.get(page, headers=headers).status_code < 500
    token = re.search(r'name="csrf_token" value="([^"]+)"', client.get("/account/forgot").text)
    assert token is not None
    typed = {"csrf_token": token[1], "email": "a@example.org", "password": "wrong"}
    for page in ("/account/login", "/tickets/find", "/account/forgot", "/stripe/webhook/", "/nothing"):
        assert client.post(page, data=typed, headers={**headers, "Cookie": ""}).status_code < 500
        # With the session's own cookie the form is read, and the address is counted.
        own = {name: text for name in names if name not in ("Cookie", "Origin")}
        assert client.post(page, data=typed, headers=own).status_code < 500
