"""A shop of a million orders: its pages, its files, its checks, a sweep's duties. Jobs of `bench.inside`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import psutil
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func, insert, select, text, update
from sqlalchemy.orm import InstrumentedAttribute
from werkzeug.test import TestResponse

from bench import bulk, bulk_around, visits
from bench.visits import Shop
from domain import clock
from domain.door import staff
from domain.office import changes, invariants, metrics, person_export, retention, tallies, whole_checks
from domain.people import accounts, api_access
from domain.post import outbox
from domain.security import api_keys, scopes
from domain.sweep import digests
from extensions import db
from models import (
    Athlete,
    AuditEntry,
    CheckRun,
    Event,
    Incident,
    Order,
    OrderState,
    OutboxMail,
    Participant,
    Payment,
    Role,
    Ticket,
    TimelineEntry,
    User,
)
from tests.support.people import log_in, make_member

REQUESTS = 50
EVENT = "bulk-1"
BOSS = "million@example.org"
_BUYER = "member77@example.org"
# A file is taken in parts; after so many the memory is looked at.
_PARTS_A_LOOK = 50


def fill(app: Flask, orders: int) -> bool:
    """Write the rows, and have PostgreSQL look at them as autovacuum would; False where they are there."""
    boss = accounts.find(BOSS) or make_member(BOSS, Role.ADMIN)
    values: dict[str, object] = {"now": clock.now(), "boss": boss.id}
    if db.session.scalar(select(Event.id).filter_by(slug=EVENT)) is not None:
        return False
    values["base"] = db.session.scalar(select(func.coalesce(func.max(Order.id), 0)))
    db.session.rollback()
    with db.engine.connect() as connection:
        bulk.fill(connection, orders, values["now"])
        bulk_around.fill(connection, orders, values)
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
    tallies.renew()
    db.session.commit()
    return True


# --- Pages and files ------------------------------------------------------------------------------------


class _Browser(FlaskClient):
    """Each request has an application context of its own, as in production."""

    def open(self, *args: Any, **kwargs: Any) -> TestResponse:
        with self.application.app_context():
            return super().open(*args, **kwargs)


class Visitor:
    """The shop's admin, who owns all that is asked for; at the API by a key for everything."""

    def __init__(self, app: Flask) -> None:
        boss = accounts.find(BOSS)
        assert boss is not None, "Fill the shop first."
        self.shop = _shop(boss)
        self.key = _key(boss)
        self.browser = _Browser(app, app.response_class, use_cookies=True)
        db.session.remove()
        log_in(self.browser, BOSS)
        self._at_the_door()

    def get(self, path: str, **more: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.key}"} if path.startswith("/api/") else {}
        # Who scrapes comes too rarely to find what was kept.
        metrics._Kept.until = 0.0
        return self.browser.get(path, headers=headers, **more)

    def _at_the_door(self) -> None:
        event = db.session.scalars(select(Event).filter_by(slug=EVENT)).one()
        for one in staff.passes(event):
            staff.revoke(event, one.id)
        new, pin = staff.make_pass(event, "Bench", None)
        token = staff.url(new).rstrip("/").rpartition("/")[2]
        self.shop.own["door"]["token"] = token
        db.session.remove()
        form = {"pin": pin, "name": ""}
        page = self.browser.get(f"/door/{token}/").text
        form["csrf_token"] = page.partition('name="csrf_token" value="')[2].partition('"')[0]
        entered = self.browser.post(f"/door/{token}/enter", data=form)
        assert entered.status_code == 303, entered.text


def _key(boss: User) -> str:
    for one in api_keys.living(boss):
        api_keys.revoke(boss, one.public_id)
    return api_access.make_key(boss, "Bench", scopes.of_role(Role.ADMIN), 1)[1]


def _shop(boss: User) -> Shop:
    event = db.session.scalars(select(Event).filter_by(slug=EVENT)).one()
    cup = db.session.scalars(select(Event).filter_by(slug=bulk_around.CUP)).one()
    paid = select(Order).where(Order.event_id == event.id, Order.state == OrderState.COMPLETED)
    order = db.session.scalars(paid.order_by(Order.id.desc()).limit(1)).one()
    entry = db.session.scalars(select(Participant).join(Order).where(Order.user_id == boss.id).limit(1)).one()
    athlete = db.session.scalars(select(Athlete).filter_by(user_id=boss.id).limit(1)).one()
    waiting = select(func.max(Incident.id)).where(Incident.resolved_at.is_(None))
    of_cup = {"slug": cup.slug, "type_id": str(cup.ticket_types[0].id)}
    own: dict[str, dict[str, str]] = {
        "tournaments": of_cup,
        "door": {},
        "api": {"slug": cup.slug, "participant_id": entry.public_id, "athlete_id": athlete.public_id},
        "athletes.edit_athlete": {"public_id": athlete.public_id},
        "wallets.of": {"user_id": str(boss.id)},
    }
    names = ("edit_category", "edit_tournament", "new_category", "entry_list", "entry_file", "start_list")
    own |= {f"organiser.{name}": of_cup for name in names}
    parts = {"slug": event.slug, "code": order.code, "secret": order.secret}
    parts |= {"type_id": str(event.ticket_types[0].id), "incident_id": str(db.session.scalar(waiting))}
    counted: tuple[InstrumentedAttribute[int], ...] = (
        *(Order.id, Payment.id, Ticket.id, OutboxMail.id, Incident.id),
        AuditEntry.id,
    )
    highest = {key.class_.__tablename__: db.session.scalar(select(func.max(key))) or 0 for key in counted}
    return Shop(parts, own, highest)


