"""A shop of a million orders: its pages, its checks, a sweep's duties. Jobs of `bench.inside`."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from flask import Flask
from sqlalchemy import func, insert, select, text

from bench import bulk
from domain import clock
from domain.office import changes, invariants, metrics, tallies, whole_checks
from domain.sweep import digests
from extensions import db
from models import CheckRun, Event, Order, Role, TimelineEntry, User
from tests.support.people import log_in, make_member

REQUESTS = 50
_BOSS = "million@example.org"
# Pages that ask a provider, and files: of those the first byte counts, and not the last.
_LEFT_OUT = ("admin.connection", "organiser.attendee_file", "organiser.entry_file", "door.door_list")
_PLACES = ("admin", "organiser", "account", "wallet", "wallets", "athletes", "tournaments", "door", "health")
_SEARCHES = (
    *("lindquist", "ada", "ada+lindquist", "example.org", "mail3.exam", "25.00", "nobody", "bulk"),
    *("ada&state=expired", "&state=requires_manual_review", "&state=completed"),
)


def fill(app: Flask, orders: int) -> None:
    """Write the rows, and have PostgreSQL look at them as autovacuum would."""
    with db.engine.connect() as connection:
        bulk.fill(connection, orders, clock.now())
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
    tallies.renew()
    db.session.commit()


def pages(app: Flask, requests: int = REQUESTS) -> dict[str, float]:
    """Each page of the URL map, and searches: milliseconds in which 95 of 100 requests were answered."""
    if db.session.scalar(select(User.id).filter_by(email=_BOSS)) is None:
        make_member(_BOSS, Role.ADMIN)
    event = db.session.scalars(select(Event).filter_by(slug="bulk-1")).one()
    paths = sorted(set(_paths(app, event)))
    db.session.remove()
    browser = app.test_client()
    log_in(browser, _BOSS)
    found = {}
    for path in paths:
        times = []
        for number in range(requests + 1):
            metrics._Kept.until = 0.0
            began = time.perf_counter()
            answer = browser.get(path)
            if number and answer.status_code < 500:
                times.append(time.perf_counter() - began)
        found[path] = sorted(times)[int(len(times) * 0.95)] * 1000 if times else float("inf")
    return found


def _paths(app: Flask, event: Event) -> Iterator[str]:
    newest = select(Order.code).where(Order.event_id == event.id).order_by(Order.id.desc()).limit(1)
    known = {"slug": event.slug, "code": db.session.scalar(newest), "type_id": event.ticket_types[0].id}
    for rule in app.url_map.iter_rules():
        listed = rule.endpoint.split(".")[0] in _PLACES and rule.endpoint not in _LEFT_OUT
        if listed and "GET" in (rule.methods or ()):
            # Of a choice the first, as `stripe` of `<any(stripe, sumup):name>`.
            path = re.sub(r"<any\((\w+)[^)]*\):\w+>", r"\1", rule.rule)
            yield re.sub(r"<(?:[^:<>]+:)?(\w+)>", lambda match: str(known.get(match[1], 1)), path)
    for words in _SEARCHES:
        yield f"/admin/orders?q={words}"
        yield f"/organiser/events/{event.slug}/orders?q={words}"
        yield f"/organiser/events/{event.slug}/attendees?q={words}"


def first_byte(app: Flask) -> dict[str, float]:
    """Milliseconds until a large event's files and lists begin to come."""
    browser = app.test_client()
    log_in(browser, _BOSS)
    found = {}
    for path in ("/organiser/events/bulk-1/attendees.csv", "/door/events/bulk-1/list", "/admin/statistics"):
        began = time.perf_counter()
        answer = browser.get(path, buffered=False)
        next(iter(answer.response))
        found[path] = (time.perf_counter() - began) * 1000
        answer.close()
    return found


def periodic(app: Flask) -> dict[str, float]:
    """Milliseconds of the checks after 1,000 orders changed, and of the digests; a night's in seconds."""
    before = CheckRun(
        at=clock.now() - timedelta(minutes=10), marks=changes.marks(), violations=[], unchecked=[]
    )
    db.session.add(before)
    last = db.session.scalar(select(func.max(Order.id))) or 0
    rows: list[dict[str, Any]] = [
        {
            "order_id": last - n,
            "at": clock.now(),
            "door": "bench",
            "what": "noted",
            "text": "",
            "data": {},
        }
        for n in range(1000)
    ]
    db.session.execute(insert(TimelineEntry), rows)
    db.session.commit()
    found = {"checks": _took(invariants.run), "expired": _took(digests.raise_expired)}
    found["stuck"] = _took(digests.raise_stuck)
    found["whole"] = _took(_whole) / 1000
    return found


def _whole() -> None:
    check = whole_checks.go_on(now=True)
    while check is not None and check.finished_at is None:
        check = whole_checks.go_on()


def _took(work: Any) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000
