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
from domain.office import erasing
from domain.people import accounts
from extensions import db
from models import (
    ApiKey,
    ApiRequest,
    ApiSession,
    Athlete,
    AuditArea,
    AuditEntry,
    BillerAnswer,
    CheckIn,
    Connection,
    Consent,
    Deed,
    DeskGrant,
    Device,
    Dispute,
    DoorPass,
    Erasure,
    Incident,
    LinePlace,
    Login,
    MailBudget,
    MailRequest,
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
    ToldReport,
    Transfer,
    User,
    Wallet,
    WalletHold,
)

# Orders that are read together.
_PART = 200
FIELDS: dict[type[Any], tuple[str, ...]] = {
    User: ("email", "name", "role", "confirmed_at", "disabled_at", "second_factor_at", "created_at"),
    Login: ("label", "network", "created_at", "last_seen_at", "expires_at"),
    Device: ("label", "created_at", "last_used_at"),
    SecondFactor: ("kind", "name", "host", "created_at", "last_used_at"),
    ApiSession: ("public_id", "label", "created_at", "expires_at", "revoked_at"),
    ApiKey: ("public_id", "name", "prefix", "scopes")
    + ("created_at", "expires_at", "last_used_at", "revoked_at"),
    ApiRequest: ("method", "path", "key", "status", "answer", "started_at"),
    Organiser: ("name", "description", "website", "phone", "contact_email")
    + ("state", "state_reason", "created_at"),
    Connection: ("provider", "account", "account_name", "currency", "state", "connected_at", "ended_at"),
    DeskGrant: ("email", "created_at", "revoked_at"),
    DoorPass: ("label", "created_at", "expires_at", "revoked_at"),
    Athlete: ("name", "birth_date", "sex", "club", "weight_g", "grade", "created_at", "removed_at"),
    Consent: ("text", "given_at"),
    Participant: ("public_id", "club", "weight_g", "grade", "created_at", "withdrawn_at"),
    Order: ("code", "name", "email", "currency", "total_minor", "state", "failure_reason")
    + ("client_address", "network", "created_at"),
    OrderLine: ("description", "holder", "quantity", "unit_minor"),
    Payment: ("reference", "provider", "method", "used_method", "last_four", "state", "reason")
    + ("amount_minor", "currency", "params", "url", "return_url", "last_error", "created_at", "paid_at"),
    Refund: ("amount_minor", "currency", "state", "reason", "failure_reason", "created_at"),
    Dispute: ("amount_minor", "currency", "state", "created_at"),
    ToldReport: ("state", "amount_minor", "currency", "reference", "note", "paid_at", "created_at"),
    BillerAnswer: ("account", "answer", "answered_at"),
    Incident: ("kind", "amount_minor", "currency", "evidence", "resolution", "resolution_reason")
    + ("created_at", "resolved_at"),
    Ticket: ("number", "code", "holder", "state", "state_reason", "issued_at", "checked_in_at"),
    CheckIn: ("at", "verdict"),
    TimelineEntry: ("at", "what", "text", "data"),
    OutboxMail: ("kind", "to", "created_at", "sent_at", "last_error"),
    MailRequest: ("kind", "address", "created_at"),
    MailBudget: ("purpose", "who", "since", "count"),
    LinePlace: ("email", "network", "created_at"),
    Wallet: ("currency", "balance_minor", "created_at"),
    WalletHold: ("amount_minor", "state", "description", "created_at"),
    Transfer: ("kind", "amount_minor", "currency", "description", "created_at"),
    AuditEntry: ("at", "area", "deed", "subject", "subject_id", "label", "changes"),
    Erasure: ("state", "address", "asked_at", "due_at", "ended_at", "waits_for"),
}
# What opens something to whoever has it, what is a copy of what is told, and what is whoever's worked here.
NOT_TOLD: dict[str, frozenset[str]] = {
    "users": frozenset(("password_hash", "folded", "worked_as")),
    "logins": frozenset(("key_hash",)),
    "devices": frozenset(("key_hash",)),
    "login_codes": frozenset(("code_hash", "asked_in")),
    "second_factors": frozenset(("sealed", "credential_id", "public_key")),
    "recovery_codes": frozenset(("code_hash",)),
    "one_time_links": frozenset(("token_hash",)),
    "api_refresh_tokens": frozenset(("token_hash",)),
    "api_keys": frozenset(("key_hash",)),
    "api_requests": frozenset(("caller",)),
    "connections": frozenset(("access_token", "refresh_token")),
    "athletes": frozenset(("folded",)),
    "orders": frozenset(("folded",)),
    "order_words": frozenset(("word",)),
    "tickets": frozenset(("checked_in_by",)),
    "check_ins": frozenset(("detail", "by", "undone_by")),
    "line_places": frozenset(("secret",)),
    # Links by which accounts are opened stand in it until a mail has left. The mails are with their reader.
    "outbox": frozenset(("context", "held_with")),
    "door_passes": frozenset(("folded",)),
    "audit_log": frozenset(("actor_name", "words")),
    "erasures": frozenset(("line",)),
}


