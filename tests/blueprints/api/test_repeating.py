"""Idempotency-Key over HTTP: the same request twice is done once."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func, select

from blueprints.api import areas, endpoint, errors, repeating, shapes
from blueprints.api.errors import ApiProblem, Problem
from domain import repeated_requests
from domain.errors import DomainError
from domain.security.scopes import Scope
from extensions import db
from models import ApiRequest, CheckIn, Role, Ticket
from tests.support import api
from tests.support.people import make_member
from tests.support.shop import make_event, place
from tests.support.threads import at_once


@pytest.fixture
def door(client: FlaskClient) -> api.Api:
    """A server at a door, with a ticket of two people's order."""
    place(make_event(price_minor=0), 2)
    return api.as_key(client, make_member(role=Role.DOOR), Scope.TICKETS_CHECK_IN)


def shown(number: int = 0) -> dict[str, str]:
    codes = db.session.scalars(select(Ticket.code).order_by(Ticket.id)).all()
    return {"event": "concert", "code": codes[number]}


def scans() -> int:
    db.session.rollback()
    return db.session.scalars(select(func.count()).select_from(CheckIn)).one()


def test_the_same_request_is_answered_again_and_not_done_again(door: api.Api) -> None:
    body = shown()
    first = door.post("/check-in", body, idempotency_key="scan-1")
    assert first["verdict"] == "valid"
    assert "Idempotency-Replayed" not in door.last.headers
    assert door.post("/check-in", body, idempotency_key="scan-1") == first
    assert door.last.headers["Idempotency-Replayed"] == "true"
    assert scans() == 1
    # Without the name, and under another one, it is another scan.
    assert door.post("/check-in", body)["verdict"] == "used"
    assert door.post("/check-in", body, idempotency_key="scan-2")["verdict"] == "used"


def test_the_name_with_another_body(door: api.Api) -> None:
    door.post("/check-in", shown(), idempotency_key="scan-1")
    said = door.post("/check-in", shown(1), status=409, idempotency_key="scan-1")
    assert said["code"] == "idempotency_key_reused"
    assert scans() == 1


def test_while_the_first_is_at_work_nobody_waits(door: api.Api, monkeypatch: pytest.MonkeyPatch) -> None:
    body = shown()
    # The first died after it had its name.
    monkeypatch.setattr(repeated_requests, "finish", lambda *told: None)
    door.post("/check-in", body, idempotency_key="scan-1")
    said = door.post("/check-in", body, status=409, idempotency_key="scan-1")
    assert (said["code"], door.last.headers["Retry-After"]) == ("idempotency_in_progress", "1")


def test_of_many_at_once_one_is_done(app: Flask, door: api.Api) -> None:
    body = shown()

    def send(number: int) -> int:
        program = api.Api(app.test_client(), door.credential)
        headers = {"Authorization": f"Bearer {program.credential}", "Idempotency-Key": "scan-1"}
        return program.client.post("/api/v1/check-in", json=body, headers=headers).status_code

    got = at_once(app, 6, send)
    assert set(got) <= {200, 409}, got
    assert 200 in got
    assert scans() == 1


def test_a_refusal_that_lasts_is_kept_and_one_that_passes_is_not(door: api.Api) -> None:
    lasting = door.post("/check-in", {"event": "later", "code": "x"}, status=404, idempotency_key="a")
    make_event("later", price_minor=0)
    assert door.post("/check-in", {"event": "later", "code": "x"}, status=404, idempotency_key="a") == lasting
    assert (
        door.post("/check-in", {"event": "later", "code": "x"}, idempotency_key="b")["verdict"] == "unknown"
    )
    # 403: somebody may be given the right in a moment.
    buyer = make_member("buyer@example.org")
    token = api.as_member(door.client, buyer)
    for _ in range(2):
        token.post("/check-in", shown(), status=403, idempotency_key="c")
    assert scans() == 1


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_what_is_no_name(door: api.Api, key: str) -> None:
    assert door.post("/check-in", shown(), status=400, idempotency_key=key)["code"] == "idempotency_key"
    assert scans() == 0


