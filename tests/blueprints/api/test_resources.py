"""Tournaments, athletes, entries and the wallet over the API."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest
from flask import Flask
from flask.testing import FlaskClient

from domain.ledger import agents, wallet
from domain.people import athletes
from extensions import db
from models import EventState, User
from tests.support import api
from tests.support.shop import make_user
from tests.support.tournaments import add_category, enter, make_athlete, make_tournament

pytestmark = pytest.mark.usefixtures("app")
CHILD = {"name": "Ben Minor", "birth_date": "2016-03-01", "weight_kg": "44.5", "grade": -3, "sex": "male"}


@pytest.fixture
def ann(app: Flask) -> User:
    return make_user("ann@example.org")


def test_anybody_sees_tournaments_and_nobody_drafts(client: FlaskClient) -> None:
    event = make_tournament(own={"rules": "No kicks to the head."})
    add_category(event, "Kata", fee_minor=5000_00, currency="KZT", min_age=12, max_weight_g=46_500)
    draft = make_tournament("draft")
    draft.state = EventState.DRAFT
    db.session.commit()
    nobody = api.as_nobody(client)
    assert [one["slug"] for one in nobody.get("/tournaments")["items"]] == ["open"]
    whole = nobody.get("/tournaments/open")
    assert (whole["state"], whole["rules"]) == ("open", "No kicks to the head.")
    first, second = nobody.get("/tournaments/open/categories")["items"]
    assert (first["amount"], first["currency"]) == (Decimal("25.00"), "EUR")
    assert (second["amount"], second["amount_minor"], second["currency"]) == (
        Decimal("5000.00"),
        500000,
        "KZT",
    )
    assert (second["min_age"], second["max_weight_kg"]) == (12, Decimal("46.5"))
    assert "sumup" not in second["methods"]
    nobody.get("/tournaments/draft", status=404)
    nobody.get("/tournaments/draft/categories", status=404)
    nobody.get("/tournaments/nowhere", status=404)


def test_athletes_are_kept_changed_and_agreed_to(client: FlaskClient, ann: User) -> None:
    me = api.as_member(client, ann)
    made = me.post("/athletes", CHILD, status=201)
    assert (made["weight_kg"], made["consent_given"], made["club"]) == (Decimal("44.5"), False, "")
    path = f"/athletes/{made['athlete_id']}"
    changed = me.send("PUT", path, CHILD | {"club": "Alau", "weight_kg": None})
    assert (changed["club"], changed["weight_kg"]) == ("Alau", None)
    text = me.get("/consent")
    assert text["text_hash"] == athletes.consent_hash() and text["text"]
    refused = me.post(f"{path}/consent", {"text_hash": "0" * 64}, status=409)
    assert refused["code"] == "consent_changed"
    assert me.post(f"{path}/consent", {"text_hash": text["text_hash"]})["consent_given"] is True
    assert me.get(path)["consent_given"] is True
    assert [one["name"] for one in me.get("/athletes")["items"]] == ["Ben Minor"]
    for wrong in (
        {"name": ""},
        {"birth_date": "31.05.2012"},
        {"birth_date": "2999-01-01"},
        {"weight_kg": 44.5001},
        {"weight_kg": True},
        {"grade": 99},
        {"grade": 1.5},
        {"sex": "other"},
        {"name": "https://example.org"},
        {"extra": 1},
    ):
        assert me.post("/athletes", CHILD | wrong, status=400)["status_code"] == 400
    assert len(athletes.of(ann)) == 1


def test_an_athlete_is_entered_once_and_withdrawn(client: FlaskClient, ann: User) -> None:
    event = make_tournament(fee_minor=0, places=1)
    free, adults = event.ticket_types[0], add_category(event, "Adults", min_age=18)
    child = athletes.add(ann, {"name": "Ben Minor", "birth_date": date(2016, 3, 1)})
    me = api.as_member(client, ann)
    assert free.category is not None and adults.category is not None
    body = {"category_id": free.category.public_id, "athlete_id": child.public_id}
    assert me.post("/participants", body, status=400)["code"] == "consent_needed"
    agreed = body | {"consent": athletes.consent_hash()}
    made = me.post("/participants", agreed, status=201)
    assert (made["status"], len(made["ticket_codes"])) == ("PAID", 1)
    assert me.post("/participants", body, status=409)["code"] == "already_entered"
    other = body | {"category_id": adults.category.public_id}
    assert me.post("/participants", other, status=400)["code"] == "not_eligible"
    me.post("/participants", body | {"category_id": "category_nothing"}, status=404)
    me.post("/participants", body | {"athlete_id": "athlete_nothing"}, status=404)

    bob = make_user("bob@example.org")
    his = body | {"athlete_id": make_athlete(bob).public_id}
    assert api.as_member(client, bob).post("/participants", his, status=409)["code"] == "sold_out"
    me.post("/participants", his, status=404)

    gone = me.post(f"/participants/{made['participant_id']}/withdraw", {})
    assert (gone["status"], gone["ticket_codes"], gone["may_withdraw"]) == ("WITHDRAWN", [], False)
    assert me.post(f"/participants/{made['participant_id']}/withdraw", {}, status=409)["code"] == "too_late"
    api.as_member(client, bob).post("/participants", his, status=201)
    assert [one["status"] for one in me.get("/participants")["items"]] == ["WITHDRAWN"]


def test_an_entry_that_waits_is_answered_again(client: FlaskClient, ann: User) -> None:
    kind = make_tournament().ticket_types[0]
    one = enter(kind, make_athlete(ann), begun=False)
    assert kind.category is not None
    body = {"category_id": kind.category.public_id, "athlete_id": one.athlete.public_id}
    again = api.as_member(client, ann).post("/participants", body, status=200)
    assert again["participant_id"] == one.public_id


def test_the_wallet_is_told_and_used(client: FlaskClient, ann: User) -> None:
    agents.seed()
    agent = agents.catalogue()[0]
    wallet.add_balance(ann, agent.price_minor * 2, "Gift", key="test:1", currency=agent.currency)
    db.session.commit()
    me = api.as_member(client, ann)
    purse = next(one for one in me.get("/wallet")["items"] if one["currency"] == agent.currency)
    assert (purse["amount_minor"], purse["held_minor"]) == (agent.price_minor * 2, 0)
    text = agents.SERVICES[agent.service].example
    used = me.post("/wallet/usage", {"agent": agent.slug, "text": text}, idempotency_key="once")
    again = me.post("/wallet/usage", {"agent": agent.slug, "text": text}, idempotency_key="once")
    assert used == again and used["amount_minor"] == agent.price_minor
    dearer = {"agent": agent.slug, "text": text, "amount": 9999}
    assert me.post("/wallet/usage", dearer, status=409)["code"] == "price_changed"
    me.post("/wallet/usage", {"agent": agent.slug, "text": text})
    assert me.post("/wallet/usage", {"agent": agent.slug, "text": text}, status=402)["code"]
    me.post("/wallet/usage", {"agent": "nobody", "text": text}, status=404)
    rows = me.get("/wallet/transactions")["items"]
    assert [row["amount_minor"] for row in rows] == [
        -agent.price_minor,
        -agent.price_minor,
        agent.price_minor * 2,
    ]