def of(email: str) -> str:
    """Everything about an address and the account that it is of, as JSON. Noted in the audit log; commits."""
    address = addresses.normal(email)
    user, spelled = accounts.find(address), addresses.spellings(address)
    by_address = func.lower(Order.email).in_(spelled)
    mine = by_address if user is None else or_(by_address, Order.user_id == user.id)
    told: dict[str, Any] = {"address": address, "told_at": clock.now()}
    if user is not None:
        told["account"] = _account(user)
    told["orders"] = list(_orders(mine))
    to: ColumnElement[bool] = func.lower(OutboxMail.to).in_(spelled)
    if user is not None:
        to = or_(to, OutboxMail.user_id == user.id)
    told["mails"] = _rows(select(OutboxMail).where(to).order_by(OutboxMail.id))
    told["mails_asked_for"] = _rows(select(MailRequest).where(func.lower(MailRequest.address).in_(spelled)))
    counted = func.split_part(MailBudget.who, " ", 1).in_(spelled)
    told["mails_counted"] = _rows(select(MailBudget).where(counted))
    told["places_in_lines"] = _rows(select(LinePlace).where(func.lower(LinePlace.email).in_(spelled)))
    told["desks"] = _rows(select(DeskGrant).where(func.lower(DeskGrant.email).in_(spelled)))
    told["erasures"] = _rows(select(Erasure).where(func.lower(Erasure.address).in_(spelled)))
    strange = select(Incident).where(erasing.is_payer(spelled))
    told["payments_without_order"] = _rows(strange.order_by(Incident.id))
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
    keys = db.session.scalars(select(ApiKey.id).where(ApiKey.user_id == user.id)).all()
    callers = [f"user:{user.id}", *(f"key:{key}" for key in keys)]
    told["requests"] = _rows(select(ApiRequest).where(ApiRequest.caller.in_(callers)))
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
    held = select(WalletHold).join(Wallet, Wallet.id == WalletHold.wallet_id)
    told["wallet_holds"] = _rows(held.where(Wallet.user_id == user.id).order_by(WalletHold.id))
    told["door_passes"] = _rows(select(DoorPass).where(DoorPass.created_by_id == user.id))
    told["audit_log"] = _rows(
        select(AuditEntry).where(AuditEntry.about_id == user.id).order_by(AuditEntry.id)
    )
    # Of what they did for others it is theirs that they did it; what it says may be of others.
    done = select(AuditEntry).where(
        AuditEntry.actor_id == user.id, AuditEntry.about_id.is_distinct_from(user.id)
    )
    told["done_for_others"] = [
        {name: getattr(entry, name) for name in ("at", "area", "deed", "subject", "subject_id")}
        for entry in db.session.scalars(done.order_by(AuditEntry.id))
    ]
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
        told["payments"] = [_payment(payment) for payment in order.payments]
        told["incidents"] = _rows(select(Incident).where(Incident.order_id == order.id))
        told["tickets"] = [_row(ticket) for ticket in order.tickets]
        used = [ticket.id for ticket in order.tickets if ticket.checked_in_at is not None]
        told["scans"] = _rows(select(CheckIn).where(CheckIn.ticket_id.in_(used))) if used else []
        told["mails"] = _rows(select(OutboxMail).where(OutboxMail.order_id == order.id))
        told["history"] = [_row(entry) for entry in order.timeline]
        yield told


def _payment(payment: Payment) -> dict[str, Any]:
    told = select(ToldReport).where(ToldReport.payment_id == payment.id)
    answers = select(BillerAnswer).join(ToldReport, ToldReport.id == BillerAnswer.told_id)
    return _row(payment) | {
        "refunds": [_row(refund) for refund in payment.refunds],
        "disputes": [_row(dispute) for dispute in payment.disputes],
        "told": _rows(told),
        "answers": _rows(answers.where(ToldReport.payment_id == payment.id)),
    }


def _rows(query: Any) -> list[dict[str, Any]]:
    found: Sequence[Any] = db.session.scalars(query).all()
    return [_row(row) for row in found]


def _row(row: Any) -> dict[str, Any]:
    fields: Iterable[str] = FIELDS[type(row)]
    return {name: getattr(row, name) for name in fields}


def _plain(value: Any) -> str:
    if isinstance(value, datetime | date):
        return value.isoformat()
    return value.value if isinstance(value, StrEnum) else str(value)
