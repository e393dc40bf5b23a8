"""Processes that run the domain directly, as a worker does, for what is measured without HTTP.

`Inside` is the bench's end: `do("settle", ...)` runs the function of that name in `JOBS` there and returns
its result. What such a process spends counts as a server's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

import config
from app import create_app
from bench import counting, filling, million
from bench.client import at_once
from bench.counting import identity
from domain import clock
from domain.catalogue import events
from domain.door import staff
from domain.payments import settling
from domain.providers import throttle
from domain.sweep import sweeping
from domain.tickets import documents, issuing
from extensions import db
from models import Event, EventState, Order, Payment
from tests.support import shop

# Each thread of a process has a connection of its own.
_ANSWER_SECONDS = 3600


class Inside:
    """The bench's end of one such process."""

    def __init__(self, env: Mapping[str, str], log: Path) -> None:
        context = get_context("spawn")
        self._log = log
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(dict(env), log, theirs), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    def do(self, job: str, **arguments: Any) -> Any:
        """Run a job and wait for its result."""
        self.begin(job, **arguments)
        return self.result()

    def begin(self, job: str, **arguments: Any) -> None:
        """Start a job; `result()` waits for it."""
        self._pipe.send((job, arguments))

    def result(self) -> Any:
        try:
            if self._pipe.poll(_ANSWER_SECONDS):
                return self._pipe.recv()
        except EOFError:
            pass
        lines = self._log.read_text(errors="replace").splitlines()[-15:]
        raise RuntimeError("\n".join(["A process of the bench gave no answer. The end of its log:", *lines]))

    def stop(self) -> None:
        self._pipe.close()
        self._process.join(10)
        self._process.kill()


def _serve(env: dict[str, str], log: Path, pipe: Connection) -> None:
    """The other end: one job after the other, until the pipe is closed."""
    os.environ.update(env)
    with log.open("ab") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    app = create_app()
    while True:
        try:
            job, arguments = pipe.recv()
        except EOFError:
            return
        with app.app_context():
            result = JOBS[job](app, **arguments)
        pipe.send(result)


# --- Jobs -----------------------------------------------------------------------------------------------


def _event(app: Flask, slug: str, capacity: int, kinds: int = 1) -> dict[str, Any]:
    """A published event; its ticket types' ids, cheapest first."""
    starts_at = clock.now() + timedelta(days=30)
    event = events.create_event(
        title=slug.capitalize(),
        slug=slug,
        description="An evening of songs from the islands.\n\nDoors open half an hour before.",
        venue="Town Hall",
        address="York Street, St Helier",
        timezone="Europe/Jersey",
        currency="EUR",
        starts_at=starts_at,
        ends_at=starts_at + timedelta(hours=3),
        state=EventState.PUBLISHED,
    )
    for number, name in enumerate(["Standard", "Reduced", "Family"][:kinds]):
        events.add_ticket_type(event, name=name, price_minor=2500 + 500 * number, capacity=capacity)
    return {"id": event.id, "types": [kind.id for kind in events.event(slug).ticket_types]}


def _order(slug: str, quantity: int) -> int:
    """One order, placed and settled as paid, on the thread's own connection; its id."""
    order_id = identity(shop.place(events.event(slug), quantity))
    payment = db.session.scalars(select(Payment).filter_by(order_id=order_id)).one()
    outcome = settling.settle(payment.id, shop.report_on(payment, "paid"), door="bench")
    assert outcome.verdict == "verified", outcome
    return order_id


def _settle(app: Flask, slug: str, orders: int, threads: int, quantity: int = 1) -> float:
    """Place and settle so many orders; the seconds that took."""

    def some(numbers: Iterator[int]) -> None:
        for _ in numbers:
            with app.app_context():
                _order(slug, quantity)

    began = time.perf_counter()
    at_once(threads, range(orders), some)
    return time.perf_counter() - began


def _settled_in(app: Flask, slug: str, seconds: float, threads: int) -> int:
    """Place and settle orders of one ticket for so long; how many that were."""
    ends, done = time.monotonic() + seconds, []

    def some(numbers: Iterator[int]) -> None:
        while time.monotonic() < ends:
            with app.app_context():
                done.append(_order(slug, 1))

    at_once(threads, range(threads), some)
    return len(done)


