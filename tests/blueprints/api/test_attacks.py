"""What somebody tries who means harm or has bad luck: many at once, a silent provider, no database."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func, select, text

import config
from app import create_app
from blueprints.api import wire
from domain.ledger import wallet
from domain.office import invariants
from domain.people import accounts, athletes
from domain.security import api_tokens
from domain.security.scopes import Scope
from extensions import db, queue
from models import Participant, Payment, Role, User
from tests.support import api
from tests.support.people import PASSWORD, make_member
from tests.support.sandbox import Sandbox
from tests.support.shop import make_user
from tests.support.threads import at_once
from tests.support.tournaments import enter, make_athlete, make_tournament

pytestmark = pytest.mark.usefixtures("app")
METHODS = ("card", "sumup", "apple_pay")


@pytest.fixture
def ann(app: Flask) -> User:
    return make_user("ann@example.org")


@pytest.fixture
def entry(ann: User) -> Participant:
    """An entry of Ann's that waits for its payment of 25.00 EUR."""
    return enter(make_tournament(places=1).ticket_types[0], make_athlete(ann), begun=False)


def asked(entry: Participant, **more: Any) -> dict[str, Any]:
    return {"participant_id": entry.public_id, "method": "card", "amount": 25, "currency": "EUR"} | more


# --- Many at once ---------------------------------------------------------------------------------------


def all_at_once(
    app: Flask, token: str, bodies: list[dict[str, Any]], keys: list[str]
) -> list[tuple[int, Any]]:
    """(status, answer) of `initiate` with each body under each key, all at the same moment."""

    def send(number: int) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": keys[number]}
        answer = app.test_client().post("/api/v1/payments/initiate", json=bodies[number], headers=headers)
        return answer.status_code, wire.read(answer.data)

    got = at_once(app, len(keys), send)
    assert not [each for each in got if isinstance(each, BaseException)], got
    return [each for each in got if not isinstance(each, BaseException)]


def test_under_one_name_one_payment_is_made(
    app: Flask, client: FlaskClient, ann: User, entry: Participant, sandbox: Sandbox
) -> None:
    token = api.as_member(client, ann).credential
    got = all_at_once(app, token, [asked(entry)] * 10, ["once"] * 10)
    made = [answer["payment_id"] for status, answer in got if status in (200, 201)]
    others = {answer["code"] for status, answer in got if status not in (200, 201)}
    assert made and len(set(made)) == 1
    assert others <= {"idempotency_in_progress"}
    assert db.session.scalar(select(func.count(Payment.id))) == 1
    assert len([call for call in sandbox.calls() if call["path"].endswith("/v1/checkout/sessions")]) == 1


def test_under_many_names_and_by_many_methods_one_is_open(
    app: Flask, client: FlaskClient, ann: User, entry: Participant, sandbox: Sandbox
) -> None:
    token = api.as_member(client, ann).credential
    bodies = [asked(entry, method=METHODS[number % len(METHODS)]) for number in range(8)]
    got = all_at_once(app, token, bodies, [f"name-{number}" for number in range(8)])
    refused = {(status, answer["code"]) for status, answer in got if status not in (200, 201)}
    # 503 on a machine so slow that a lock was waited for too long.
    assert refused <= {(409, "payment_in_progress"), (503, "busy")}, refused
    db.session.expire_all()
    payments = db.session.scalars(select(Payment)).all()
    open_ones = [payment for payment in payments if payment.is_active]
    assert len(open_ones) == 1
    # None of those that were replaced can still be paid.
    at_provider = {each["id"]: each["status"] for each in sandbox.get("payments")}
    ended = [at_provider.get(payment.provider_id or "") for payment in payments if not payment.is_active]
    assert set(ended) <= {"expired", "cancelled", None}, at_provider
    # Each was begun by one of those who asked.
    begun = [answer["payment_id"] for status, answer in got if status == 201]
    assert len(begun) == len(set(begun))
    assert invariants.look() == []


# --- What passes is not kept ----------------------------------------------------------------------------


def test_a_wallet_without_the_money_may_be_filled_and_tried_again(
    client: FlaskClient, ann: User, entry: Participant
) -> None:
    me = api.as_member(client, ann)
    body = asked(entry, method="wallet")
    refused = me.post("/payments/initiate", body, status=402, idempotency_key="k")
    assert refused["code"] == "insufficient_funds"
    wallet.add_balance(ann, 2500, "Gift", key="test:1", currency="EUR")
    db.session.commit()
    assert me.post("/payments/initiate", body, idempotency_key="k")["status"] == "COMPLETED"
    assert me.post("/payments/initiate", body, idempotency_key="k")["payment_url"] is None


def test_a_guardian_who_agrees_meanwhile_may_send_the_same_again(client: FlaskClient, ann: User) -> None:
    kind = make_tournament(fee_minor=0).ticket_types[0]
    child = athletes.add(ann, {"name": "Ben Minor", "birth_date": date(2016, 3, 1)})
    assert kind.category is not None
    me = api.as_member(client, ann)
    body = {"category_id": kind.category.public_id, "athlete_id": child.public_id}
    refused = me.post("/participants", body, status=400, idempotency_key="k")
    assert refused["code"] == "consent_needed"
    me.post(f"/athletes/{child.public_id}/consent", {"text_hash": athletes.consent_hash()})
    first = me.post("/participants", body, status=201, idempotency_key="k")
    assert me.post("/participants", body, status=201, idempotency_key="k") == first
    # What lets somebody in is not kept with the answer: it is found again.
    [kept] = db.session.scalars(
        text("SELECT answer FROM api_requests WHERE status = 201 AND path LIKE '%participants'")
    )
    assert first["participant_id"] in kept
    assert first["ticket_codes"] and first["ticket_codes"][0] not in kept
    assert first["order_url"].rpartition("/")[2] not in kept


