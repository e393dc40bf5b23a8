"""The adapters that the suites of the provider contract are run over; and SumUp, with its answers by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from flask import Flask

import config
from domain.providers import registry, shared_rate
from domain.providers import sumup as adapter
from domain.providers.contract import Provider
from domain.providers.sumup import SumUpProvider
from tests.support.benches import BENCHES, Bench
from tests.support.sandbox import Sandbox
from tests.support.wire import Wire, start_wire


@pytest.fixture(params=sorted(BENCHES))
def bench(
    request: pytest.FixtureRequest, app: Flask, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> Bench:
    """Each adapter in turn, over an empty provider in which nothing goes wrong."""
    return BENCHES[request.param](sandbox, monkeypatch)


@pytest.fixture
def provider(bench: Bench) -> Provider:
    """The adapter as the domain gets it."""
    return bench.provider()


@pytest.fixture(params=sorted({*BENCHES, "wallet"}))
def any_provider(
    request: pytest.FixtureRequest, app: Flask, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> Provider:
    """Each adapter in turn, those included whose money never leaves our own ledger."""
    if request.param in BENCHES:
        return BENCHES[request.param](sandbox, monkeypatch).provider()
    return registry.get(str(request.param))


@pytest.fixture
def patient_redis(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Redis that may take its time, as on a machine that does much else: it is not taken to be away."""
    monkeypatch.setattr(shared_rate, "_SECONDS", 5.0)
    shared_rate.bind(config.get().redis_url)
    yield
    monkeypatch.undo()
    shared_rate.bind(config.get().redis_url)


# --- SumUp on a wire ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def _wire() -> Iterator[Wire]:
    wire = start_wire()
    yield wire
    wire.stop()


@pytest.fixture
def wire(_wire: Wire) -> Wire:
    """A wire that nobody has said anything on."""
    _wire.forget()
    return _wire


@pytest.fixture
def settings(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> config.Settings:
    """A Kassa whose SumUp is the wire. It needs no database: adapters have none."""
    least = {"SECRET_KEY": "x" * 32, "DATABASE_URL": "postgresql://h/n", "REDIS_URL": "redis://h"}
    found = replace(
        config.load({"KASSA_ENV": "development", **least}),
        sumup_api_key="sup_sk_wire",
        sumup_merchant_code="MC1",
        sumup_client_id="app-1",
        sumup_client_secret="app-secret",
        sumup_webhook_secret="whsec_wire",
        sumup_api_base=wire.url,
        sumup_rate_per_second=1000,
        sumup_test_account=True,
    )
    monkeypatch.setattr(config, "_current", found)
    return found


@pytest.fixture
def sumup(settings: config.Settings) -> SumUpProvider:
    """The adapter of the platform's account."""
    return adapter.build(settings)
