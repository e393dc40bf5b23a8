"""Nobody is told of what is kept of them, or forgotten, by reading a table that grows from end to end.

Each question that is asked for it is planned anew where PostgreSQL may not scan if an index serves. What then
still reads all of a large table, for want of a condition or a limit, is found however few rows a test has.
Pages and duties, in a shop of some thousand orders: tests/test_large_lists.py.
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
from domain.office import erasures, person_export, thinning
from domain.payments import settling
from domain.people import accounts
from extensions import db
from models import Erasure, Event, Order, Role, User
from tests.support.people import make_member
from tests.support.shop import make_event, place, report_on

LARGE = frozenset(
    ("orders", "outbox", "tickets", "payments", "order_lines", "timeline", "order_words", "audit_log")
)
# And what grows with the members and the doors, where one person is looked for.
OF_PERSONS = LARGE | {"users", "check_ins", "refunds", "transfers"}


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
    # Of three rows all are joined as they come, by whichever index; of a million they are looked up.
    for way in ("seqscan", "mergejoin", "hashjoin"):
        db.session.execute(text(f"SET LOCAL enable_{way} = off"))
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
