"""Events, orders and reports for tests, made through the domain."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from sqlalchemy import select

from domain import clock
from domain.orders import placing
from domain.payments import settling
from domain.providers.contract import Report
from extensions import db
from models import Event, EventState, Order, Payment, Role, TicketType, User


def make_event(
    slug: str = "concert",
    *,
    capacity: int = 10,
    price_minor: int = 2500,
    currency: str = "EUR",
    limit: int = 10,
    **more: Any,
) -> Event:
    """A published event in 30 days with one ticket type, committed."""
    now = clock.now()
    event = Event(
        slug=slug,
        title=slug.title(),
        venue="Town Hall",
        starts_at=now + timedelta(days=30),
        ends_at=now + timedelta(days=30, hours=3),
        timezone="Europe/Jersey",
        currency=currency,
        state=EventState.PUBLISHED,
        created_at=now,
        updated_at=now,
        ticket_types=[
            TicketType(name="Standard", price_minor=price_minor, capacity=capacity, per_order_limit=limit)
        ],
    )
    for name, value in more.items():
        setattr(event, name, value)
    db.session.add(event)
    db.session.commit()
    return event


def make_user(email: str = "member@example.org", role: Role = Role.BUYER) -> User:
    """A person with a confirmed address, committed. There is no password: tests that log in register."""
    user = User(email=email, name="Mel Member", role=role, created_at=clock.now(), confirmed_at=clock.now())
    db.session.add(user)
    db.session.commit()
    return user


def place(event: Event, quantity: int = 1, **more: Any) -> Order:
    """An order of the event's first ticket type."""
    more.setdefault("name", "Ada Buyer")
    more.setdefault("email", "ada@example.org")
    return placing.place(event, {event.ticket_types[0].id: quantity}, **more)


def report_on(payment: Payment, state: str, **changes: Any) -> Report:
    """What an honest provider would say of `payment`, with `changes`."""
    told = Report(
        provider=payment.provider,
        provider_id=payment.provider_id or f"cs_test_{payment.reference.replace('-', '')}",
        state=state,
        amount_minor=payment.amount_minor,
        currency=payment.currency,
        reference=payment.reference,
        account=payment.account,
        livemode=payment.livemode,
        created_at=payment.created_at,
        charge_id=f"ch_{payment.id}" if state == "paid" else None,
        url="https://pay.example.org/session" if state == "open" else None,
    )
    return replace(told, **changes)


def address(order: Order) -> str:
    """The path of the order's page."""
    return f"/o/{order.code}/{order.secret}"


def settled(order: Order, *states: str, **changes: Any) -> Order:
    """The order after its payment went through `states`, as the provider tells it."""
    for state in states:
        payment = db.session.scalars(select(Payment).filter_by(order_id=order.id)).one()
        settling.settle(payment.id, report_on(payment, state, **changes), door="test")
    # What was asked just now is not asked again, so the page shows what the test made.
    payment = db.session.scalars(select(Payment).filter_by(order_id=order.id)).one()
    payment.last_polled_at = clock.now() + timedelta(hours=1)
    db.session.commit()
    return db.session.get_one(Order, order.id, populate_existing=True)
