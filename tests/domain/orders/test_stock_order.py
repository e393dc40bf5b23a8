"""Orders of several ticket types at the same moment: stock is locked by id, and a deadlock is tried again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from threading import Thread

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from psycopg.errors import LockNotAvailable
from sqlalchemy import func, select

from domain.catalogue import events
from domain.payments import fulfilment
from extensions import db
from models import Event, Order, TicketType
from tests.support.people import post
from tests.support.shop import make_event
from tests.support.waiting import until_somebody_waits


@pytest.fixture
def other(app: Flask, database_url: str) -> Iterator[psycopg.Connection]:
    """Somebody else's transaction, which the test holds in its hand."""
    with psycopg.connect(database_url) as connection:
        # Whoever waits longer than a second finds out about a deadlock: never this one.
        connection.execute("SET deadlock_timeout = '60s'")
        connection.commit()
        yield connection


def two_types(capacity: int = 50) -> tuple[Event, list[int]]:
    event = make_event(capacity=capacity)
    events.add_ticket_type(event, name="Child", price_minor=900, capacity=capacity)
    return event, sorted(kind.id for kind in event.ticket_types)


def buy(client: FlaskClient, slug: str, ids: list[int]) -> int:
    """Order one of each by the event's form; the answer's status. In a thread of its own."""
    form = {f"quantity-{type_id}": "1" for type_id in ids}
    form |= {"name": "Ada", "email": "ada@example.org", "provider": "stripe"}
    with client.application.app_context():
        return post(client, f"/events/{slug}", **form).status_code


def lock(connection: psycopg.Connection, kind_id: int, more: str = "") -> None:
    connection.execute(f"SELECT FROM ticket_types WHERE id = %s FOR NO KEY UPDATE {more}", (kind_id,))


def takes_the_second_first(
    client: FlaskClient, other: psycopg.Connection, *, in_a_busy_shop: bool = False
) -> bool:
    """Whether an order that waits for its first ticket type has taken its second one already.

    In a busy shop there are other types, PostgreSQL knows how many, and a sale of the first one has put its
    row behind the others.
    """
    event, (first, second) = two_types()
    slug = event.slug
    if in_a_busy_shop:
        others = make_event("others")
        for number in range(20):
            events.add_ticket_type(others, name=f"Row {number}", price_minor=900, capacity=5)
        other.execute("UPDATE ticket_types SET held = held WHERE id = %s", (first,))
        other.execute("ANALYZE ticket_types")
        other.commit()
    db.session.rollback()
    answers: list[int] = []
    lock(other, first)
    buyer = Thread(target=lambda: answers.append(buy(client, slug, [first, second])))
    buyer.start()
    until_somebody_waits(other)
    try:
        with other.transaction():
            lock(other, second, "NOWAIT")
        taken = False
    except LockNotAvailable:
        taken = True
    other.rollback()
    buyer.join(30)
    assert answers == [303]
    return taken


def test_an_order_of_two_types_takes_them_by_their_ids(
    client: FlaskClient, other: psycopg.Connection
) -> None:
    assert not takes_the_second_first(client, other)


def test_they_are_taken_so_wherever_they_lie_in_the_table(
    client: FlaskClient, other: psycopg.Connection
) -> None:
    """An UPDATE alone would read the table as it lies, and lock its rows as it meets them."""
    assert not takes_the_second_first(client, other, in_a_busy_shop=True)


def test_without_the_order_they_are_taken_as_they_lie_in_the_table(
    client: FlaskClient, other: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control of the test above. How rows lie is PostgreSQL's affair; here the last comes first."""
    backwards = (
        select(TicketType.id, fulfilment._UNNESTED.c.quantity)
        .join(fulfilment._UNNESTED, fulfilment._UNNESTED.c.id == TicketType.id)
        .order_by(TicketType.id.desc())
        .with_for_update(key_share=True, of=TicketType)
        .cte("wanted")
    )
    monkeypatch.setattr(fulfilment, "_TAKE_SEVERAL", fulfilment._if_free(backwards))
    assert takes_the_second_first(client, other)


def test_a_deadlock_with_somebody_else_is_tried_again(client: FlaskClient, other: psycopg.Connection) -> None:
    """Whoever locks in another order, by hand say: the buyer's transaction is the one that is ended."""
    event, (first, second) = two_types()
    slug = event.slug
    answers: list[int] = []
    lock(other, second)
    buyer = Thread(target=lambda: answers.append(buy(client, slug, [first, second])))
    buyer.start()
    until_somebody_waits(other)
    with suppress(psycopg.OperationalError):
        lock(other, first)
    other.commit()
    buyer.join(30)
    assert answers == [303]
    assert db.session.scalars(select(func.count()).select_from(Order)).one() == 1
    assert db.session.scalars(select(TicketType.held)).all() == [1, 1]
