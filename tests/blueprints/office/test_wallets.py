"""An admin puts money into a wallet and takes it out: by page and by command, once, and with a reason."""

from __future__ import annotations

import re

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select

import config
from domain.ledger import wallet
from domain.office import invariants
from extensions import db
from models import Role, Transfer, User
from tests.support.people import log_in, make_member, post


@pytest.fixture
def ada(app: Flask) -> int:
    """A member with an empty wallet."""
    return make_member("ada@example.org").id


@pytest.fixture
def boss(client: FlaskClient) -> FlaskClient:
    """An admin's browser."""
    make_member("boss@example.org", role=Role.ADMIN)
    log_in(client, "boss@example.org")
    return client


def free(user_id: int) -> int:
    db.session.rollback()
    return wallet.available_minor(db.session.get_one(User, user_id), config.get().wallet_currency)


def form_token(boss: FlaskClient, user_id: int) -> str:
    found = re.search(r'name="form_token" value="([^"]+)"', boss.get(f"/admin/wallets/{user_id}").text)
    assert found is not None
    return found[1]


def test_by_page(boss: FlaskClient, ada: int) -> None:
    answer = boss.get("/admin/wallets?email=ADA@example.org")
    assert answer.headers["Location"] == f"/admin/wallets/{ada}"
    token = form_token(boss, ada)
    path = f"/admin/wallets/{ada}"
    for _ in range(2):
        # Sent twice by a double click, it is done once.
        post(boss, path, amount="12.50", reason="Goodwill for the delay", do="add", form_token=token)
    assert free(ada) == 1250
    taken = post(
        boss, path, amount="2,50", reason="Given twice", do="deduct", form_token=form_token(boss, ada)
    )
    assert taken.status_code == 303
    assert free(ada) == 1000
    page = boss.get(path).text
    assert "Goodwill for the delay" in page and "Given twice" in page and "boss@example.org" in page
    rows = db.session.scalars(select(Transfer).order_by(Transfer.id)).all()
    admin = db.session.scalars(select(User.id).filter_by(email="boss@example.org")).one()
    assert [(row.kind, row.amount_minor, row.actor_id) for row in rows] == [
        ("adjustment", 1250, admin),
        ("adjustment", 250, admin),
    ]
    assert invariants.look() == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reason": " "}, "Say why"),
        ({"reason": "x" * 201}, "200 characters"),
        ({"amount": "0"}, "more than zero"),
        ({"amount": "-5"}, "zero or more"),
        ({"amount": "1,000"}, "1,000"),
        ({"amount": "much"}, "is not an amount"),
        ({"do": "deduct", "amount": "10.01"}, "wallet"),
        ({"form_token": ""}, "Reload the page"),
    ],
)
def test_what_is_refused_changes_nothing(
    boss: FlaskClient, ada: int, changes: dict[str, str], words: str
) -> None:
    wallet.add_balance(db.session.get_one(User, ada), 1000, "Before", key="before")
    fields = {"amount": "5", "reason": "Because", "do": "add", "form_token": "a-token"} | changes
    answer = post(boss, f"/admin/wallets/{ada}", **fields)
    assert answer.status_code == 400
    assert words in answer.text
    assert free(ada) == 1000


def test_only_for_admins(client: FlaskClient, ada: int) -> None:
    make_member("org@example.org", role=Role.ORGANISER)
    log_in(client, "org@example.org")
    assert client.get(f"/admin/wallets/{ada}").status_code == 403
    fields = {"amount": "5", "reason": "Because", "do": "add", "form_token": "a-token"}
    assert post(client, f"/admin/wallets/{ada}", **fields).status_code == 403
    assert free(ada) == 0


def test_nobody_and_no_address(boss: FlaskClient) -> None:
    assert "no member with the address" in boss.get("/admin/wallets?email=nobody@example.org").text
    assert boss.get("/admin/wallets/4711").status_code == 404


def test_by_command(app: Flask, ada: int) -> None:
    run = app.test_cli_runner()
    command = ["wallet", "add", "ada@example.org", "20", "--reason", "A prize", "--key", "prize-1"]
    assert "20" in run.invoke(args=command).output
    assert "before" in run.invoke(args=command).output
    assert free(ada) == 2000
    taken = run.invoke(args=["wallet", "deduct", "ada@example.org", "5.25", "--reason", "Given twice"])
    assert taken.exit_code == 0, taken.output
    assert free(ada) == 1475
    for wrong in (["ada@example.org", "14.76"], ["nobody@example.org", "1"]):
        refused = run.invoke(args=["wallet", "deduct", *wrong, "--reason", "Too much"])
        assert refused.exit_code == 1
    assert free(ada) == 1475
