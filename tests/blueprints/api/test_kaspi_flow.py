"""From a category in tenge to the refund, by Kaspi and the API alone, in each form of Kaspi's QR API."""

from __future__ import annotations

from decimal import Decimal

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select

import config
from domain.office import invariants
from domain.payments import reconciling
from extensions import db
from models import Payment, Refund, RefundState, Role
from tests.support import api
from tests.support.benches import kaspi_settings
from tests.support.sandbox import Sandbox
from tests.support.shop import make_user
from tests.support.tournaments import add_category, make_tournament

pytestmark = pytest.mark.usefixtures("app")


@pytest.mark.parametrize("form", ["r1", "r2", "r3"])
def test_a_fee_in_tenge_is_paid_looked_at_and_given_back(
    app: Flask, client: FlaskClient, sandbox: Sandbox, form: str
) -> None:
    config.use(kaspi_settings(sandbox, form))
    kind = add_category(make_tournament(), "Kata", fee_minor=900_000, places=1, currency="KZT")
    assert kind.category is not None
    me = api.as_member(client, make_user("ann@example.org"))
    admin = api.as_member(client, make_user("admin@example.org", Role.ADMIN))

    athlete = me.post("/athletes", {"name": "Aidar Adult", "birth_date": "1999-02-03"})["athlete_id"]
    body = {"category_id": kind.category.public_id, "athlete_id": athlete}
    entry = me.post("/participants", body, status=201)["participant_id"]
    asked = {"participant_id": entry, "method": "kaspi_qr", "amount": "9000.00", "currency": "KZT"}
    started = me.post("/payments/initiate", asked, status=201)
    assert (started["amount"], started["status"]) == (Decimal("9000.00"), "PENDING")
    assert started["payment_url"] and started["expires_at"] and started["client_secret"] is None
    picture = client.get(started["qr_image_url"].removeprefix(config.get().public_url))
    assert (picture.status_code, picture.content_type) == (200, "image/png")
    assert me.post("/payments/initiate", asked, status=200)["payment_id"] == started["payment_id"]
    refused = me.post("/payments/initiate", asked | {"method": "card"}, status=409)
    assert refused["code"] == "payment_in_progress"
    assert me.post(f"/payments/{started['payment_id']}/cancel", {}, status=409)["code"] == (
        "payment_in_progress"
    )

    payment = db.session.scalars(select(Payment)).one()
    sandbox.do(payment.provider_id or "", "pay")
    payment.last_polled_at = None
    db.session.commit()
    assert me.get(f"/payments/status/{entry}")["status"] == "COMPLETED"
    assert me.get(f"/participants/{entry}")["status"] == "PAID"
    history = me.get(f"/payments/participant/{entry}/history")["items"]
    assert [one["status"] for one in history] == ["COMPLETED"]

    refund = admin.post(f"/payments/{started['payment_id']}/refund", {"reason": "Injured"}, status=201)
    if form != "r3":
        # No call sends the money back: somebody does, and says so.
        assert (refund["refund_state"], refund["status"]) == ("created", "COMPLETED")
        made = {"reference": "QR12800000001", "note": "Sent back in the app"}
        if form == "r2":
            # Kaspi tells what went back: it may be the first to say that this one was made.
            sandbox.do(payment.provider_id or "", "refund")
            reconciling.reconcile(payment.id, door="test")
        else:
            refund = admin.post(f"/payments/{started['payment_id']}/refund/made", made)
        admin.post(f"/payments/{started['payment_id']}/refund/made", made, status=404)
    if form != "r2":
        assert (refund["refund_state"], refund["status"]) == ("succeeded", "REFUNDED")
    # Read again, it is the same refund.
    reconciling.reconcile(payment.id, door="test")
    assert [one.state for one in db.session.scalars(select(Refund))] == [RefundState.SUCCEEDED]
    assert me.get(f"/payments/status/{entry}")["status"] == "REFUNDED"
    assert me.get(f"/participants/{entry}")["status"] == "WITHDRAWN"
    db.session.refresh(kind)
    assert (kind.sold, kind.held) == (0, 0)
    assert invariants.look() == []


def test_a_fee_in_another_currency_is_not_paid_through_kaspi(
    app: Flask, client: FlaskClient, sandbox: Sandbox
) -> None:
    config.use(kaspi_settings(sandbox, "r1"))
    kind = make_tournament().ticket_types[0]
    assert kind.category is not None
    me = api.as_member(client, make_user("ann@example.org"))
    athlete = me.post("/athletes", {"name": "Aidar Adult", "birth_date": "1999-02-03"})["athlete_id"]
    entry = me.post("/participants", {"category_id": kind.category.public_id, "athlete_id": athlete})
    asked = {"participant_id": entry["participant_id"], "method": "kaspi_qr"}
    refused = me.post("/payments/initiate", asked | {"amount": 25, "currency": "EUR"}, status=400)
    assert refused["detail"] == "Kaspi QR cannot take EUR."
    # Fifty dollars are not fifty tenge.
    me.post("/payments/initiate", asked | {"amount": 25, "currency": "KZT"}, status=400)
    assert "kaspi_qr" not in me.get("/tournaments/open/categories")["items"][0]["methods"]
