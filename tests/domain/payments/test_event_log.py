"""The four events of a payment in the log: their names, their fields, and that their level is LOG_LEVEL's."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

import config
import logs
from domain.payments import reconciling, settling, starting
from models import Payment
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, place, report_on
from tests.support.tills import STRIPE, session_event
from tests.support.web import ring

EVENTS = ("payment_initiated", "payment_status_changed", "webhook_processed", "payment_error")
Capture = pytest.CaptureFixture[str]


def told(capsys: Capture) -> list[dict[str, Any]]:
    """The four events' lines since the last look."""
    lines = (json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{"))
    return [line for line in lines if line["event"] in EVENTS]


def opened() -> Payment:
    payment = starting.open_at_provider(place(make_event()))
    assert payment is not None
    return payment


def test_a_payment_s_life(client: FlaskClient, sandbox: Sandbox, capsys: Capture) -> None:
    payment = opened()
    begun, changed = told(capsys)
    about = {
        "order": payment.order.code,
        "payment": payment.reference,
        "provider": "stripe",
        "method": "card",
        "amount_minor": 2500,
        "currency": "EUR",
    }
    assert begun["event"] == "payment_initiated" and about.items() <= begun.items()
    assert changed["event"] == "payment_status_changed" and about.items() <= changed.items()
    assert (changed["before"], changed["after"]) == ("created", "open")

    sandbox.do(payment.provider_id or "", "pay")
    body = session_event(payment)
    assert [ring(client, body).status_code for _ in range(2)] == [200, 200]
    paid, rung, again = told(capsys)
    assert (paid["before"], paid["after"]) == ("open", "paid")
    for line in (rung, again):
        assert (line["event"], line["status"], line["ring"]) == ("webhook_processed", 200, "evt_1")
        assert (line["type"], line["object"]) == ("checkout.session.completed", payment.provider_id)


def test_errors(client: FlaskClient, sandbox: Sandbox, capsys: Capture) -> None:
    payment = opened()
    told(capsys)
    sandbox.faults("http_500", match={"path": STRIPE.api})
    assert ring(client, session_event(payment)).status_code == 503
    silent, rung = told(capsys)
    assert (silent["event"], silent["level"], silent["door"]) == ("payment_error", "warning", "webhook")
    assert silent["code"] and silent["state"] == "open"
    assert (rung["status"], rung["level"]) == (503, "warning")
    assert ring(client, "{}", secret="whsec_wrong").status_code == 400
    [refused] = told(capsys)
    assert (refused["status"], refused["ring"]) == (400, "")
    sandbox.faults()
    settling.settle(payment.id, report_on(payment, "paid", amount_minor=100), door="test")
    errors = [line for line in told(capsys) if line["event"] == "payment_error"]
    assert [(line["level"], line["code"]) for line in errors] == [("error", "differs: amount")]


@pytest.mark.parametrize(
    ("level", "heard"),
    [("DEBUG", EVENTS), ("INFO", EVENTS), ("WARNING", EVENTS[2:]), ("ERROR", ())],
)
def test_log_level_decides_what_is_written(
    app: Flask,
    client: FlaskClient,
    sandbox: Sandbox,
    capsys: Capture,
    level: str,
    heard: tuple[str, ...],
) -> None:
    ours = config.get()
    try:
        logs.configure(replace(ours, log_level=level))
        payment = opened()
        sandbox.faults("http_500", match={"path": STRIPE.api})
        ring(client, session_event(payment))
        reconciling.reconcile(payment.id, door="test")
    finally:
        logs.configure(ours)
    assert {line["event"] for line in told(capsys)} == set(heard)
