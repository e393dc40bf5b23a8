"""Check-in by a program: the door's own scan, for doors that are the caller's."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient
from sqlalchemy import func, select

from domain.security.scopes import Scope
from domain.tickets import issuing
from extensions import db
from models import CheckIn, Role, Ticket
from tests.support import api
from tests.support.people import make_member
from tests.support.shop import make_event, place


@pytest.fixture
def server(client: FlaskClient) -> api.Api:
    place(make_event(price_minor=0), 2)
    return api.as_key(client, make_member(role=Role.DOOR), Scope.TICKETS_CHECK_IN)


def ticket() -> Ticket:
    return db.session.scalars(select(Ticket).order_by(Ticket.id).limit(1)).one()


def test_a_code_is_let_in_once(server: api.Api) -> None:
    code = issuing.qr_text(ticket(), ticket().order.code)
    first = server.post("/check-in", {"event": "concert", "code": code})
    assert (first["verdict"], first["words"], first["by"]) == ("valid", "Welcome.", "A server")
    assert (first["admitted"], first["total"], first["rest"]) == (1, 2, 1)
    assert (first["holder"], first["type"]) == ("Ada Buyer", "Standard")
    second = server.post("/check-in", {"event": "concert", "code": code})
    assert (second["verdict"], second["at"], second["by"]) == ("used", first["at"], "A server")


def test_a_scan_that_has_a_name_is_repeated(server: api.Api) -> None:
    body = {"event": "concert", "code": ticket().code, "scan_id": "turnstile-3-000017"}
    assert server.post("/check-in", body) == server.post("/check-in", body)
    said = server.post("/check-in", {**body, "code": "7KQ2M4XP"}, status=400)
    assert said["code"] == "scan_id_reused"
    assert db.session.scalars(select(func.count()).select_from(CheckIn)).one() == 1


@pytest.mark.parametrize(("code", "verdict"), [("7KQ2M4XP", "unknown"), ("not a code", "unknown")])
def test_what_is_no_ticket_is_an_answer_too(server: api.Api, code: str, verdict: str) -> None:
    said = server.post("/check-in", {"event": "concert", "code": code})
    assert (said["verdict"], said["holder"], said["at"]) == (verdict, "", None)


def test_whose_door_it_is(client: FlaskClient, server: api.Api) -> None:
    assert server.post("/check-in", {"event": "nothing", "code": "x"}, status=404)["code"] == "no_event"
    owner = make_member("owner@example.org", Role.ORGANISER)
    make_event("theirs", price_minor=0, organiser_id=owner.id)
    for program in (api.as_member(client, owner), api.as_key(client, owner, Scope.TICKETS_CHECK_IN)):
        assert program.post("/check-in", {"event": "theirs", "code": "x"})["verdict"] == "unknown"
        assert program.post("/check-in", {"event": "concert", "code": "x"}, status=404)["code"] == "no_event"
    assert api.as_member(client, owner).post("/check-in", {"event": "theirs", "code": "x"})["by"] == ""


@pytest.mark.parametrize(
    "body",
    [{}, {"event": "concert"}, {"event": "concert", "code": ""}, {"event": "concert", "code": "x" * 501}],
)
def test_bodies_that_are_refused(server: api.Api, body: dict[str, str]) -> None:
    assert server.post("/check-in", body, status=400)["code"] == "invalid"
