"""All that is kept about a person, as a file that they and a program can read.

What is secret stays out (hashes, tokens, an order's own link is in it, as it is theirs already), and so does
what is of others: an organiser's file has their profile, not their buyers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import joinedload, selectinload

from domain import addresses, audit, clock, urls
from domain.people import accounts
from extensions import db
from models import (
    ApiKey,
    ApiSession,
    Athlete,
    AuditArea,
    CheckIn,
    Connection,
    Consent,
    Deed,
    DeskGrant,
    Device,
    Dispute,
    Login,
    Order,
    OrderLine,
    Organiser,
    OutboxMail,
    Participant,
    Payment,
    Refund,
    SecondFactor,
    Ticket,
    TimelineEntry,
    Transfer,
    User,
    Wallet,
)

# Orders that are read together.
_PART = 200
_FIELDS: dict[type[Any], tuple[str, ...]] = {
    User: ("email", "name", "role", "confirmed_at", "disabled_at", "created_at"),
    Login: ("label", "network", "created_at", "last_seen_at", "expires_at"),
    Device: ("label", "created_at", "last_used_at"),
    SecondFactor: ("kind", "name", "host", "created_at", "last_used_at"),
    ApiSession: ("label", "created_at", "expires_at", "revoked_at"),
    ApiKey: ("name", "prefix", "scopes", "created_at", "expires_at", "last_used_at", "revoked_at"),
    Organiser: ("name", "description", "website", "phone", "contact_email", "state", "created_at"),
    Connection: ("provider", "account", "account_name", "currency", "state", "connected_at", "ended_at"),
    DeskGrant: ("email", "created_at", "revoked_at"),
    Athlete: ("name", "birth_date", "sex", "club", "weight_g", "grade", "created_at", "removed_at"),
    Consent: ("text", "given_at"),
    Participant: ("public_id", "club", "weight_g", "grade", "created_at", "withdrawn_at"),
    Order: ("code", "name", "email", "currency", "total_minor", "state", "client_address", "created_at"),
    OrderLine: ("description", "holder", "quantity", "unit_minor"),
    Payment: ("reference", "provider", "state", "amount_minor", "currency", "created_at", "paid_at"),
    Refund: ("amount_minor", "currency", "state", "reason", "created_at"),
    Dispute: ("amount_minor", "currency", "state", "created_at"),
    Ticket: ("number", "code", "holder", "state", "issued_at", "checked_in_at"),
    CheckIn: ("at", "verdict"),
    TimelineEntry: ("at", "what", "text"),
    OutboxMail: ("kind", "to", "created_at", "sent_at"),
    Wallet: ("currency", "balance_minor", "created_at"),
    Transfer: ("kind", "amount_minor", "currency", "description", "created_at"),
}


def of(email: str) -> str:
    """Everything about an address and the account that it is of, as JSON. Noted in the audit log; commits."""
    address = addresses.normal(email)
    user = accounts.find(address)
    by_address = func.lower(Order.email).in_(addresses.spellings(address))
    mine = by_address if user is None else or_(by_address, Order.user_id == user.id)
    told: dict[str, Any] = {"address": address, "told_at": clock.now()}
    if user is not None:
        told["account"] = _account(user)
    told["orders"] = list(_orders(mine))
    to = func.lower(OutboxMail.to).in_(addresses.spellings(address))
    told["mails"] = _rows(select(OutboxMail).where(to).order_by(OutboxMail.id))
    grants = func.lower(DeskGrant.email).in_(addresses.spellings(address))
    told["desks"] = _rows(select(DeskGrant).where(grants))
    subject = user.id if user is not None else ""
    about = user.id if user is not None else None
    audit.note(AuditArea.PERSON, Deed.MADE, "export", subject, about_id=about)
    db.session.commit()
    return json.dumps(told, default=_plain, ensure_ascii=False, indent=2)


def _account(user: User) -> dict[str, Any]:
    of_user: dict[str, Any] = {
        "logins": Login,
        "devices": Device,
        "second_factors": SecondFactor,
        "programs": ApiSession,
        "keys": ApiKey,
        "organiser": Organiser,
        "connections": Connection,
    }
    told = _row(user)
    for name, model in of_user.items():
        told[name] = _rows(select(model).where(model.user_id == user.id).order_by(model.id))
    told["athletes"] = [
        _row(athlete)
        | {
            "consents": _rows(select(Consent).where(Consent.athlete_id == athlete.id)),
            "entries": _rows(select(Participant).where(Participant.athlete_id == athlete.id)),
        }
        for athlete in db.session.scalars(select(Athlete).where(Athlete.user_id == user.id))
    ]
    wallet = f"wallet:{user.id}"
    moved = select(Transfer).where(or_(Transfer.debit == wallet, Transfer.credit == wallet))
    told["wallets"] = _rows(select(Wallet).where(Wallet.user_id == user.id))
    told["wallet_transfers"] = _rows(moved.order_by(Transfer.id))
    return told


def _orders(mine: ColumnElement[bool]) -> Iterator[dict[str, Any]]:
    payments = selectinload(Order.payments)
    whole = (
        joinedload(Order.event),
        *(selectinload(part) for part in (Order.lines, Order.tickets, Order.timeline)),
        *(payments.selectinload(part) for part in (Payment.refunds, Payment.disputes)),
    )
    query = select(Order).where(mine).order_by(Order.id).options(*whole)
    for order in db.session.scalars(query.execution_options(yield_per=_PART)):
        told = _row(order) | {"page": urls.order(order)}
        told["for"] = order.event.title if order.event is not None else ""
        told["lines"] = [_row(line) for line in order.lines]
        told["payments"] = [
            _row(payment)
            | {
                "refunds": [_row(refund) for refund in payment.refunds],
                "disputes": [_row(dispute) for dispute in payment.disputes],
            }
            for payment in order.payments
        ]
        told["tickets"] = [_row(ticket) for ticket in order.tickets]
        used = [ticket.id for ticket in order.tickets if ticket.checked_in_at is not None]
        told["scans"] = _rows(select(CheckIn).where(CheckIn.ticket_id.in_(used))) if used else []
        told["history"] = [_row(entry) for entry in order.timeline]
        yield told


def _rows(query: Any) -> list[dict[str, Any]]:
    found: Sequence[Any] = db.session.scalars(query).all()
    return [_row(row) for row in found]


def _row(row: Any) -> dict[str, Any]:
    fields: Iterable[str] = _FIELDS[type(row)]
    return {name: getattr(row, name) for name in fields}


def _plain(value: Any) -> str:
    if isinstance(value, datetime | date):
        return value.isoformat()
    return value.value if isinstance(value, StrEnum) else str(value)
