"""How many threads of a web process wait for providers, and the rate that all processes share."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier, Event, Thread, Timer
from typing import Any

import pytest
from flask import Flask

import config
from domain.providers import bulkhead, registry, shared_rate
from domain.providers import throttle as throttling
from domain.providers.contract import ProviderError
from domain.providers.throttle import Throttle


@pytest.fixture(autouse=True)
def web(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A thread that serves a request, in a process of eight that has asked nobody yet."""
    monkeypatch.setattr(bulkhead, "_accounts", {})
    config.use(replace(config.get(), web_threads=8))
    bulkhead.enter_web()
    yield
    bulkhead.leave_web()


class Waiting:
    """Threads that wait for an account, until they are let go."""

    def __init__(self) -> None:
        self._go = Event()
        self._threads: list[Thread] = []

    def add(self, account: str) -> None:
        inside = Event()

        def call() -> None:
            bulkhead.enter_web()
            with bulkhead.place("pebble", account):
                inside.set()
                self._go.wait(30)

        self._threads.append(Thread(target=call))
        self._threads[-1].start()
        assert inside.wait(5)

    def end(self) -> None:
        self._go.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def waiting() -> Iterator[Waiting]:
    made = Waiting()
    yield made
    made.end()


def finds_room(account: str) -> bool:
    try:
        with bulkhead.looking(), bulkhead.place("pebble", account):
            return True
    except ProviderError as error:
        assert (error.code, error.permanent, error.undone) == (bulkhead.NO_ROOM, False, True)
        return False


def test_a_quarter_for_one_and_half_for_all(waiting: Waiting) -> None:
    waiting.add("shop-1")
    assert finds_room("shop-1")
    waiting.add("shop-1")
    assert not finds_room("shop-1") and not bulkhead.may_refresh("pebble", "shop-1")
    assert finds_room("shop-2")
    waiting.add("shop-2")
    waiting.add("shop-3")
    assert not finds_room("shop-4") and not bulkhead.may_refresh("pebble", "shop-4")


def test_jobs_are_not_limited(waiting: Waiting) -> None:
    for _ in range(2):
        waiting.add("shop-1")
    bulkhead.leave_web()
    assert finds_room("shop-1") and bulkhead.may_refresh("pebble", "shop-1")


