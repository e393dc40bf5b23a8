"""Payments of entries over the API: begun, looked at, cancelled, given back, and by whom."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func, select, text

import config
from domain import clock
from domain.security.scopes import Scope
from extensions import db
from models import OutboxMail, Participant, Payment, PaymentState, Role, User
from tests.support import api
from tests.support.queries import recorded
from tests.support.sandbox import Sandbox
from tests.support.shop import make_user
from tests.support.tournaments import enter, make_athlete, make_tournament

pytestmark = pytest.mark.usefixtures("app")


@pytest.fixture
def ann(app: Flask) -> User:
    return make_user("ann@example.org")


@pytest.fixture
def entry(ann: User) -> Participant:
    """An entry of Ann's that waits for its payment of 25.00 EUR."""
    return enter(make_tournament(places=1).ticket_types[0], make_athlete(ann), begun=False)


def asked(entry: Participant, **more: Any) -> dict[str, Any]:
    return {"participant_id": entry.public_id, "method": "card", "amount": 25, "currency": "EUR"} | more


def test_from_entering_to_the_refund(client: FlaskClient, ann: User, sandbox: Sandbox) -> None:
    make_tournament(places=1)
    me = api.as_member(client, ann)
    category = me.get("/tournaments/open/categories")["items"][0]
    assert (category["amount"], category["places_left"]) == (Decimal("25.00"), 1)
    assert "card" in category["methods"]
    athlete = me.post("/athletes", {"name": "Aiko Adult", "birth_date": "1995-05-31"}, status=201)
    made = me.post(
        "/participants",
        {"category_id": category["category_id"], "athlete_id": athlete["athlete_id"]},
        status=201,
    )
    assert (made["status"], made["ticket_codes"]) == ("PENDING", [])
    participant_id = made["participant_id"]
    started = me.post(
        "/payments/initiate",
        {"participant_id": participant_id, "method": "card", "amount": "25.00", "currency": "EUR"},
        status=201,
    )
    assert started["payment_url"].startswith("http") and started["expires_at"]
    assert (started["status"], started["client_secret"], started["qr_image_url"]) == ("PENDING", None, None)
    assert me.get("/tournaments/open/categories")["items"][0]["places_left"] == 0

    provider_id = db.session.scalars(select(Payment.provider_id)).one()
    sandbox.do(provider_id or "", "pay")
    told = me.get(f"/payments/status/{participant_id}")
    assert (told["status"], told["payment_id"]) == ("COMPLETED", started["payment_id"])
    db.session.remove()
    with recorded() as statements:
        assert me.get(f"/payments/status/{participant_id}") == told
    # Who asks, the entry with its order, its payments: a program asks that again and again.
    assert len(statements) == 3, statements
    paid = me.get(f"/participants/{participant_id}")
    assert paid["status"] == "PAID" and len(paid["ticket_codes"]) == 1
    assert [one["status"] for one in me.get(f"/payments/participant/{participant_id}/history")["items"]] == [
        "COMPLETED"
    ]

    admin = api.as_member(client, make_user("admin@example.org", Role.ADMIN))
    wanted = {"tournament": "open", "status": "COMPLETED"}
    found = admin.send("GET", "/payments/admin/payments", query=wanted)["items"]
    assert [one["payment_id"] for one in found] == [started["payment_id"]]
    back = admin.post(f"/payments/{started['payment_id']}/refund", {"reason": "Injured"}, status=201)
    assert (back["status"], back["amount"]) == ("REFUNDED", Decimal("25.00"))
    assert me.get(f"/payments/status/{participant_id}")["status"] == "REFUNDED"
    assert me.get(f"/participants/{participant_id}")["status"] == "WITHDRAWN"
    assert me.get("/tournaments/open/categories")["items"][0]["places_left"] == 1


@pytest.mark.parametrize(
    "amount",
    [
        24.99,
        25.001,
        "25.001",
        True,
        -25,
        "-25",
        "25,00",
        "",
        " 25",
        "2.5e1",
        "NaN",
        "0x19",
        None,
        [25],
        {"a": 1},
    ],
)
def test_an_amount_that_is_not_the_fee_is_refused(
    client: FlaskClient, ann: User, entry: Participant, amount: object
) -> None:
    refused = api.as_member(client, ann).post("/payments/initiate", asked(entry, amount=amount), status=400)
    assert refused["status_code"] == 400 and refused["detail"]
    assert db.session.scalar(select(func.count(Payment.id))) == 0


