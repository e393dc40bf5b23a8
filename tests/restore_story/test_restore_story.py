"""A short run of the story; `python -m tests.restore_story` is the long one, with processes of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from flask import Flask
from pyrage import x25519

import config
from domain import epochs
from models import Role
from tests.restore_story import shops
from tests.restore_story.story import Story
from tests.support.people import make_member
from tests.support.sandbox import Sandbox
from tests.support.tournaments import add_category, make_tournament

IDENTITY = x25519.Identity.generate()


@pytest.fixture
def shop(app: Flask, sandbox: Sandbox, environ: dict[str, str]) -> Iterator[shops.Here]:
    told = sandbox.get("settings")["kaspi"]
    kaspi = {
        "KASPI_MODE": "r1",
        "KASPI_API_BASE": told["api_base"],
        "KASPI_API_KEY": told["api_key"],
        "KASPI_DEVICE_TOKEN": told["device_token"],
    }
    settings = config.load({**environ, **kaspi, "WALLET_CURRENCY": "EUR"})
    sealed = replace(settings, backup_keys=(str(IDENTITY.to_public()),))
    config.use(replace(sealed, listing_fee=Decimal(15), listing_fee_currency="EUR"))
    epochs.look_again()
    for email, role in (
        (shops.MEMBER, Role.BUYER),
        (shops.ADMIN, Role.ADMIN),
        (shops.ORGANISER, Role.ORGANISER),
    ):
        make_member(email, role, password=shops.PASSWORD)
    add_category(make_tournament(), "Kata", currency="KZT", fee_minor=900_000)
    yield shops.Here(app, sandbox, "open")
    epochs.look_again()


def test_a_shop_comes_back_from_a_backup_with_nothing_lost_or_twice(shop: shops.Here, tmp_path: Path) -> None:
    outcome = Story(shop, tmp_path, IDENTITY, purchases=(9, 0, 6), hands=1).run()
    assert outcome.problems == [], "\n".join(outcome.problems)
    assert outcome.paid.keys() == {"stripe", "sumup", "kaspi"}
    assert outcome.incidents > 4 and outcome.written_down and outcome.attached["tickets"], outcome