def test_who_pays_waits_a_moment_for_room(waiting: Waiting, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        waiting.add("shop-1")
    began = time.monotonic()
    Timer(0.2, waiting.end).start()
    with bulkhead.place("pebble", "shop-1"):
        assert 0.1 < time.monotonic() - began < 1


def test_nobody_waits_behind_a_call_that_takes_long(
    waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulkhead, "_PROMPT", 0.1)
    for _ in range(2):
        waiting.add("shop-1")
    began = time.monotonic()
    with pytest.raises(ProviderError), bulkhead.place("pebble", "shop-1"):
        pass
    assert time.monotonic() - began < 0.5


def test_a_call_within_a_call_takes_no_second_place(waiting: Waiting) -> None:
    """A new token, say, is asked for in the place of the call that needs it."""
    waiting.add("shop-1")
    with (
        bulkhead.place("pebble", "shop-1"),
        bulkhead.place("pebble", "shop-1"),
        bulkhead.place("pebble", "tokens"),
    ):
        pass


def silence(account: str, times: int) -> None:
    for _ in range(times):
        with pytest.raises(ProviderError), bulkhead.place("pebble", account):
            raise ProviderError("Nothing came.", permanent=False, code="timeout", silent=True)


def test_after_three_silences_one_probe_in_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(bulkhead, "monotonic", lambda: now[0])
    silence("shop-1", 2)
    assert bulkhead.may_refresh("pebble", "shop-1")
    silence("shop-1", 1)
    now[0] += 9.9
    assert not bulkhead.may_refresh("pebble", "shop-1")
    # One account's silence is not another's, and who pays asks in any case.
    assert bulkhead.may_refresh("pebble", "shop-2") and finds_room("shop-1")
    silence("shop-1", 3)
    now[0] += 10
    assert [bulkhead.may_refresh("pebble", "shop-1") for _ in range(3)] == [True, False, False]
    silence("shop-1", 1)
    now[0] += 9.9
    assert not bulkhead.may_refresh("pebble", "shop-1")
    now[0] += 0.2
    assert bulkhead.may_refresh("pebble", "shop-1")
    with bulkhead.place("pebble", "shop-1"):
        pass
    assert [bulkhead.may_refresh("pebble", "shop-1") for _ in range(3)] == [True] * 3


def test_an_answer_that_says_no_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    for permanent in (True, False) * 3:
        with pytest.raises(ProviderError), bulkhead.place("pebble", "shop-1"):
            raise ProviderError("No.", permanent=permanent, code="http_500")
    assert bulkhead.may_refresh("pebble", "shop-1")


# --- The rate -------------------------------------------------------------------------------------------


def taken(throttles: list[Throttle], seconds: float) -> int:
    """How many places threads with a throttle each get in so many seconds."""
    began, barrier = time.monotonic(), Barrier(len(throttles))

    def one(throttle: Throttle) -> int:
        barrier.wait()
        count = 0
        while (left := began + seconds - time.monotonic()) > 0:
            try:
                throttle.wait(left)
            except ProviderError:
                break
            count += 1
        return count

    with ThreadPoolExecutor(len(throttles)) as pool:
        return sum(pool.map(one, throttles))


@pytest.mark.usefixtures("patient_redis")
def test_processes_share_the_rate_of_an_account() -> None:
    """A throttle each is what processes have; they meet in Redis."""
    count = taken([Throttle(20, "pebble:shop-1") for _ in range(5)], 1.0)
    # On a busy machine fewer; never more than the places of a second and one each that was under way.
    assert 10 <= count <= 22
    # Another account has its own line; so has who gives no name, who shares with nobody.
    assert taken([Throttle(20, "pebble:shop-1"), Throttle(20, "pebble:shop-2")], 0.5) >= 16


@pytest.mark.usefixtures("patient_redis")
def test_each_kind_of_call_has_its_own_line() -> None:
    throttle = Throttle(1000, "pebble:shop-1", kinds=1)
    throttle.wait(0, "sessions")
    throttle.wait(0.1, "refunds")
    with pytest.raises(ProviderError) as refused:
        throttle.wait(0.1, "sessions")
    assert refused.value.code == "throttled"
    # Who was refused took no place.
    throttle.wait(1.1, "sessions")


def test_a_quarter_each_where_redis_is_away(app: Flask) -> None:
    shared_rate.bind("redis://127.0.0.1:1/0")
    try:
        assert taken([Throttle(80, "pebble:shop-1") for _ in range(4)], 1.0) in range(60, 86)
        alone = taken([Throttle(80, "pebble:shop-1")], 0.5)
        assert 8 <= alone <= 12
    finally:
        shared_rate.bind(config.get().redis_url)


def test_a_slow_redis_costs_fifty_milliseconds_once(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as deaf:
        shared_rate.bind(f"redis://127.0.0.1:{deaf.getsockname()[1]}/0")
        try:
            throttle, times = Throttle(1_000_000, "pebble:shop-1"), []
            for _ in range(3):
                began = time.monotonic()
                throttle.wait(1)
                times.append(time.monotonic() - began)
        finally:
            shared_rate.bind(config.get().redis_url)
    assert 0.04 < times[0] < 0.4 and max(times[1:]) < 0.04


def test_the_adapters_share_by_account(app: Flask) -> None:
    asked: list[dict[str, float]] = []

    def note(lines: Any, longest: float) -> float:
        asked.append(dict(lines))
        return 0.0

    throttling.share_by(note)
    try:
        for name in ("stripe", "sumup"):
            registry.get(name).health()
    finally:
        shared_rate.bind(config.get().redis_url)
    assert {name for lines in asked for name in lines} >= {"stripe:platform", "sumup:MKASSA01"}
