"""Most visits from one address: it is said, and limits for each network only slow down there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from time import monotonic

import pytest
from flask import Flask
from flask.testing import FlaskClient

import config
from domain.office import doctor, front_findings
from domain.security import fronts
from extensions import connect_redis, queue


@pytest.fixture
def seen(app: Flask) -> Iterator[None]:
    """A process that has seen nothing yet."""

    def forget() -> None:
        fronts._Seen.counts, fronts._Seen.since = Counter(), monotonic()
        fronts._Seen.front, fronts._Seen.read_at = None, 0.0

    forget()
    yield
    forget()


def visits(network: str, number: int) -> None:
    for _ in range(number):
        fronts.note(network)


def test_most_visits_from_one_address_are_told(seen: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(120):
        visits(f"198.51.100.{number}", 1)
    assert front_findings.look().state == doctor.OK
    visits("203.0.113.7", 480)
    found = front_findings.look()
    assert found.state == doctor.WARN
    assert "80% of the visits come from 203.0.113.7" in found.words
    assert "school" in found.fix and "TRUSTED_PROXIES" in found.fix
    fronts._Seen.read_at = 0.0
    assert fronts.is_shared("203.0.113.7") and not fronts.is_shared("198.51.100.1")
    assert len({fronts.counted("203.0.113.7") for _ in range(400)}) == 20
    assert fronts.counted("198.51.100.1") == "198.51.100.1"
    # What one of many is, is not kept.
    assert len(queue.redis.hgetall(f"kassa:visits:{fronts._hour()}")) == 2
    # Of an address that only a proxy can have it is known at once, but not in one's own house.
    assert not fronts.is_shared("10.0.0.7")
    config.use(replace(config.get(), development=False))
    assert fronts.is_shared("10.0.0.7") and fronts.is_shared("unknown") and fronts.is_shared("fd00::/64")
    monkeypatch.setattr(queue, "_redis", connect_redis("redis://127.0.0.1:1/0", timeout=1))
    assert fronts.most() is None
    visits("203.0.113.7", 200)


def test_pages_are_visits_and_what_hosts_and_programs_ask_is_not(seen: None, client: FlaskClient) -> None:
    for path in (
        "/livez",
        "/healthz",
        "/static/css/kassa.css",
        "/api/v1/openapi.json",
        "/",
        "/account/login",
    ):
        client.get(path)
    assert fronts._Seen.counts == Counter({"127.0.0.1": 2})


def test_a_school_s_limit_slows_down_instead_of_refusing(
    seen: None, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from blueprints.api import limits

    config.use(replace(config.get(), limits=True))
    with client.application.test_request_context("/", environ_base={"REMOTE_ADDR": "203.0.113.7"}):
        assert limits.by_network() == "203.0.113.7"
        monkeypatch.setattr(fronts, "is_shared", lambda network: True)
        assert limits.by_network().startswith("203.0.113.7#")
