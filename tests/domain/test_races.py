"""What happens side by side. Each race has its negative control: the same race with the lock taken out."""

from __future__ import annotations

from contextlib import suppress
from threading import Barrier, BrokenBarrierError

import pytest
from flask import Flask
from sqlalchemy import func, select, update

from domain import fulfilment, locks, orders, payments
from domain.fulfilment import SoldOut
from domain.payments import Outcome
from extensions import db
from models import Event, Order, Payment, Ticket, TicketType, Transfer
from tests.support.shop import make_event, place, report_on
from tests.support.threads import at_once

# As many as the test's connection pool allows to be inside a transaction at once.
SIDE_BY_SIDE = 4


def count(table: type[Ticket] | type[Transfer]) -> int:
    return db.session.scalars(select(func.count()).select_from(table)).one()


def open_payment(quantity: int = 1) -> Payment:
    order = place(make_event(), quantity)
    payment = order.payments[0]
    payments.settle(payment.id, report_on(payment, "open"), door="test")
    return db.session.get_one(Payment, payment.id, populate_existing=True)


def test_doors_that_settle_at_the_same_moment_credit_once(app: Flask) -> None:
    payment = open_payment(2)
    report = report_on(payment, "paid")
    payment_id = payment.id
    results = at_once(app, 20, lambda n: payments.settle(payment_id, report, door=f"door{n}"))
    assert [r for r in results if isinstance(r, Exception)] == []
    assert sum(r.changed for r in results if isinstance(r, Outcome)) == 1
    assert (count(Ticket), count(Transfer)) == (2, 1)


def test_without_the_row_lock_they_would_collide(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: unlocked, all see the payment open, and only the constraints stop a second credit."""
    payment = open_payment(2)
    report = report_on(payment, "paid")
    payment_id = payment.id
    together = Barrier(3)

    def unlocked(payment_id: int) -> tuple[Payment, Order]:
        found = db.session.get_one(Payment, payment_id, populate_existing=True)
        order = found.order
        with suppress(BrokenBarrierError):
            together.wait(1)
        return found, order

    monkeypatch.setattr(locks, "payment_and_order", unlocked)
    results = at_once(app, 3, lambda n: payments.settle(payment_id, report, door=f"door{n}"))
    assert [r for r in results if isinstance(r, Exception)] != []
    assert (count(Ticket), count(Transfer)) == (2, 1)


def test_four_hundred_buyers_for_two_hundred_tickets(app: Flask) -> None:
    event_id = make_event(capacity=200).id

    def buy(number: int) -> int:
        sold = 0
        for turn in range(20):
            try:
                place(db.session.get_one(Event, event_id), 1, email=f"b{number}-{turn}@example.org")
                sold += 1
            except SoldOut:
                db.session.rollback()
        return sold

    results = at_once(app, 20, buy)
    assert [r for r in results if isinstance(r, Exception)] == []
    assert sum(r for r in results if isinstance(r, int)) == 200
    row = db.session.execute(select(TicketType.held, TicketType.sold)).one()
    assert (row.held, row.sold) == (200, 0)
    assert db.session.scalars(select(func.count()).select_from(Order)).one() == 200


def test_the_last_ticket_in_a_forced_interleaving(app: Flask) -> None:
    """Everybody has read that one ticket is left before anybody takes it: still only one gets it."""
    event_id = make_event(capacity=1).id
    together = Barrier(SIDE_BY_SIDE)

    def buy(number: int) -> str:
        event = db.session.get_one(Event, event_id)
        assert event.ticket_types[0].available == 1
        together.wait(10)
        return place(event, 1, email=f"b{number}@example.org").code

    results = at_once(app, SIDE_BY_SIDE, buy)
    assert len([r for r in results if isinstance(r, str)]) == 1, results
    assert {type(r) for r in results if not isinstance(r, str)} == {SoldOut}


def test_counting_before_taking_would_oversell(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: stock that is read and then written is refused only by the table's own constraint."""
    event_id = make_event(capacity=1).id
    together = Barrier(SIDE_BY_SIDE)

    def read_then_write(wanted: dict[int, int], *, held: int, sold: int) -> None:
        for type_id, quantity in wanted.items():
            free = db.session.scalars(
                select(TicketType.capacity - TicketType.sold - TicketType.held).where(
                    TicketType.id == type_id
                )
            ).one()
            together.wait(10)
            if free < quantity:
                raise SoldOut("sold_out", "sold out")
            db.session.execute(
                update(TicketType).where(TicketType.id == type_id).values(held=TicketType.held + quantity)
            )

    monkeypatch.setattr(fulfilment, "_claim", read_then_write)
    results = at_once(
        app,
        SIDE_BY_SIDE,
        lambda n: place(db.session.get_one(Event, event_id), 1, email=f"b{n}@example.org").code,
    )
    refused = [r for r in results if isinstance(r, Exception)]
    assert refused and not any(isinstance(r, SoldOut) for r in refused)


def test_a_form_posted_many_times_at_once_is_one_order(app: Flask) -> None:
    event_id = make_event().id
    results = at_once(
        app,
        SIDE_BY_SIDE,
        lambda n: place(db.session.get_one(Event, event_id), 2, form_token="same").code,
    )
    assert len(set(results)) == 1
    assert db.session.scalars(select(TicketType.held)).one() == 2


def test_paid_and_closed_at_the_same_moment(app: Flask) -> None:
    """The buyer pays while the hold is given up: whichever is first, the money has its goods."""
    payment = open_payment()
    payment_id, paid, gone = payment.id, report_on(payment, "paid"), report_on(payment, "expired")
    results = at_once(
        app, SIDE_BY_SIDE, lambda n: payments.settle(payment_id, gone if n % 2 else paid, door=f"door{n}")
    )
    assert [r for r in results if isinstance(r, Exception)] == []
    order = db.session.scalars(select(Order)).one()
    assert (order.state.value, count(Ticket)) == ("completed", 1)
    row = db.session.execute(select(TicketType.held, TicketType.sold)).one()
    assert (row.held, row.sold) == (0, 1)


def test_correcting_the_address_while_it_is_paid(app: Flask) -> None:
    payment = open_payment()
    payment_id, order_id, report = payment.id, payment.order_id, report_on(payment, "paid")

    def work(number: int) -> None:
        if number % 2:
            payments.settle(payment_id, report, door="test")
        else:
            orders.correct_email(db.session.get_one(Order, order_id), f"new{number}@example.org")

    at_once(app, SIDE_BY_SIDE, work)
    order = db.session.get_one(Order, order_id, populate_existing=True)
    assert len(order.tickets) == 1