def test_a_silent_provider_at_a_refund_is_503_and_changes_nothing(
    client: FlaskClient, ann: User, entry: Participant, sandbox: Sandbox
) -> None:
    me, boss = api.as_member(client, ann), api.as_member(client, make_user("boss@example.org", Role.ADMIN))
    started = me.post("/payments/initiate", asked(entry, method="sumup"), status=201)
    sandbox.do(db.session.scalars(select(Payment.provider_id)).one() or "", "pay")
    assert me.get(f"/payments/status/{entry.public_id}")["status"] == "COMPLETED"
    path = f"/payments/{started['payment_id']}/refund"
    sandbox.faults("http_500", rate=1)
    refused = boss.post(path, {"reason": "Injured"}, status=503, idempotency_key="k")
    assert (refused["code"], boss.last.headers["Retry-After"]) == ("provider_silent", "60")
    sandbox.faults()
    assert boss.post(path, {"reason": "Injured"}, status=201, idempotency_key="k")["status"] == "REFUNDED"


def test_so_many_athletes_are_a_conflict_and_no_limit_of_time(
    client: FlaskClient, ann: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(athletes, "MOST", 1)
    me = api.as_member(client, ann)
    body = {"name": "Aiko Adult", "birth_date": "1995-05-31"}
    me.post("/athletes", body, status=201)
    assert me.post("/athletes", body, status=409)["code"] == "too_many"


# --- Where a payer is sent back to ----------------------------------------------------------------------


def test_a_payer_goes_back_to_the_last_asker_and_to_no_site_that_was_taken_off_the_list(
    client: FlaskClient, ann: User, entry: Participant, sandbox: Sandbox
) -> None:
    config.use(replace(config.get(), api_return_origins=("https://a.example.org", "https://b.example.org")))
    me = api.as_member(client, ann)
    for site in ("a", "b"):
        me.post("/payments/initiate", asked(entry, return_url=f"https://{site}.example.org/done"))
    payment = db.session.scalars(select(Payment)).one()
    cancelled = f"/pay/cancel/{payment.order.code}/{payment.order.secret}"
    assert client.get(cancelled).location.startswith("https://b.example.org/done?payment_id=payment_")
    config.use(replace(config.get(), api_return_origins=("https://a.example.org",)))
    assert "b.example.org" not in (client.get(cancelled).location or "")


# --- Tokens and keys ------------------------------------------------------------------------------------


def test_a_new_password_ends_every_program_and_a_closed_account_every_key(client: FlaskClient) -> None:
    member = make_member()
    me, server = api.as_member(client, member), api.as_key(client, member, Scope.WALLET_READ)
    assert me.get("/keys") and server.get("/wallet")
    accounts.change_password(member, PASSWORD, "a new passphrase 42")
    assert me.get("/keys", status=401)["code"] == "token_revoked"
    again = {"email": member.email, "password": "a new passphrase 42"}
    pair = api.as_nobody(client).post("/auth/token", again)
    make_member("boss@example.org", Role.ADMIN)
    accounts.disable(member.id)
    assert server.get("/wallet", status=401)["code"] == "key_revoked"
    body = {"refresh_token": pair["refresh_token"]}
    assert api.as_nobody(client).post("/auth/refresh", body, status=401)["code"] == "refresh_over"


# --- No database ----------------------------------------------------------------------------------------


@pytest.fixture
def without_database(client: FlaskClient) -> Iterator[tuple[FlaskClient, str]]:
    """An application whose database nobody answers for, and a token that is good."""
    token = api_tokens.begin(make_member()).access
    settings = config.get()
    other = create_app(replace(settings, database_url="postgresql+psycopg://nobody@127.0.0.1:9/nothing"))
    other.config["PROPAGATE_EXCEPTIONS"] = False
    try:
        yield other.test_client(), token
    finally:
        config.use(settings)
        queue.bind(settings.redis_url)


def test_a_database_that_is_away_is_503_in_the_one_shape(without_database: tuple[FlaskClient, str]) -> None:
    client, token = without_database
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "k"}
    for method, path in (
        ("GET", "/keys"),
        ("GET", "/tournaments"),
        ("POST", "/athletes"),
        ("POST", "/payments/webhooks/sumup"),
    ):
        body = {"id": "2f5a6c1e-0000-4000-8000-000000000001", "event_type": "CHECKOUT_STATUS_CHANGED"}
        answer = client.open(
            f"/api/v1{path}", method=method, headers=headers, json=body if method == "POST" else None
        )
        assert (answer.status_code, answer.content_type) == (503, "application/json"), (path, answer.text)
        assert set(answer.get_json()) == {"detail", "status_code", "code"}
        assert int(answer.headers["Retry-After"]) > 0, path