def pages(app: Flask, requests: int = REQUESTS) -> dict[str, float]:
    """Each page with all its lists can do: milliseconds in which 95 of 100 requests were answered."""
    visitor, found = Visitor(app), dict[str, float]()
    for path in dict.fromkeys(visits.paths(app, visitor.shop)):
        times = []
        for number in range(requests + 1):
            began = time.perf_counter()
            answer = visitor.get(path)
            # The first one loads its template.
            if number and answer.status_code < 400:
                times.append(time.perf_counter() - began)
        found[path] = sorted(times)[int(len(times) * 0.95)] * 1000 if times else float("inf")
    return found


def statuses(app: Flask) -> dict[str, int]:
    """Each page once: what it is answered with."""
    visitor = Visitor(app)
    return {path: visitor.get(path).status_code for path in visits.paths(app, visitor.shop)}


def files(app: Flask) -> dict[str, dict[str, float]]:
    """Each file and long list: milliseconds until it begins, seconds until its end, MB it took, MB long."""
    visitor = Visitor(app)
    found = {path: _taken(visitor, path) for path in dict.fromkeys(visits.files(app, visitor.shop))}
    found["the file of a person's data"] = _measured(lambda: iter([person_export.of(_BUYER).encode()]))
    return found


def _taken(visitor: Visitor, path: str) -> dict[str, float]:
    def parts() -> Iterator[bytes]:
        answer = visitor.get(path, buffered=False)
        assert answer.status_code == 200, (path, answer.status_code)
        return iter(answer.response)

    return _measured(parts)


def _measured(begin: Callable[[], Iterator[bytes]]) -> dict[str, float]:
    process = psutil.Process()
    before, most, size, began = process.memory_info().rss, 0, 0, time.perf_counter()
    parts = begin()
    size += len(next(parts))
    first = (time.perf_counter() - began) * 1000
    for number, part in enumerate(parts):
        size += len(part)
        if number % _PARTS_A_LOOK == 0:
            most = max(most, process.memory_info().rss)
    whole = time.perf_counter() - began
    grown = max(most, process.memory_info().rss) - before
    return {"first_ms": first, "seconds": whole, "grown_mb": grown / 1e6, "long_mb": size / 1e6}


# --- Duties ---------------------------------------------------------------------------------------------


def periodic(app: Flask) -> dict[str, float]:
    """Milliseconds of what is done every some minutes, after 1,000 orders changed."""
    _change(1000)
    found = {"checks": _took(invariants.run)}
    found |= {"expired": _took(digests.raise_expired), "expired again": _took(digests.raise_expired)}
    _forget_digests()
    found["expired, never told"] = _took(digests.raise_expired)
    found["stuck"] = _took(digests.raise_stuck)
    mail = db.session.scalars(select(OutboxMail).order_by(OutboxMail.id.desc()).limit(1)).one()
    found["slow mail"] = _took(lambda: outbox._nothing_leaves(mail)) + _took(
        lambda: outbox._tell_of_outage(mail)
    )
    db.session.rollback()
    found["forget"] = _took(retention.forget)
    return found


def _forget_digests() -> None:
    """As if none had ever left: of a shop that was restored, or whose alerts were purged."""
    db.session.execute(
        update(OutboxMail)
        .where(OutboxMail.kind == "alert", OutboxMail.key.startswith("expired:"))
        .values(key="told:" + OutboxMail.key)
        .execution_options(synchronize_session=False)
    )
    db.session.commit()


def _change(number: int) -> None:
    """So many orders, each with a new line in its timeline, since checks that were ten minutes ago."""
    before = CheckRun(
        at=clock.now() - timedelta(minutes=10), marks=changes.marks(), violations=[], unchecked=[]
    )
    db.session.add(before)
    last = db.session.scalar(select(func.max(Order.id))) or 0
    common = {"at": clock.now(), "door": "bench", "what": "noted", "text": "", "data": {}}
    rows: list[dict[str, Any]] = [{"order_id": last - n, **common} for n in range(number)]
    db.session.execute(insert(TimelineEntry), rows)
    db.session.commit()


def whole(app: Flask) -> dict[str, float]:
    """The night's check, a run of its job after the other: seconds of all of it, of the longest, and runs."""
    times: list[float] = []
    check = None
    while check is None or check.finished_at is None:
        began = time.perf_counter()
        check = whole_checks.go_on(now=not times)
        times.append(time.perf_counter() - began)
        assert check is not None
    return {"seconds": sum(times), "longest": max(times), "runs": len(times), "broken": len(check.violations)}


def night(app: Flask, seconds: float) -> float:
    """The night's check for so long, at the pace of its job; seconds of work."""
    whole_checks.go_on(now=True)
    ends, worked = time.monotonic() + seconds, 0.0
    while time.monotonic() < ends:
        began = time.perf_counter()
        if whole_checks.go_on() is None:
            whole_checks.go_on(now=True)
        worked += time.perf_counter() - began
        time.sleep(max(0.0, min(60.0 - (time.perf_counter() - began), ends - time.monotonic())))
    return worked


def _took(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000
