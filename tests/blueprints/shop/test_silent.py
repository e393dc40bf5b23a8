"""A provider that does not answer, and the threads of a web process, of which there are four."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import update

import config
from domain.payments import starting
from domain.providers import bulkhead, registry
from extensions import db
from models import Event, Payment, PaymentState
from tests.support.sandbox import Sandbox
from tests.support.shop import address, make_event, place
from tests.support.tills import STRIPE, Till
from tests.support.web import buy, newest_order, newest_payment, path_of


@pytest.fixture(autouse=True)
def nobody_asked_yet(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulkhead, "_accounts", {})


class Server:
    """Four threads that take one request after the other, as a web process has."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._threads = ThreadPoolExecutor(4)

    def get(self, path: str) -> Future[float]:
        """Ask for a page; the seconds from now until it is answered."""
        asked_at = time.monotonic()

        def answer() -> float:
            # A context of its own, which the test's client would not have in this thread.
            assert FlaskClient(self._app).get(path).status_code == 200
            return time.monotonic() - asked_at

        return self._threads.submit(answer)

    def stop(self) -> None:
        self._threads.shutdown(cancel_futures=True)


@pytest.fixture
def server(app: Flask) -> Iterator[Server]:
    running = Server(app)
    yield running
    running.stop()


def open_pages(till: Till, number: int) -> list[str]:
    event = make_event(capacity=1000, providers=[till.name])
    paths = []
    for _ in range(number):
        order = place(db.session.get_one(Event, event.id), provider=till.name)
        starting.open_at_provider(order)
        paths.append(f"{address(order)}.json")
    db.session.rollback()
    return paths


def slowest_livez(server: Server, paths: list[str], seconds: float) -> float:
    """The longest that /livez took, while each page asks again two seconds after it was answered."""
    ends = time.monotonic() + seconds
    pages = {path: server.get(path) for path in paths}
    due: dict[str, float] = {}
    looks: list[Future[float]] = []
    while time.monotonic() < ends:
        looks.append(server.get("/livez"))
        for path, page in list(pages.items()):
            if page.done():
                page.result()
                due[path] = time.monotonic() + 2
                del pages[path]
        for path, at in list(due.items()):
            if time.monotonic() >= at:
                pages[path] = server.get(path)
                del due[path]
        time.sleep(0.1)
    return max(look.result() for look in looks)


def test_open_pages_of_a_silent_provider_stop_nobody(sandbox: Sandbox, server: Server, till: Till) -> None:
    paths = open_pages(till, 12)
    sandbox.faults("timeout_before", match={"path": till.api}, seconds=6)
    # A tenth of that on a quiet machine, which bench/ measures; a thread would wait for five seconds.
    assert slowest_livez(server, paths, 3) < 1.5
    # They show what is known, and nothing is written down of questions that nobody asked.
    assert {payment.error_count for payment in db.session.query(Payment)} <= {0, 1}


def test_without_the_limit_they_would(sandbox: Sandbox, server: Server) -> None:
    config.use(replace(config.get(), web_threads=100))
    paths = open_pages(STRIPE, 12)
    sandbox.faults("timeout_before", match={"path": "^/stripe/"}, seconds=3)
    assert slowest_livez(server, paths, 1) > 1.5


def occupied(till: Till) -> bulkhead._Account:
    """Somebody has waited for the till's account for some seconds, and there is room for one."""
    adapter = registry.get(till.name)
    busy = bulkhead._Account([time.monotonic() - 3])
    bulkhead._accounts[(adapter.name, adapter.account)] = busy
    return busy


def test_who_buys_without_room_is_served_later(client: FlaskClient, sandbox: Sandbox, till: Till) -> None:
    busy = occupied(till)
    answer = buy(client, make_event(providers=[till.name]), provider=till.name)
    order = newest_order()
    assert answer.headers["Location"].endswith(address(order))
    assert client.get(address(order)).status_code == 200
    payment = newest_payment()
    assert (payment.state, payment.error_count, payment.last_polled_at) == (PaymentState.CREATED, 0, None)
    assert payment.asked_at is None
    assert sandbox.get("payments") == []
    busy.began.clear()
    client.get(address(order))
    assert newest_payment().state is PaymentState.OPEN


def test_who_comes_back_asks_in_a_pause(client: FlaskClient, sandbox: Sandbox, till: Till) -> None:
    order = place(make_event(providers=[till.name]), provider=till.name)
    payment = starting.open_at_provider(order)
    assert payment is not None and payment.provider_id is not None
    told = sandbox.do(payment.provider_id, "pay")
    busy = occupied(till)
    busy.began, busy.silent, busy.resumes_at = [], bulkhead.SILENT, time.monotonic() + 60
    assert client.get(f"{address(order)}.json").get_json()["payment_state"] == "open"
    assert client.get(path_of(told["success_url"])).status_code == 303
    assert client.get(f"{address(order)}.json").get_json()["payment_state"] == "paid"
    # An answer ends the pause.
    assert busy.silent == 0


def test_a_ring_without_room_comes_again(client: FlaskClient, sandbox: Sandbox, till: Till) -> None:
    payment = starting.open_at_provider(place(make_event(providers=[till.name]), provider=till.name))
    assert payment is not None and payment.provider_id is not None
    sandbox.do(payment.provider_id, "pay")
    busy = occupied(till)
    assert till.ring(client, payment) == 503
    busy.began.clear()
    db.session.execute(update(Payment).values(last_polled_at=None))
    db.session.commit()
    assert till.ring(client, newest_payment()) == 200
    assert newest_payment().state is PaymentState.PAID
