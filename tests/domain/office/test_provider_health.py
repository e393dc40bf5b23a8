"""What anybody may hear of the providers: only what our own calls have told within the last minute."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from flask import Flask

import config
from domain.office import health, provider_health
from domain.providers import bulkhead, knowledge, registry
from domain.providers.contract import ProviderError
from tests.support.sandbox import Sandbox
from tests.support.tills import Till


@pytest.fixture(autouse=True)
def _nothing_known(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that has asked nobody yet."""
    monkeypatch.setattr(knowledge, "_own", {})
    knowledge.bind(config.get().redis_url)
    yield
    knowledge.bind(config.get().redis_url)


def service(name: str) -> str:
    return str(provider_health.told().services[name])


def ask(name: str) -> None:
    registry.get(name).health()


def test_what_is_known_is_told_and_nobody_is_asked(sandbox: Sandbox, till: Till) -> None:
    assert service(till.name) == "configured"
    ask(till.name)
    before = len(sandbox.calls())
    assert service(till.name) == "connected"
    assert provider_health.told().status == "healthy"
    sandbox.faults("http_500", match={"path": till.api})
    with pytest.raises(ProviderError):
        ask(till.name)
    told = provider_health.told()
    assert (told.status, str(told.services[till.name])) == ("degraded", "unavailable")
    asked = len(sandbox.calls())
    for _ in range(5):
        provider_health.told()
    assert len(sandbox.calls()) == asked > before
    # A minute later nobody knows.
    sandbox.faults()
    sandbox.advance(61)
    assert service(till.name) == "configured"


def test_all_processes_know(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    ask("stripe")
    # Another process, which has made no call.
    monkeypatch.setattr(knowledge, "_own", {})
    assert service("stripe") == "connected"


def test_without_redis_a_process_goes_by_its_own_calls(sandbox: Sandbox) -> None:
    knowledge.bind("redis://127.0.0.1:1/0")
    assert service("stripe") == "configured"
    ask("stripe")
    assert service("stripe") == "connected"


@pytest.mark.parametrize(
    ("code", "permanent", "known"),
    [
        ("not_found", True, "connected"),
        ("forbidden", False, "connected"),
        ("timeout", False, "unavailable"),
        ("unreadable", False, "unavailable"),
        # Who was not asked told nothing, nor did one account whose organiser took the right away.
        (bulkhead.NO_ROOM, False, "configured"),
        ("throttled", False, "configured"),
        ("not_connected", False, "configured"),
        ("unauthorised", False, "configured"),
    ],
)
def test_which_errors_are_answers(code: str, permanent: bool, known: str) -> None:
    with pytest.raises(ProviderError), bulkhead.place("stripe", "platform"):
        raise ProviderError("It says so.", permanent=permanent, code=code)
    assert service("stripe") == known


def test_a_call_of_a_request_is_kept_too(app: Flask) -> None:
    bulkhead.enter_web()
    try:
        with bulkhead.place("stripe", "platform"):
            pass
    finally:
        bulkhead.leave_web()
    assert service("stripe") == "connected"


def test_without_keys_it_is_off_whatever_was_known(app: Flask) -> None:
    ask("stripe")
    config.use(replace(config.get(), stripe_secret_key=""))
    assert service("stripe") == "off"


def test_without_a_database_it_is_unhealthy(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "alive", lambda: False)
    assert provider_health.told().status == "unhealthy"


def test_its_three_fields(app: Flask) -> None:
    told = provider_health.told().as_dict()
    assert list(told) == ["status", "services", "timestamp"]
    assert told["services"]["stripe"] == "configured" and "wallet" not in told["services"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", told["timestamp"])
