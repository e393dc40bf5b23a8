"""The eight invariants of Kassa's money, asked of the live database every ten minutes and by `flask doctor`.

In a shop of many orders they are asked every ten minutes of what has changed, and of all of it once a night,
a few seconds' worth at a time (`domain/office/whole_checks.py`); elsewhere of all of it each time.

Each is one SQL query that returns the rows for which it does not hold; an empty answer is the good one. A
violation means a bug or somebody's hand in the database, so it is alerted as critical, once for each cause,
and once more where it comes back. Every query is bounded in time and in rows; of one that runs out of time
nothing is known, which is told as that.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import structlog
from psycopg.errors import LockNotAvailable, QueryCanceled
from sqlalchemy import delete, select, text
from sqlalchemy.exc import OperationalError

import config
from domain import clock
from domain.office import changes
from domain.office.changes import ALL, Some
from domain.post import outbox
from extensions import CHECKS, db, limited
from models import CheckRun

SECONDS = 30
SAMPLE = 20
KEEP = timedelta(days=30)
# A mail or a check that is overdue by this much is not merely late.
OVERDUE = timedelta(hours=1)
RECENT = timedelta(days=7)


@dataclass(frozen=True)
class Violation:
    """An invariant that does not hold. `sample` has at most 20 rows, each with a `row` that names it."""

    code: str
    words: str
    sample: list[dict[str, Any]]


@dataclass(frozen=True)
class Invariant:
    """A sentence that must hold, and the query for what breaks it. `row` names a row for good.

    `{orders: o.id}` stands where the query can be asked of some orders only, and so do wallets and ticket
    types. It stands by each table that is joined: PostgreSQL does not carry it over from one to the other,
    and would read all of the other one.
    """

    code: str
    words: str
    query: str


INVARIANTS = (
    Invariant(
        "one_credit",
        "A charge was credited more than once, or an order has more tickets than it bought.",
        """
        SELECT 'order:' || o.id AS row, o.code AS "order", o.currency, o.total_minor,
               sum(t.amount_minor) AS found
        FROM transfers t JOIN orders o ON o.id = t.order_id
        WHERE t.kind IN ('sale', 'top_up') AND {orders: t.order_id} AND {orders: o.id}
        GROUP BY o.id HAVING sum(t.amount_minor) > o.total_minor
        UNION ALL
        SELECT 'tickets:' || o.id, o.code, o.currency, o.total_minor, k.live
        FROM (SELECT order_id, count(*) AS live FROM tickets
              WHERE state <> 'void' AND {orders: order_id} GROUP BY order_id) k
        JOIN orders o ON o.id = k.order_id
        WHERE {orders: o.id} AND k.live > (SELECT coalesce(sum(quantity), 0) FROM order_lines l
                        WHERE l.order_id = o.id AND l.ticket_type_id IS NOT NULL)
        """,
    ),
    Invariant(
        "goods_have_a_cause",
        "An order has its goods without a matching report, a wallet transfer, a zero total or a decision.",
        """
        SELECT 'order:' || o.id AS row, o.code AS "order", o.state, o.currency, o.total_minor
        FROM orders o
        WHERE o.total_minor > 0 AND {orders: o.id}
          AND (o.state IN ('completed', 'partially_refunded')
               OR EXISTS (SELECT 1 FROM tickets t WHERE t.order_id = o.id AND t.state <> 'void'))
          AND NOT EXISTS (
            SELECT 1 FROM payments p
            WHERE p.order_id = o.id AND {orders: p.order_id} AND p.fulfilled AND p.paid_at IS NOT NULL
              AND p.amount_minor = o.total_minor AND p.currency = o.currency
              AND (EXISTS (SELECT 1 FROM timeline e
                           WHERE e.order_id = o.id AND e.payment_id = p.id AND e.what = 'paid')
                   OR EXISTS (SELECT 1 FROM incidents i
                              WHERE i.payment_id = p.id AND i.resolution = 'issue')))
        """,
    ),
    Invariant(
        "paid_money_is_placed",
        "Money was paid, and is neither fulfilled, nor refunded or taken by a bank, nor in the money inbox.",
        """
        SELECT 'payment:' || p.id AS row, o.code AS "order", p.state, p.currency, p.amount_minor
        FROM payments p JOIN orders o ON o.id = p.order_id
        WHERE (p.received_minor IS NOT NULL OR p.state = 'review') AND NOT p.fulfilled
          AND {orders: p.order_id} AND {orders: o.id}
          AND NOT EXISTS (
            SELECT 1 FROM incidents i WHERE i.payment_id = p.id
              AND (i.resolved_at IS NULL OR i.resolution IN ('dismiss', 'wallet')))
          AND coalesce(p.received_minor, p.amount_minor) > (
            SELECT coalesce(sum(r.amount_minor), 0) FROM refunds r
            WHERE r.payment_id = p.id AND r.state IN ('created', 'pending', 'succeeded', 'review'))
            + (SELECT coalesce(sum(d.amount_minor), 0) FROM disputes d
               WHERE d.payment_id = p.id AND d.state <> 'won' AND d.took_money)
        """,
    ),
    Invariant(
        "wallets_match_the_ledger",
        "A wallet's balance is not the sum of its transfers and holds, or is below zero without a cause.",
        """
        WITH moved AS (
          SELECT account, currency, sum(minor) AS minor
          FROM (SELECT credit AS account, currency, amount_minor AS minor
                FROM transfers WHERE credit LIKE 'wallet:%' AND {wallets: credit}
                UNION ALL
                SELECT debit, currency, -amount_minor FROM transfers
                WHERE debit LIKE 'wallet:%' AND {wallets: debit}) sides
          GROUP BY account, currency)
        SELECT coalesce(m.account, 'wallet:' || w.user_id) || ':' || coalesce(m.currency, w.currency) AS row,
               w.balance_minor, m.minor AS ledger_minor, w.held_minor
        FROM (SELECT * FROM wallets WHERE {wallets: 'wallet:' || user_id}) w
        FULL JOIN moved m ON m.account = 'wallet:' || w.user_id AND m.currency = w.currency
        WHERE coalesce(w.balance_minor, 0) <> coalesce(m.minor, 0)
           OR w.held_minor <> (SELECT coalesce(sum(h.amount_minor), 0) FROM wallet_holds h
                               WHERE h.wallet_id = w.id AND h.state = 'held')
           OR (w.balance_minor < 0 AND NOT EXISTS (
                 SELECT 1 FROM transfers t
                 WHERE t.debit = 'wallet:' || w.user_id AND t.currency = w.currency
                   AND t.kind IN ('refund', 'dispute')))
        """,
    ),
    Invariant(
        "stock_adds_up",
        "A ticket type has sold or holds other numbers than its orders and tickets say, or more than it has.",
        """
        SELECT 'ticket_type:' || y.id AS row, y.name, y.capacity, y.sold, coalesce(k.live, 0) AS tickets,
               y.held, coalesce(h.held, 0) AS held_by_orders
        FROM ticket_types y
        LEFT JOIN (SELECT ticket_type_id, count(*) AS live FROM tickets
                   WHERE state <> 'void' AND {types: ticket_type_id}
                   GROUP BY ticket_type_id) k ON k.ticket_type_id = y.id
        LEFT JOIN (SELECT l.ticket_type_id, sum(l.quantity) AS held
                   FROM orders o JOIN order_lines l ON l.order_id = o.id
                   WHERE o.stock_state = 'held' AND {types: l.ticket_type_id}
                   GROUP BY l.ticket_type_id) h ON h.ticket_type_id = y.id
        WHERE {types: y.id}
          AND (y.sold + y.held > y.capacity OR y.sold <> coalesce(k.live, 0) OR y.held <> coalesce(h.held, 0))
        """,
    ),
    Invariant(
        "mail_is_sent_or_failed",
        "A mail is owed that was never written down, or is long overdue without being marked as failed.",
        """
        SELECT 'order:' || o.id AS row, o.code AS "order", o.completed_at AS since
        FROM orders o
        WHERE o.state = 'completed' AND o.completed_at > :recent AND {orders: o.id}
          AND NOT EXISTS (SELECT 1 FROM outbox m WHERE m.key = 'order:' || o.id || ':' || 'fulfilled')
        UNION ALL
        SELECT 'mail:' || m.id, m.kind, m.next_attempt_at
        FROM outbox m
        WHERE m.state = 'due' AND m.next_attempt_at < :overdue
          AND (m.leased_until IS NULL OR m.leased_until < :overdue)
          -- A restored shop mails nobody until it is opened.
          AND (SELECT e.opened_at IS NULL OR e.opened_at > :overdue
               FROM epochs e ORDER BY e.number DESC LIMIT 1) IS NOT TRUE
        """,
    ),
    Invariant(
        "refunds_within_what_came",
        "More was asked to be sent back of a payment than it received.",
        """
        SELECT 'payment:' || p.id AS row, o.code AS "order", p.currency, p.received_minor, r.asked AS minor
        FROM (SELECT payment_id, sum(amount_minor) AS asked FROM refunds
              WHERE NOT made_at_provider AND state NOT IN ('failed', 'cancelled') GROUP BY payment_id) r
        JOIN payments p ON p.id = r.payment_id JOIN orders o ON o.id = p.order_id
        WHERE r.asked > coalesce(p.received_minor, 0) AND {orders: p.order_id} AND {orders: o.id}
          AND NOT EXISTS (SELECT 1 FROM incidents i
                          WHERE i.payment_id = p.id AND i.kind = 'given_back_too_much')
        """,
    ),
    Invariant(
        "nothing_is_forgotten",
        "Something unfinished has no next check: a payment, a refund, an order or a wallet hold.",
        """
        WITH swept AS (SELECT max(started_at) AS at FROM sweep_runs
                       WHERE finished_at IS NOT NULL AND error = '')
        SELECT 'payment:' || p.id AS row, p.reference AS what, p.state, p.next_check_at AS since
        FROM payments p, swept
        WHERE p.state IN ('created', 'open', 'processing')
          AND (p.next_check_at IS NULL OR p.next_check_at < swept.at - :patience)
          AND (p.leased_until IS NULL OR p.leased_until < swept.at)
        UNION ALL
        SELECT 'refund:' || r.id, r.idempotency_key, r.state, r.next_check_at
        FROM refunds r, swept
        WHERE r.state IN ('created', 'pending')
          AND (r.next_check_at < swept.at - :patience OR (r.next_check_at IS NULL AND NOT r.made_at_provider))
          AND (r.leased_until IS NULL OR r.leased_until < swept.at)
          -- A restored shop sends nothing back until it is opened.
          AND (r.state = 'pending' OR (SELECT e.opened_at IS NULL OR e.opened_at > swept.at - :patience
                                       FROM epochs e ORDER BY e.number DESC LIMIT 1) IS NOT TRUE)
        UNION ALL
        SELECT 'order:' || o.id, o.code, o.state, o.created_at
        FROM orders o
        WHERE (o.state IN ('pending', 'pending_verification') OR o.stock_state = 'held')
          AND o.state <> 'requires_manual_review'
          AND NOT EXISTS (SELECT 1 FROM payments p
                          WHERE p.order_id = o.id AND p.state IN ('created', 'open', 'processing', 'review'))
        UNION ALL
        SELECT 'hold:' || h.id, h.key, h.state, h.expires_at
        FROM wallet_holds h, swept
        WHERE h.state = 'held' AND h.expires_at < swept.at - :patience
        """,
    ),
)


@dataclass(frozen=True)
class Answers:
    """What came of asking all: what does not hold, and the codes of what could not be asked in time."""

    violations: list[Violation]
    unchecked: list[str]


def ask_all(of: Some = ALL, *, codes: Container[str] | None = None) -> Answers:
    """Ask every invariant, or some, of all that is there or of a part. Reads, and leaves nothing open."""
    violations, unchecked = [], []
    for invariant in INVARIANTS:
        if codes is not None and invariant.code not in codes:
            continue
        try:
            found = _ask(invariant, of)
        except _OutOfTime:
            unchecked.append(invariant.code)
        else:
            violations += [found] if found is not None else []
    return Answers(violations, unchecked)


def look() -> list[Violation]:
    """What does not hold. Reads only, and leaves no transaction open."""
    return ask_all().violations


def run() -> Answers:
    """Ask every invariant of what has changed, record the run, and stage an alert for what is new. Commits.

    What did not hold when it was last asked is asked of everything. Where it never was, the newest are
    asked about; the others are in the night's check.
    """
    marks = changes.marks()
    if not changes.is_large():
        return record(ask_all(), marks)
    since = changes.last_marks() or changes.newest(marks)
    last = db.session.scalar(select(CheckRun).order_by(CheckRun.id.desc()).limit(1))
    told = [violation["code"] for violation in last.violations] if last is not None else []
    broken = {*told, *(last.unchecked if last is not None else [])}
    others = {invariant.code for invariant in INVARIANTS} - broken
    new, old = ask_all(changes.since(since), codes=others), ask_all(codes=broken)
    return record(Answers(new.violations + old.violations, new.unchecked + old.unchecked), marks)


def record(answers: Answers, marks: Mapping[str, int]) -> Answers:
    """Write down what was found, and stage an alert for what is new in it. Commits.

    What did not hold when it was last asked is known. What held meanwhile and does not any more is new.
    """
    now = clock.now()
    known = {violation.code: _known(violation.code) for violation in answers.violations}
    before = db.session.scalar(select(CheckRun).order_by(CheckRun.id.desc()).limit(1))
    late = [code for code in answers.unchecked if before is None or code not in before.unchecked]
    violations = [asdict(violation) for violation in answers.violations]
    this = CheckRun(at=now, violations=violations, unchecked=answers.unchecked, marks=dict(marks))
    db.session.add(this)
    db.session.flush()
    db.session.execute(delete(CheckRun).where(CheckRun.at < now - KEEP))
    log = structlog.get_logger(__name__)
    for violation in answers.violations:
        log.error("invariant_violated", code=violation.code, sample=violation.sample)
        new = [row for row in violation.sample if row.get("row") not in known[violation.code]]
        if new:
            _alert(violation, new, this.id)
    if answers.unchecked:
        log.warning("invariants_unchecked", codes=answers.unchecked, seconds=SECONDS)
    if late:
        _alert_unchecked(late, this.id)
    db.session.commit()
    return answers


def _known(code: str) -> set[Any]:
    """The rows that broke an invariant when it was last asked."""
    asked = select(CheckRun).where(~CheckRun.unchecked.contains([code])).order_by(CheckRun.id.desc()).limit(1)
    last = db.session.scalar(asked)
    broken = last.violations if last is not None else []
    return {row.get("row") for old in broken if old["code"] == code for row in old["sample"]}


class _OutOfTime(Exception):
    """An invariant could not be asked in the time that it has."""


def _ask(invariant: Invariant, of: Some) -> Violation | None:
    now = clock.now()
    query = of.narrow(invariant.query)
    values = {
        "recent": now - RECENT,
        "overdue": now - OVERDUE,
        "patience": OVERDUE,
        "most": SAMPLE,
        **of.values,
    }
    used = {name: value for name, value in values.items() if f":{name}" in query or name == "most"}
    bounded = f"SELECT * FROM ({query}) AS broken ORDER BY 1 LIMIT :most"
    db.session.rollback()
    try:
        with limited(replace(CHECKS, statement=SECONDS)):
            rows = db.session.execute(text(bounded), used).mappings().all()
    except OperationalError as error:
        # A table that somebody holds is not read in time either.
        if not isinstance(error.orig, QueryCanceled | LockNotAvailable):
            raise
        raise _OutOfTime from error
    finally:
        db.session.rollback()
    if not rows:
        return None
    return Violation(invariant.code, invariant.words, [_plain(dict(row)) for row in rows])


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row that JSON can keep: sums come as Decimal, times as datetime."""
    plain: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, datetime):
            plain[name] = value.isoformat()
        elif value is None or isinstance(value, (str, int)):
            plain[name] = value
        else:
            plain[name] = int(value)
    return plain


def _alert(violation: Violation, rows: list[dict[str, Any]], run_id: int) -> None:
    lines = [", ".join(f"{name} {value}" for name, value in row.items()) for row in rows]
    outbox.alert(
        f"Invariant violated: {violation.code}",
        f"{violation.words}\n\n"
        + "\n".join(f"- {line}" for line in lines)
        + "\n\nDo not mend rows by hand. Open each order and read its timeline, stop selling the event if "
        "goods are being handed over wrongly, and run `flask doctor` again.\n\n"
        f"{config.get().public_url}/admin/",
        key=f"invariant:{violation.code}:{rows[0].get('row')}:{run_id}",
        critical=True,
    )


def _alert_unchecked(codes: list[str], run_id: int) -> None:
    outbox.alert(
        f"Invariants Not Checked: {', '.join(codes)}",
        f"These could not be asked within {SECONDS} seconds, so that nothing is known of them: "
        f"{', '.join(codes)}. Nothing is wrong because of that.\n\n"
        "They are asked again in ten minutes. Where it goes on, see what the database is busy with: `flask "
        "doctor` says how it answers.\n\n"
        f"{config.get().public_url}/admin/",
        key=f"invariants_unchecked:{run_id}",
    )