@pytest.mark.parametrize(
    "written", ["25e0", "2.5e1", "25.0000000000000000000001", "NaN", "Infinity", "1e400"]
)
def test_numbers_are_read_as_they_are_written(
    client: FlaskClient, ann: User, entry: Participant, written: str
) -> None:
    body = (
        f'{{"participant_id": "{entry.public_id}", "method": "card", "amount": {written}, "currency": "EUR"}}'
    )
    api.as_member(client, ann).send("POST", "/payments/initiate", body, status=400)
    assert db.session.scalar(select(func.count(Payment.id))) == 0


def test_the_words_of_a_wrong_amount_are_the_seed_s(
    client: FlaskClient, ann: User, entry: Participant
) -> None:
    refused = api.as_member(client, ann).post("/payments/initiate", asked(entry, amount=50), status=400)
    assert refused == {
        "detail": "Payment amount must match tournament entry fee",
        "status_code": 400,
        "code": "amount_mismatch",
    }


def test_again_is_the_same_payment_and_another_way_another(
    client: FlaskClient, ann: User, entry: Participant, sandbox: Sandbox
) -> None:
    me = api.as_member(client, ann)
    first = me.post("/payments/initiate", asked(entry), status=201)
    assert me.post("/payments/initiate", asked(entry), status=200)["payment_id"] == first["payment_id"]
    other = me.post("/payments/initiate", asked(entry, method="sumup"), status=201)
    assert other["payment_id"] != first["payment_id"]
    told = me.get(f"/payments/participant/{entry.public_id}/history")["items"]
    assert [(one["method"], one["status"]) for one in told] == [("sumup", "PENDING"), ("card", "CANCELLED")]
    ended = me.post(f"/payments/{other['payment_id']}/cancel", {})
    assert ended["status"] == "CANCELLED"
    assert me.post(f"/payments/{other['payment_id']}/cancel", {}, status=409)["code"] == "not_cancellable"


def test_what_can_be_paid_no_longer_is_given_to_nobody(
    client: FlaskClient, ann: User, entry: Participant, sandbox: Sandbox
) -> None:
    """Its time is up, and no sweep has come by: it is closed first, and paid in between wins."""
    me = api.as_member(client, ann)
    first = me.post("/payments/initiate", asked(entry), status=201)
    sandbox.advance(3600)
    me = api.as_member(client, ann)
    sandbox.faults("http_500", rate=1)
    refused = me.post("/payments/initiate", asked(entry), status=409)
    assert refused["code"] == "payment_in_progress"
    sandbox.faults()
    other = me.post("/payments/initiate", asked(entry), status=201)
    assert other["payment_id"] != first["payment_id"] and other["expires_at"] > first["expires_at"]
    told = me.get(f"/payments/participant/{entry.public_id}/history")["items"]
    assert [one["status"] for one in told] == ["PENDING", "EXPIRED"]
    # Nobody is told that what goes on has ended.
    assert "order_expired" not in db.session.scalars(select(OutboxMail.kind)).all()
    payment = db.session.scalars(select(Payment).order_by(Payment.id.desc()).limit(1)).one()
    sandbox.do(payment.provider_id or "", "pay")
    sandbox.advance(3600)
    me = api.as_member(client, ann)
    assert me.post("/payments/initiate", asked(entry), status=409)["code"] == "already_paid"


def test_what_is_under_way_is_a_conflict(
    client: FlaskClient, ann: User, entry: Participant, sandbox: Sandbox
) -> None:
    me = api.as_member(client, ann)
    me.post("/payments/initiate", asked(entry), status=201)
    payment = db.session.scalars(select(Payment)).one()
    sandbox.do(payment.provider_id or "", "pay_later")
    refused = me.post("/payments/initiate", asked(entry, method="sumup"), status=409)
    assert refused["code"] == "payment_in_progress"
    assert me.get(f"/payments/status/{entry.public_id}")["status"] == "PROCESSING"
    sandbox.do(payment.provider_id or "", "complete_later")
    payment.last_polled_at = None
    db.session.commit()
    assert me.get(f"/payments/status/{entry.public_id}")["status"] == "COMPLETED"
    assert me.post("/payments/initiate", asked(entry), status=409)["code"] == "already_paid"


def test_a_silent_provider_is_503_with_the_payment(
    client: FlaskClient, ann: User, entry: Participant, sandbox: Sandbox
) -> None:
    me = api.as_member(client, ann)
    sandbox.faults("http_500", rate=1)
    refused = me.post("/payments/initiate", asked(entry), status=503)
    sandbox.faults()
    payment = db.session.scalars(select(Payment)).one()
    assert (refused["code"], refused["payment_id"]) == ("provider_silent", payment.public_id)
    assert payment.state is PaymentState.CREATED


