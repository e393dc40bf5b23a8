"""No page reads a table that grows from one end to the other: its questions, planned by PostgreSQL itself.

Every page of the URL map is asked for by an admin who also owns the event, searching and filtering where the
page knows how, and each question it asks is planned anew where PostgreSQL may not scan if an index serves.
What then still reads all of a large table, for want of a condition or a limit, is found however few rows a
test has.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import event, select, text

from domain import clock
from domain.office import erasures, person_export, tallies, thinning
from domain.payments import settling
from domain.people import accounts
from domain.post import outbox
from domain.sweep import digests
from extensions import db
from models import Erasure, Event, Order, OutboxMail, Role, User
from tests.blueprints.organiser.test_walk import addresses
from tests.support.people import log_in, make_member
from tests.support.shop import make_event, place, report_on

LARGE = frozenset(
    ("orders", "outbox", "tickets", "payments", "order_lines", "timeline", "order_words", "audit_log")
)
# And what grows with the members and the doors, where one person is looked for.
OF_PERSONS = LARGE | {"users", "check_ins", "refunds", "transfers"}
# What is asked of each page; those that do not list take no notice.
ASKED = ("", "?q=ada+25.00&state=completed&before=99999")
PLACES = (
    "admin",
    "desk",
    "organiser",
    "account",
    "wallet",
    "wallets",
    "athletes",
    "tournaments",
    "door",
    "health",
)


@contextmanager
def asked(kinds: str = "SELECT|WITH|UPDATE outbox") -> Iterator[dict[str, Any]]:
    """The questions of a block, each with what it was asked with."""
    found: dict[str, Any] = {}

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if re.match(rf"\s*({kinds})\b", statement):
            found.setdefault(statement, parameters[0] if isinstance(parameters, list) else parameters)

    event.listen(db.engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(db.engine, "before_cursor_execute", note)


def whole(plan: dict[str, Any], large: frozenset[str], limited: bool = False) -> Iterator[str]:
    """The large tables that a plan reads from one end to the other."""
    limited |= plan["Node Type"] == "Limit"
    table = plan.get("Relation Name")
    narrowed = any(name in plan for name in ("Index Cond", "Recheck Cond")) or is_partial(plan)
    if (
        table in large
        and "Scan" in plan["Node Type"]
        and not narrowed
        and (plan["Node Type"] == "Seq Scan" or not limited)
    ):
        yield f"{plan['Node Type']} on {table}"
    for part in plan.get("Plans", ()):
        yield from whole(part, large, limited)


def is_partial(plan: dict[str, Any]) -> bool:
    """An index of some rows only, such as those that are due, is read whole for good reason."""
    name = plan.get("Index Name")
    partial = "SELECT indpred IS NOT NULL FROM pg_index WHERE indexrelid = CAST(:name AS regclass)"
    return name is not None and bool(db.session.scalar(text(partial), {"name": name}))


def scans(statements: dict[str, Any], large: frozenset[str] = LARGE) -> dict[str, list[str]]:
    db.session.rollback()
    db.session.execute(text("SET LOCAL enable_seqscan = off"))
    cursor = db.session.connection().connection.cursor()
    found: dict[str, list[str]] = {}
    for statement, parameters in statements.items():
        cursor.execute(f"EXPLAIN (FORMAT JSON) {statement}", parameters)
        (plan,) = cursor.fetchone() or ("[]",)
        read = list(whole((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"], large))
        if read:
            found[statement] = read
    db.session.rollback()
    return found


@pytest.fixture
def shop(app: Flask) -> Event:
    boss = make_member("boss@example.org", Role.ADMIN)
    own = make_event("theirs", capacity=100, organiser_id=boss.id)
    for _ in range(3):
        order = place(db.session.get_one(Event, own.id))
        for state in ("open", "paid"):
            settling.settle(order.payments[0].id, report_on(order.payments[0], state), door="test")
    return db.session.get_one(Event, own.id)


def test_no_page_reads_a_large_table_whole(app: Flask, shop: Event, monkeypatch: pytest.MonkeyPatch) -> None:
    # As in a large shop, whose old rows were counted last night.
    monkeypatch.setattr(tallies, "RECENT", 1)
    tallies.renew()
    db.session.commit()
    boss = app.test_client()
    paths: set[str] = set()
    log_in(boss, "boss@example.org")
    for rule, path, method in addresses(app, shop):
        if method == "GET" and rule.endpoint.split(".")[0] in PLACES and rule.endpoint != "admin.connection":
            paths.add(path)
    with asked() as statements:
        for path in sorted(paths):
            for words in ASKED:
                boss.get(path + words)
    assert len(paths) > 60 and len(statements) > 100
    found = scans(statements)
    assert not found, "\n\n".join(f"{', '.join(read)}\n{query}" for query, read in found.items())


def test_no_duty_reads_a_large_table_whole(app: Flask, shop: Event) -> None:
    mail = db.session.get_one(OutboxMail, 1)
    with asked() as statements:
        digests.raise_stuck()
        digests.raise_expired()
        outbox._nothing_leaves(mail)
        outbox._tell_of_outage(mail)
    found = scans(statements)
    assert len(statements) >= 5 and not found, found


def test_nobody_is_told_or_forgotten_by_reading_everybody(app: Flask, shop: Event) -> None:
    """The file of all that is kept, an erasure with its end after years, and an event that is thinned."""
    email = db.session.scalars(select(Order.email)).first()
    boss, member = db.session.get_one(User, 1), make_member(str(email))
    accounts.claim_for(member)
    shop.starts_at, shop.ends_at = clock.now() - timedelta(days=2500), clock.now() - timedelta(days=2499)
    db.session.commit()
    with asked("SELECT|WITH|UPDATE|DELETE") as statements:
        person_export.of(member.email)
        erasures.ask_for(member.email, boss, "By letter")
        assert erasures.run_due() == 1
        row = db.session.query(Erasure).one()
        row.kept_until = clock.now()
        db.session.commit()
        erasures.run_due()
        thinning.run()
    assert len(statements) > 100
    found = scans(statements, OF_PERSONS)
    assert not found, "\n\n".join(f"{', '.join(read)}\n{query}" for query, read in found.items())


def test_a_page_that_would_is_found(app: Flask, shop: Event) -> None:
    with asked() as statements:
        db.session.execute(text("SELECT count(*) FROM orders WHERE name LIKE '%x%'"))
        db.session.execute(text("SELECT max(length(name)) FROM orders"))
        db.session.execute(text("SELECT id FROM orders ORDER BY id DESC LIMIT 5"))
    assert len(scans(statements)) == 2
