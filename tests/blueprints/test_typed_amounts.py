"""Amounts as people type them, at the doors that no other file knocks at: commands, agents, the search."""

from __future__ import annotations

import pytest
from flask import Flask

from domain.payments import reconciling, starting
from extensions import db
from models import Agent, Refund, Role
from tests.support.people import log_in, make_member, post
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, place


@pytest.mark.parametrize("amount", ["1,000", "1.000", "", "1e1", "١٠"])
def test_the_refund_command_guesses_nothing(app: Flask, sandbox: Sandbox, amount: str) -> None:
    order = place(make_event())
    payment = starting.open_at_provider(order)
    assert payment is not None and payment.provider_id is not None
    sandbox.do(payment.provider_id, "pay")
    reconciling.reconcile(payment.id, door="test")
    code = order.code
    told = app.test_cli_runner().invoke(
        args=["payments", "refund", code, "--amount", amount, "--reason", "Asked for"]
    )
    assert told.exit_code == 1 and "Type" in told.output
    assert db.session.query(Refund).count() == 0


def test_an_agent_s_price_is_asked_about_and_shown_so_that_it_can_be_sent_back(app: Flask) -> None:
    make_member("boss@example.org", Role.ADMIN)
    boss = app.test_client()
    log_in(boss, "boss@example.org")
    typed = {"name": "Poster", "slug": "poster", "service": "qr_code", "active": "y", "currency": "KWD"}
    new = "/admin/records/agents/new/"
    asked = post(boss, new, **typed, price="1.250")
    assert "Type 1250 for" in asked.text and db.session.query(Agent).filter_by(slug="poster").count() == 0
    post(boss, new, **typed, price="1.25")
    made = db.session.query(Agent).filter_by(slug="poster").one()
    assert made.price_minor == 1250
    assert 'value="1.25"' in boss.get(f"/admin/records/agents/edit/?id={made.id}").text


def test_a_search_for_an_amount_finds_both_of_its_meanings(app: Flask) -> None:
    make_member("boss@example.org", Role.ADMIN)
    boss = app.test_client()
    log_in(boss, "boss@example.org")
    code = place(make_event(price_minor=100_000)).code
    assert code in boss.get("/admin/orders?q=1,000").text
    assert code in boss.get("/admin/orders?q=1000").text
    assert code not in boss.get("/admin/orders?q=1").text
    assert boss.get("/admin/orders?q=1e999999999").status_code == 200
