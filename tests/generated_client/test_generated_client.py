"""A client that is made of the document does the whole way: token, Kaspi, COMPLETED, PAID, REFUNDED, free."""

from __future__ import annotations

from pathlib import Path

from flask import Flask

import config
from domain.people import accounts
from models import Role
from tests.generated_client.story import EXPECTED, generated, live
from tests.support.benches import kaspi_settings
from tests.support.people import PASSWORD
from tests.support.sandbox import Sandbox
from tests.support.serving import serving
from tests.support.tournaments import add_category, make_tournament


def test_the_whole_way(app: Flask, sandbox: Sandbox, tmp_path: Path) -> None:
    config.use(kaspi_settings(sandbox, "r1"))
    member = accounts.create("ann@example.org", PASSWORD, Role.BUYER, "Ann", confirmed=True).email
    admin = accounts.create("admin@example.org", PASSWORD, Role.ADMIN, "Ada", confirmed=True).email
    add_category(make_tournament(), "Kata", fee_minor=900_000, currency="KZT", places=2, min_age=13)
    with serving(app) as web, generated(web, tmp_path):
        seen = live(web, sandbox.base_url, "open", member=member, admin=admin, password=PASSWORD)
    assert seen == EXPECTED
