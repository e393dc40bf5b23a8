"""Rows in bulk, and plain questions about rows: jobs of `bench.inside`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from flask import Flask
from sqlalchemy import func, insert, select, text, update

from domain import clock
from domain.security import keyring
from extensions import db, queue
from models import (
    Connection,
    MailState,
    Order,
    OrderState,
    OutboxMail,
    Payment,
    PaymentState,
    Role,
    StockState,
    TicketType,
    User,
)
from models import WebhookEvent as Ring

_AT_REST_ORDERS = """
INSERT INTO orders (code, secret, name, email, currency, total_minor, state, stock_state, failure_reason,
                    client_address, created_at)
SELECT 'REST-' || n, md5(n::text), 'Ada Buyer', 'ada@example.org', 'EUR', 2500, 'completed', 'none', '', '',
       CAST(:now AS timestamptz) - n * interval '10 seconds'
FROM generate_series(:first, :last) AS n
"""
_AT_REST_PAYMENTS = """
INSERT INTO payments (order_id, attempt, provider, account, livemode, reference, idempotency_key, params,
                      provider_id, charge_id, fulfilled, amount_minor, currency, state, reason, created_at,
                      provider_created_at, state_since, paid_at, poll_count, error_count, last_error)
SELECT id, 1, 'stripe', 'platform', false, code || '-1', 'pay-' || code, '{}', 'cs_test_' || secret,
       'ch_' || secret, true, total_minor, currency, 'paid', '', created_at, created_at, created_at,
       created_at, 3, 0, ''
FROM orders WHERE code LIKE 'REST-%' AND NOT EXISTS (SELECT 1 FROM payments WHERE order_id = orders.id)
"""
_CHUNK = 100_000
# The statements that a sweep begins with, as it sends them.
_DUE = (
    "SELECT provider FROM payments WHERE next_check_at <= :now "
    "AND (leased_until IS NULL OR leased_until <= :now) GROUP BY provider"
)


def due_payments(app: Flask, sessions: list[dict[str, Any]]) -> None:
    """An open, due payment for each Checkout Session (`id`, `created`, `client_reference_id`, `url`).

    Where it is not Stripe's, it has its `provider` and `account`, too.
    """
    now = clock.now()
    common = {"name": "Ada Buyer", "email": "ada@example.org", "currency": "EUR", "total_minor": 2500}
    common |= {"state": OrderState.PENDING_VERIFICATION, "stock_state": StockState.NONE, "created_at": now}
    rows = [
        common | {"code": session["client_reference_id"].removesuffix("-1"), "secret": "s" * 32}
        for session in sessions
    ]
    ids = db.session.scalars(insert(Order).returning(Order.id, sort_by_parameter_order=True), rows).all()
    db.session.execute(
        insert(Payment),
        [
            {
                "order_id": order_id,
                "attempt": 1,
                "provider": session.get("provider", "stripe"),
                "account": session.get("account", "platform"),
                "livemode": False,
                "reference": session["client_reference_id"],
                "idempotency_key": f"pay-{session['client_reference_id']}",
                "provider_id": session["id"],
                "provider_created_at": datetime.fromtimestamp(session["created"], UTC),
                "url": session["url"],
                "amount_minor": 2500,
                "currency": "EUR",
                "state": PaymentState.OPEN,
                "created_at": now,
                "state_since": now,
                "closes_at": now + timedelta(hours=23),
                "next_check_at": now,
            }
            for order_id, session in zip(ids, sessions, strict=True)
        ],
    )
    db.session.commit()
    _analyze()


def connected(app: Flask, provider: str, merchants: list[dict[str, Any]]) -> None:
    """An organiser for each merchant of the sandbox (`code`, `access_token`, `refresh_token`), connected."""
    now = clock.now()
    for merchant in merchants:
        email = f"{merchant['code'].lower()}@example.org"
        organiser = User(
            email=email, name="Ola Organiser", role=Role.ORGANISER, created_at=now, confirmed_at=now
        )
        db.session.add(
            Connection(
                user=organiser,
                provider=provider,
                account=merchant["code"],
                currency="EUR",
                access_token=keyring.seal(merchant["access_token"]),
                refresh_token=keyring.seal(merchant["refresh_token"]),
                access_expires_at=now + timedelta(hours=1),
                connected_at=now,
            )
        )
    db.session.commit()


def put_to_rest(app: Flask) -> None:
    """Let no payment be due, so that a sweep finds nothing."""
    later = clock.now() + timedelta(days=1)
    db.session.execute(update(Payment).where(Payment.next_check_at.is_not(None)).values(next_check_at=later))
    db.session.commit()


def payments_at_rest(app: Flask, number: int) -> None:
    """So many paid orders of the last months that no sweep has to look at any more."""
    for first in range(1, number + 1, _CHUNK):
        last = min(first + _CHUNK - 1, number)
        db.session.execute(text(_AT_REST_ORDERS), {"now": clock.now(), "first": first, "last": last})
        db.session.execute(text(_AT_REST_PAYMENTS))
        db.session.commit()
    _analyze()


def _analyze() -> None:
    """What autovacuum would do a minute later."""
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE orders, payments"))


def explain(app: Flask) -> str:
    """The plan of the question which payments are due."""
    return "\n".join(db.session.scalars(text(f"EXPLAIN {_DUE}"), {"now": clock.now()}))


def forget_mail(app: Flask) -> None:
    """Let no mail be owed and no job wait, so that the next measurement begins with nothing to do."""
    db.session.execute(
        update(OutboxMail).where(OutboxMail.state == MailState.DUE).values(state=MailState.SENT)
    )
    db.session.commit()
    queue.redis.flushdb()


def mail_due(app: Flask) -> int:
    """How many mails are owed."""
    return db.session.scalars(select(func.count()).where(OutboxMail.state == MailState.DUE)).one()


def rings(app: Flask) -> int:
    """How many webhooks have come."""
    return db.session.scalars(select(func.count()).select_from(Ring)).one()


def rings_done(app: Flask) -> int:
    """How many webhooks have come to an end."""
    query = select(func.count()).select_from(Ring).where(Ring.done_at.is_not(None))
    return db.session.scalars(query).one()


def stock(app: Flask, type_id: int) -> dict[str, int]:
    """A ticket type's stock, and how many tickets there are of it."""
    kind = db.session.get_one(TicketType, type_id, populate_existing=True)
    issued = db.session.scalars(
        text("SELECT count(*) FROM tickets WHERE ticket_type_id = :id").bindparams(id=type_id)
    ).one()
    return {"capacity": kind.capacity, "sold": kind.sold, "held": kind.held, "issued": issued}
