"""What the back office says of each provider, and never a key."""

from __future__ import annotations

from dataclasses import replace

import pytest
from flask import Flask
from flask.testing import FlaskClient

import config
from domain import clock
from extensions import db
from models import Role, WebhookEvent
from tests.support.benches import KaspiR3Bench, SumUpBench
from tests.support.people import log_in, make_member
from tests.support.sandbox import Sandbox


@pytest.fixture
def boss(app: Flask) -> FlaskClient:
    """An admin's browser."""
    make_member("boss@example.org", Role.ADMIN)
    browser = app.test_client()
    log_in(browser, "boss@example.org")
    return browser


def test_the_providers_state_and_never_a_key(app: Flask, client: FlaskClient, boss: FlaskClient) -> None:
    now = clock.now()
    db.session.add(
        WebhookEvent(provider="stripe", event_id="evt_1", type="checkout.session.completed", received_at=now)
    )
    db.session.commit()
    pages = [boss.get("/admin/stripe"), client.get("/stripe/debug/")]
    as_json = client.get("/stripe/debug/", headers={"Accept": "application/json"})
    told = as_json.get_json()
    assert (told["connected"], told["mode"], told["webhook_secret"]) == (True, "test", True)
    assert told["account"]
    assert told["api_version"]
    assert told["events"][0]["id"] == "evt_1"
    settings = config.get()
    for page in (*pages, as_json):
        assert page.status_code == 200
        assert "checkout.session.completed" in page.text
        for secret in (settings.stripe_secret_key, settings.stripe_webhook_secret, settings.secret_key):
            assert secret not in page.text


def test_the_state_of_sumup(boss: FlaskClient, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = config.get()
    config.use(replace(ours, sumup_api_key="", sumup_client_id="", sumup_client_secret=""))
    assert "No key is set." in boss.get("/admin/sumup").text
    config.use(ours)
    bench = SumUpBench(sandbox, monkeypatch)
    page = boss.get("/admin/sumup").text
    assert "<h1>SumUp</h1>" in page and "MKASSA01" in page
    assert "not set: only its unsigned calls are heard" in page
    assert not any(secret in page for secret in bench.secrets)


def test_the_state_of_kaspi(boss: FlaskClient, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "No key is set." in boss.get("/admin/kaspi").text
    bench = KaspiR3Bench(sandbox, monkeypatch)
    page = boss.get("/admin/kaspi").text
    assert "<h1>Kaspi</h1>" in page and "990140001234" in page and "Certificate ends" in page
    assert "not set: only its unsigned calls are heard" in page
    assert not any(secret in page for secret in bench.secrets)


def test_debug_is_for_development_only(client: FlaskClient, boss: FlaskClient, sandbox: Sandbox) -> None:
    config.use(replace(config.get(), development=False))
    for browser in (client, boss):
        assert browser.get("/stripe/debug/").status_code == 404
    assert boss.get("/admin/stripe").status_code == 200


def test_a_provider_that_is_silent_or_not_set_up(client: FlaskClient, sandbox: Sandbox) -> None:
    sandbox.faults("http_500", seed=1, rate=1)
    assert "No usable answer" in client.get("/stripe/debug/").text
    config.use(replace(config.get(), stripe_secret_key="", stripe_webhook_secret=""))
    told = client.get("/stripe/debug/", headers={"Accept": "application/json"}).get_json()
    assert (told["ready"], told["connected"], told["webhook_secret"]) == (False, False, False)