def test_where_it_is_not_taken() -> None:
    taken = {each.name for each in api.endpoints().values() if each.idempotent}
    assert "check_in" in taken
    assert not taken & {"log_in", "refresh", "revoke", "make_key"}
    for each in api.endpoints().values():
        assert not (each.idempotent and each.method == "GET"), each.name
        assert (
            each.idempotent or each.method != "POST" or each.raw or each.rule.startswith(("/auth/", "/keys"))
        ), each.name


# --- What an endpoint of its own can say ----------------------------------------------------------------


class Secretive(shapes.Answer):
    number: int
    secret: str | None


@pytest.fixture
def made(app: Flask) -> list[int]:
    """How often `work` was done, below."""
    return []


def once(app: Flask, work: Any, secrets: Any = None, problems: tuple[Problem, ...] = ()) -> Any:
    """What a POST is answered whose endpoint does `work`, under one name."""
    with app.test_request_context("/api/v1/x", method="POST", data=b"{}", headers={"Idempotency-Key": "k"}):
        answer = repeating.once(
            "user:1", secrets or {}, problems, lambda: endpoint.written(work(), {200: Secretive})
        )
        return answer.status_code, answer.get_json()


def test_a_secret_is_never_kept_and_found_again(app: Flask, made: list[int]) -> None:
    def work() -> Secretive:
        made.append(1)
        return Secretive(number=len(made), secret="pi_1_secret_first")

    secrets = {"secret": lambda kept: f"pi_1_secret_again_{kept['number']}"}
    assert once(app, work, secrets) == (200, {"number": 1, "secret": "pi_1_secret_first"})
    assert "secret" not in (db.session.scalars(select(ApiRequest.answer)).one() or "")
    assert once(app, work, secrets) == (200, {"number": 1, "secret": "pi_1_secret_again_1"})
    assert made == [1]


@pytest.mark.parametrize(
    "refusal",
    [
        ApiProblem(503, "provider_silent", "Later.", retry_after=5),
        ApiProblem(429, "too_many", "Later."),
        ApiProblem(401, "unauthorized", "Who?"),
        ApiProblem(409, "payment_in_progress", "Wait."),
        ZeroDivisionError(),
    ],
)
def test_what_passes_is_done_anew(app: Flask, made: list[int], refusal: Exception) -> None:
    passing = (Problem(409, "payment_in_progress", "Wait.", lasting=False),)

    def work() -> Secretive:
        made.append(1)
        if len(made) == 1:
            raise refusal
        return Secretive(number=len(made), secret=None)

    if isinstance(refusal, ApiProblem):
        assert once(app, work, problems=passing)[0] == refusal.status
    else:
        with pytest.raises(ZeroDivisionError):
            once(app, work)
    assert once(app, work, problems=passing) == (200, {"number": 2, "secret": None})


def test_what_a_rule_refused_is_kept_without_what_was_half_done(app: Flask, made: list[int]) -> None:
    def work() -> Secretive:
        made.append(1)
        db.session.add(make_half())
        raise DomainError("already_paid", "It is paid already.")

    first = once(app, work)
    assert first == (400, {"detail": "It is paid already.", "status_code": 400, "code": "already_paid"})
    assert once(app, work) == first
    assert made == [1]
    assert db.session.scalars(select(func.count()).select_from(CheckIn)).one() == 0


def make_half() -> CheckIn:
    event = make_event("half", price_minor=0)
    return CheckIn(scan_id="half-done-1", event_id=event.id, verdict="unknown", at=event.created_at)


def test_every_area_has_its_own_tag() -> None:
    assert len({area.tag for area in areas.AREAS}) == len(areas.AREAS)
    assert errors.Problem(400, "a", "b").lasting
