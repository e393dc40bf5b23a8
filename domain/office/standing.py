"""What somebody still has going here, and so cannot be forgotten yet: in words, with what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlalchemy import ColumnElement, Select, func, select

import config
from domain import clock, money
from domain.ledger import transfers
from domain.office import erasing
from extensions import db
from models import (
    Connection,
    ConnectionState,
    Event,
    Incident,
    Order,
    Organiser,
    Role,
    Ticket,
    TicketState,
    User,
    Wallet,
)


def problems(mine: ColumnElement[bool], user: User | None, spellings: Sequence[str]) -> Iterator[str]:
    """Why whoever these orders and this account are of cannot be forgotten now. Nothing: they can.

    `spellings` are those of their address.
    """
    support = config.get().support_email
    coming = _one(
        select(Event.title)
        .join(Ticket, Ticket.event_id == Event.id)
        .join(Order, Order.id == Ticket.order_id)
        .where(mine, Ticket.state != TicketState.VOID, Event.ends_at > clock.now())
    )
    if coming is not None:
        yield f"There is a ticket for “{coming}”, which is still to come: wait for it, or give it back."
    open_order = _one(select(Order.code).where(mine, erasing.is_open()))
    if open_order is not None:
        yield (
            f"Order {open_order} is not settled: a payment, a refund or a dispute is under way. "
            f"Wait for its end, or write to {support}."
        )
    shown_by = select(Organiser.name).where(func.lower(Organiser.contact_email).in_(spellings))
    if user is not None:
        shown_by = shown_by.where(Organiser.user_id != user.id)
    organiser = _one(shown_by)
    if organiser is not None:
        yield f"“{organiser}” gives this address to its buyers: have another one put there first."
    strange = select(Incident.kind).where(erasing.is_payer(spellings), Incident.resolved_at.is_(None))
    if _one(strange) is not None:
        yield f"Money came from this address that has no order, and a person looks at it: ask {support}."
    if user is not None:
        yield from _of_account(user, support)


def _of_account(user: User, support: str) -> Iterator[str]:
    for wallet in db.session.scalars(select(Wallet).where(Wallet.user_id == user.id)):
        if wallet.balance_minor or wallet.held_minor:
            shown = money.show(wallet.balance_minor, wallet.currency)
            yield f"The wallet has {shown} in it: spend it, or have it paid back by {support}."
    if user.role is Role.ADMIN:
        yield "An admin’s account cannot be forgotten: have another admin take the role away first."
    if user.role is Role.ORGANISER:
        yield f"An organiser’s account is not forgotten while it sells: write to {support} to have that end."
    event = _one(select(Event.title).where(Event.organiser_id == user.id, Event.ends_at > clock.now()))
    if event is not None:
        yield f"The event “{event}” is still to come: cancel or delete it first."
    account = _one(
        select(Connection.account).where(
            Connection.user_id == user.id, Connection.state != ConnectionState.DISCONNECTED
        )
    )
    if account is not None:
        yield f"Account {account} is connected: disconnect it first."
    if transfers.held_for(user.id):
        yield "Money of this organiser’s sales is still held here: it has to be paid out first."


def _one(query: Select[str]) -> str | None:
    found = db.session.scalar(query.limit(1))
    return str(found) if found is not None else None
