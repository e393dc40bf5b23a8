"""A short attack upon the API of a running Kassa; `python -m tests.api_fuzz` is the long one."""

from __future__ import annotations

from pathlib import Path

from flask import Flask

import config
from domain.ledger import agents, wallet
from domain.people import accounts
from extensions import db
from models import Role
from tests.api_fuzz.attack import attack
from tests.support.benches import kaspi_settings
from tests.support.people import PASSWORD
from tests.support.sandbox import Sandbox
from tests.support.serving import serving
from tests.support.tournaments import add_category, make_tournament

# Of 33 operations, those that even so few requests make do what they are for.
LEAST_SERVED = 16


def test_the_document_s_requests_find_no_fault(app: Flask, sandbox: Sandbox, tmp_path: Path) -> None:
    config.use(kaspi_settings(sandbox, "r1"))
    member = accounts.create("ann@example.org", PASSWORD, Role.BUYER, "Ann", confirmed=True)
    accounts.create("admin@example.org", PASSWORD, Role.ADMIN, "Ada", confirmed=True)
    event = make_tournament(places=1000)
    add_category(event, "Kata", fee_minor=900_000, currency="KZT", places=1000)
    add_category(event, "Free", fee_minor=0, places=1000)
    agents.seed()
    wallet.add_balance(member, 100_000, "Gift", key="fuzz", currency=config.get().wallet_currency)
    db.session.commit()
    with serving(app) as web:
        outcome = attack(
            web,
            sandbox.base_url,
            tmp_path,
            member=member.email,
            password=PASSWORD,
            examples=1,
            phases=("fuzzing", "stateful"),
        )
    assert not outcome.failed, outcome.told
    assert len(outcome.served()) >= LEAST_SERVED, outcome.seen
