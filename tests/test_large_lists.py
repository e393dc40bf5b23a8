"""No page reads a table that grows from one end to the other: what PostgreSQL itself reads for each question.

Every page of the URL map is visited in a small copy of the bench's shop of a million orders, each list with
its filters, by an admin who also owns the event. Each question is asked once more under EXPLAIN ANALYZE,
where PostgreSQL may not scan if an index serves, and the rows are counted that it looks at to answer it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import event, select, text

from bench import million, visits
from domain import kept_answers, searching
from domain.catalogue import takings
from domain.office import changes, payment_lists, person_export, tallies
from domain.orders import event_cancellation
from domain.post import outbox
from domain.sweep import digests
from extensions import db
from models import OutboxMail

LARGE = frozenset({"orders", "outbox", "tickets", "payments", "order_lines", "timeline", "order_words"})
ORDERS = 2_500
# A page looks at some times what it shows.
MOST_ROWS = 700
# Of so few rows it is cheapest to read all, and to join them as they come; of a million it is not.
_AS_IF_LARGE = (
    *("enable_seqscan = off", "enable_mergejoin = off", "enable_hashjoin = off"),
    *("work_mem = '64kB'", "hash_mem_multiplier = 1"),
)
# What a list is read by, and a word of the questions that read it all without.
NEEDED = {
    "orders_of_event_in_state": "orders.state",
    "payments_state": "payments.state",
    "payments_created": "payments.created_at",
    "tickets_of_event": "tickets.event_id",
    "order_lines_of_fees": "order_lines",
    "outbox_to": "outbox",
}


_FORGET = """
DELETE FROM pg_statistic WHERE starelid IN (
    SELECT oid FROM pg_class WHERE relnamespace = CAST('public' AS regnamespace))
"""


@contextmanager
def asked() -> Iterator[dict[str, Any]]:
    """The questions of a block, each with what it was asked with."""
    found: dict[str, Any] = {}

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if re.match(r"\s*(SELECT|WITH)\b", statement):
            found[f"{statement} -- {parameters}"] = (statement, parameters)

    event.listen(db.engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(db.engine, "before_cursor_execute", note)


def read(plan: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """How many rows of which large table each part of a plan looks at."""
    rows = plan.get("Actual Rows", 0) + plan.get("Rows Removed by Filter", 0)
    rows += plan.get("Rows Removed by Index Recheck", 0)
    # Few rows may be hashed as a whole, where many are looked up one by one.
    hashed = plan.get("Parent Relationship") == "SubPlan" and plan.get("Actual Loops") == 1
    if plan.get("Relation Name") in LARGE and not hashed:
        yield f"{plan['Node Type']} on {plan['Relation Name']}", rows * plan.get("Actual Loops", 1)
    for part in plan.get("Plans", ()):
        yield from read(part)


def too_much(questions: Sequence[tuple[str, Any]], without: str = "") -> dict[str, list[str]]:
    """The questions that look at too many rows; `without` an index, as if it had never been made."""
    db.session.rollback()
    for setting in _AS_IF_LARGE:
        db.session.execute(text(f"SET LOCAL {setting}"))
    if without:
        db.session.execute(text(f"DROP INDEX {without}"))
    cursor = db.session.connection().connection.cursor()
    found: dict[str, list[str]] = {}
    for statement, parameters in questions:
        cursor.execute(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {statement}", parameters)
        (plan,) = cursor.fetchone() or ("[]",)
        rows = read((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"])
        many = [f"{number:.0f} rows: {part}" for part, number in rows if number > MOST_ROWS]
        if many:
            found[statement] = many
    db.session.rollback()
    return found


@pytest.fixture
def visitor(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[million.Visitor]:
    """A visitor of a shop that thinks itself large, whose old rows were counted last night."""
    monkeypatch.setattr(tallies, "RECENT", 50)
    monkeypatch.setattr(takings, "_LARGE", 100)
    monkeypatch.setattr(changes, "LARGE", 100)
    # However busy the machine of this test is.
    monkeypatch.setattr(kept_answers, "_SECONDS", 3600.0)
    for name, number in (("_NEAR", 40), ("_FAR", 60), ("_FEW", 40)):
        monkeypatch.setattr(searching, name, number)
    monkeypatch.setattr(payment_lists, "_FAR", 60)
    monkeypatch.setattr(visits, "_SEARCHES", ("", "ben"))
    monkeypatch.setattr(visits, "_STATES", ("", "failed"))
    million.fill(app, ORDERS)
    yield million.Visitor(app)
    # What PostgreSQL learnt of these rows, it would believe of the next test's.
    db.session.rollback()
    db.session.execute(text(_FORGET))
    db.session.commit()


def _do_duties() -> None:
    """What a sweep does, and a mail that does not leave, and who asks for what is kept of them."""
    mail = db.session.scalars(select(OutboxMail).limit(1)).one()
    digests.raise_stuck()
    digests.raise_expired()
    outbox._nothing_leaves(mail)
    outbox._tell_of_outage(mail)
    event_cancellation.tell_holders()
    event_cancellation.close_pages()
    person_export.of(mail.to)


def test_no_page_and_no_duty_reads_a_large_table_whole(app: Flask, visitor: million.Visitor) -> None:
    paths = list(dict.fromkeys(visits.paths(app, visitor.shop)))
    # What is kept for a while is there before.
    for path in paths:
        if "statistics" in path or path.startswith("/organiser/") and "?" not in path:
            visitor.get(path)
    statuses: dict[str, int] = {}
    with asked() as questions:
        for path in paths:
            statuses[path] = visitor.get(path).status_code
    assert set(statuses.values()) == {200}, {path: one for path, one in statuses.items() if one != 200}
    assert len(paths) > 150 and len(questions) > 300
    found = too_much(list(questions.values()))
    assert not found, "\n\n".join(f"{', '.join(rows)}\n{query}" for query, rows in found.items())
    with asked() as duties:
        _do_duties()
    found = too_much(list(duties.values()))
    assert len(duties) >= 8 and not found, found
    # Without an index that a list is read by, it is seen.
    every = [*questions.values(), *duties.values()]
    unseen = [
        index
        for index, words in NEEDED.items()
        if not too_much([one for one in every if words in one[0]], without=index)
    ]
    assert not unseen, f"{unseen} could be missing, and nobody would know."