def test_a_wallet_s_secret_is_answered_again_and_kept_nowhere(
    client: FlaskClient, ann: User, entry: Participant, sandbox: Sandbox
) -> None:
    me, body = api.as_member(client, ann), asked(entry, method="apple_pay")
    config.use(replace(config.get(), stripe_publishable_key="pk_test_kassa_sandbox"))
    first = me.post("/payments/initiate", body, status=201, idempotency_key="once")
    assert first["client_secret"].startswith("pi_") and "/pay/wallet/" in first["payment_url"]
    again = me.post("/payments/initiate", body, idempotency_key="once")
    assert again == first
    # Where the provider does not tell it, nothing is broken: it is asked for once more.
    sandbox.faults("http_500", match={"method": "GET", "path": "payment_intents/pi_"})
    for key in ("once", "twice"):
        untold = me.post("/payments/initiate", body, status=503, idempotency_key=key)
        assert (untold["code"], untold["payment_id"]) == ("provider_silent", first["payment_id"])
    sandbox.faults()
    told = me.post("/payments/initiate", body, status=200, idempotency_key="twice")
    assert told["client_secret"] == first["client_secret"]
    rows = (text(f"SELECT row_to_json(r)::text FROM {name} r") for name in ("payments", "api_requests"))
    kept = [row for query in rows for row in db.session.scalars(query)]
    assert len(kept) == 3 and not any(first["client_secret"] in row for row in kept)


def test_nobody_else_sees_or_pays_an_entry(
    client: FlaskClient, ann: User, entry: Participant, sandbox: Sandbox
) -> None:
    mine = api.as_member(client, ann).post("/payments/initiate", asked(entry), status=201)["payment_id"]
    other = api.as_member(client, make_user("bob@example.org"))
    for path in (
        f"/payments/status/{entry.public_id}",
        f"/payments/participant/{entry.public_id}/history",
        f"/participants/{entry.public_id}",
        f"/athletes/{entry.athlete.public_id}",
    ):
        assert other.get(path, status=404)["status_code"] == 404
    other.post("/payments/initiate", asked(entry), status=404)
    other.post(f"/payments/{mine}/cancel", {}, status=404)
    other.post(f"/participants/{entry.public_id}/withdraw", {}, status=404)
    other.get("/payments/admin/payments", status=403)
    other.post(f"/payments/{mine}/refund", {"reason": "mine"}, status=403)


def test_return_url_goes_to_listed_origins_with_the_payment_s_id_alone(
    client: FlaskClient, ann: User, entry: Participant, sandbox: Sandbox
) -> None:
    me = api.as_member(client, ann)
    away = asked(entry, return_url="https://evil.example.com/")
    assert me.post("/payments/initiate", away, status=400)["code"] == "return_url"
    config.use(replace(config.get(), api_return_origins=("https://app.example.org",)))
    home = asked(entry, return_url="https://app.example.org/paid?tour=1")
    started = me.post("/payments/initiate", home, status=201)
    payment = db.session.scalars(select(Payment)).one()
    order = payment.order
    back = client.get(f"/pay/success/{order.code}/{order.secret}?session_id={payment.provider_id}")
    assert back.status_code == 303
    expected = f"https://app.example.org/paid?tour=1&payment_id={started['payment_id']}"
    assert back.location == expected
    assert client.get(f"/pay/cancel/{order.code}/{order.secret}").location == expected


def test_pages_of_the_list_are_opaque_and_whole(client: FlaskClient, ann: User, sandbox: Sandbox) -> None:
    event = make_tournament(places=100, fee_minor=2500)
    for number in range(53):
        one = enter(event.ticket_types[0], make_athlete(ann, f"Athlete {number}"), begun=False)
        db.session.add(_unpaid(one))
    db.session.commit()
    key = api.as_key(client, make_user("admin@example.org", Role.ADMIN), Scope.ADMIN_PAYMENTS)
    first = key.get("/payments/admin/payments")
    rest = key.get("/payments/admin/payments", cursor=first["next"])
    ids = [one["payment_id"] for one in first["items"] + rest["items"]]
    assert (len(first["items"]), len(set(ids)), rest["next"]) == (50, 53, None)
    key.get("/payments/admin/payments", cursor="51", status=400)
    assert key.get("/payments/admin/payments", method="sumup")["items"] == []
    assert key.get("/payments/admin/payments", since=f"{clock.now():%Y-%m-%d}")["items"]
    assert key.get("/payments/admin/payments", until="2020-01-01")["items"] == []
    key.get("/payments/admin/payments", since="yesterday", status=400)


def _unpaid(one: Participant) -> Payment:
    now = one.created_at
    order = one.order
    return Payment(
        order=order,
        attempt=1,
        provider="stripe",
        method="card",
        account="platform",
        livemode=False,
        reference=f"{order.code}-1",
        idempotency_key=f"pay-{order.code}",
        amount_minor=order.total_minor,
        currency=order.currency,
        state=PaymentState.EXPIRED,
        created_at=now,
        state_since=now,
    )