def _codes(app: Flask, slug: str, orders: int, each: int) -> list[str]:
    """Paid orders of `each` tickets; the texts of the tickets' QR codes."""
    texts = []
    for _ in range(orders):
        order = db.session.get_one(Order, _order(slug, each))
        texts += [issuing.qr_text(ticket, order.code) for ticket in order.tickets]
        db.session.remove()
    return texts


def _api_ready(app: Flask, slug: str, entries: int, codes: int) -> dict[str, Any]:
    """What a program needs: a key for everything, entries to pay for, a paid one, and tickets' codes."""
    made = counting.program(entries + 1)
    db.session.remove()
    return made | {"codes": _codes(app, slug, -(-codes // 10), 10)[:codes]}


def _paid_sessions(app: Flask, slug: str, number: int) -> list[dict[str, str]]:
    """Paid payments as a provider's event names them."""
    paid = []
    for _ in range(number):
        payment = db.session.get_one(Order, _order(slug, 1)).payments[0]
        names = {"provider_id": payment.provider_id or "", "reference": payment.reference}
        paid.append(names | {"site": config.get().public_url})
        db.session.remove()
    return paid


def _door_pass(app: Flask, slug: str) -> tuple[str, str]:
    """A way in for a scanner: token and PIN."""
    made, pin = staff.make_pass(events.event(slug), "Bench", None)
    return made.token, pin


def _pdf(app: Flask, slug: str, quantity: int, times: int) -> dict[str, float]:
    """Draw an order's PDF again and again: CPU seconds each, and bytes."""
    order = db.session.get_one(Order, _order(slug, quantity))
    size = len(documents.tickets_pdf(order))
    began = time.process_time()
    for _ in range(times):
        documents.tickets_pdf(order)
    return {"cpu": (time.process_time() - began) / times, "bytes": size}


def _yardstick(app: Flask, slug: str, times: int) -> float:
    """CPU milliseconds of what no Flask shop can do without: how fast this machine is just now."""
    # The shop's own engine, without its application around it.
    bare, engine = Flask("bare"), db.engine
    page = bare.jinja_env.from_string("<h1>{{ event.title }}</h1>" + "<p>{{ event.venue }}</p>" * 40)

    @bare.get("/")
    def show() -> str:
        with Session(engine) as session:
            return page.render(event=session.scalars(select(Event).filter_by(slug=slug)).one())

    client = bare.test_client()
    assert client.get("/").status_code == 200
    began = time.process_time()
    for _ in range(times):
        client.get("/")
    return (time.process_time() - began) / times * 1000


def _sweep(app: Flask) -> dict[str, float]:
    """One sweep: what it found, its provider calls, and its seconds."""
    calls, began = throttle.calls.total, time.perf_counter()
    run = sweeping.run("command")
    wall = time.perf_counter() - began
    found = {"found": run.found, "pending": run.pending, "errors": run.errors}
    return {**found, "calls": throttle.calls.total - calls, "wall": wall}


JOBS: dict[str, Callable[..., Any]] = {
    "event": _event,
    "settle": _settle,
    "settled_in": _settled_in,
    "codes": _codes,
    "door_pass": _door_pass,
    "pdf": _pdf,
    "sweep": _sweep,
    "yardstick": _yardstick,
    "count": counting.count,
    "due_payments": filling.due_payments,
    "connected": filling.connected,
    "put_to_rest": filling.put_to_rest,
    "payments_at_rest": filling.payments_at_rest,
    "explain": filling.explain,
    "forget_mail": filling.forget_mail,
    "mail_due": filling.mail_due,
    "stock": filling.stock,
    "rings": filling.rings,
    "rings_done": filling.rings_done,
    "paid_sessions": _paid_sessions,
    "api_ready": _api_ready,
    "million_fill": million.fill,
    "million_pages": million.pages,
    "million_files": million.files,
    "million_periodic": million.periodic,
    "million_statuses": million.statuses,
    "million_whole": million.whole,
    "million_night": million.night,
}
