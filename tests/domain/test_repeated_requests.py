"""Named requests: one is done, the others are told what it was answered."""

from __future__ import annotations

from datetime import timedelta

import pytest
from flask import Flask
from sqlalchemy import func, select

from domain import clock, repeated_requests
from domain.errors import DomainError
from domain.office import retention
from domain.repeated_requests import Answer, Claim, InProgress, Reused
from extensions import db
from models import ApiRequest
from tests.support.threads import at_once


def claim(
    caller: str = "user:1", method: str = "POST", path: str = "/p", key: str = "k", body: bytes = b"{}"
) -> Claim | Answer:
    return repeated_requests.claim(caller, method, path, key, body)


def claimed(key: str = "k") -> Claim:
    found = claim(key=key)
    assert isinstance(found, Claim)
    return found


def later(monkeypatch: pytest.MonkeyPatch, **how_much: float) -> None:
    moment = clock.now() + timedelta(**how_much)
    monkeypatch.setattr(clock, "now", lambda: moment)


def test_the_answer_is_kept_for_a_day(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    repeated_requests.finish(claimed(), 201, '{"a":1}')
    assert claim() == Answer(201, '{"a":1}')
    with pytest.raises(Reused):
        claim(body=b"{ }")
    later(monkeypatch, hours=23, minutes=59)
    assert isinstance(claim(), Answer)
    later(monkeypatch, minutes=2)
    assert isinstance(claim(body=b"[]"), Claim)


def test_a_name_is_a_callers_for_one_address(app: Flask) -> None:
    repeated_requests.finish(claimed(), 200, "{}")
    others = (
        claim(caller="key:1"),
        claim(method="PUT"),
        claim(path="/q"),
        claim(key="K"),
    )
    assert [type(other) for other in others] == [Claim] * 4


def test_nobody_waits_and_a_dead_ones_name_is_free_after_a_minute(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = claimed()
    with pytest.raises(InProgress):
        claim()
    with pytest.raises(Reused):
        claim(body=b"other")
    later(monkeypatch, seconds=59)
    with pytest.raises(InProgress):
        claim()
    later(monkeypatch, seconds=2)
    heir = claimed()
    # It was not dead after all, and comes back: what it says is not kept, nor does it free the heir's name.
    repeated_requests.finish(dead, 200, "{}")
    repeated_requests.give_back(dead)
    with pytest.raises(InProgress):
        claim()
    repeated_requests.finish(heir, 201, '{"b":1}')
    assert claim() == Answer(201, '{"b":1}')


def test_what_is_given_back_is_free_at_once(app: Flask) -> None:
    repeated_requests.give_back(claimed())
    assert isinstance(claim(body=b"other"), Claim)


def test_of_many_at_once_one_works(app: Flask) -> None:
    got = at_once(app, 8, lambda number: claim())
    assert sum(isinstance(each, Claim) for each in got) == 1
    assert sum(isinstance(each, InProgress) for each in got) == 7


def test_what_is_kept() -> None:
    kept = {status for status in range(200, 600) if repeated_requests.is_kept(status)}
    assert kept == {*range(200, 500)} - {401, 403, 429}


@pytest.mark.parametrize("key", ["", "x" * 256, "a\nb", "\u00e4", "a\x00"])
def test_what_is_no_key(app: Flask, key: str) -> None:
    with pytest.raises(DomainError, match="255 printable"):
        claim(key=key)


def test_old_ones_are_forgotten(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    claimed(key="old")
    repeated_requests.finish(claimed(key="older"), 200, "{}")
    later(monkeypatch, hours=25)
    claimed(key="new")
    assert retention.forget() == 2
    assert db.session.scalar(select(func.count()).select_from(ApiRequest)) == 1
