"""Where a person can be in the database: every column that could hold one, and what becomes of it.

Whatever is text, JSON, bytes or a date, or leads to a user, is placed here; a new column that is not fails a
test. `erasing.py` does what stands here, and a test looks for an erased person in every row there is.
"""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import Column, Date, Enum, LargeBinary, String
from sqlalchemy.dialects.postgresql import JSONB, TSVECTOR
from sqlalchemy.types import JSON


class Fate(StrEnum):
    """What becomes of a column of somebody who asks to be forgotten."""

    GOES = "goes with the erasure"
    BOOKS = "stays as long as the books have to"
    LEADS = "leads to an account that has nobody in it any more"
    STAFF = "is of whoever worked here, and goes with the age of its event or its account"


G, B, L, S = Fate.GOES, Fate.BOOKS, Fate.LEADS, Fate.STAFF
PERSONS: dict[str, dict[str, Fate]] = {
    "users": {"email": G, "name": G, "password_hash": G, "folded": G, "worked_as": B},
    "logins": {"user_id": G, "key_hash": G, "label": G, "network": G},
    "devices": {"user_id": G, "key_hash": G, "label": G},
    "login_codes": {"user_id": G, "code_hash": G, "asked_in": G},
    "second_factors": {
        "user_id": G,
        "name": G,
        "sealed": G,
        "credential_id": G,
        "public_key": G,
        "host": G,
    },
    "recovery_codes": {"user_id": G, "code_hash": G},
    "one_time_links": {"user_id": G, "token_hash": G},
    "api_sessions": {"user_id": G, "label": G, "public_id": G},
    "api_refresh_tokens": {"token_hash": G},
    "api_keys": {"user_id": G, "name": G, "prefix": G, "key_hash": G, "public_id": G, "scopes": G},
    "api_requests": {"caller": G, "answer": G, "path": G, "key": G},
    "organisers": {
        "user_id": L,
        "name": B,
        "description": G,
        "website": G,
        "phone": G,
        "contact_email": G,
        "state_reason": G,
        "decided_by_id": L,
    },
    "desk_grants": {"organiser_id": L, "email": G},
    "connections": {"user_id": L, "account_name": G, "access_token": G, "refresh_token": G},
    "athletes": {"user_id": L, "name": G, "birth_date": G, "club": G, "folded": G},
    "consents": {"user_id": L},
    "epochs": {"opened_by_id": L},
    "participants": {"club": G},
    "orders": {
        "user_id": L,
        "guest_of_id": L,
        "name": B,
        "email": G,
        "client_address": G,
        "network": G,
        "folded": B,
        "failure_reason": B,
    },
    "order_lines": {"holder": G},
    "tickets": {"holder": G, "state_reason": B, "checked_in_by": S},
    "check_ins": {"detail": G, "by": S, "undone_by": S},
    "order_words": {"word": B},
    "mail_budgets": {"who": G, "purpose": G},
    "mail_requests": {"address": G},
    "line_places": {"email": G, "secret": G, "network": G},
    "outbox": {"to": G, "user_id": L, "context": G, "last_error": G, "held_with": G},
    "timeline": {"text": G, "data": G, "actor_id": L},
    "payments": {"last_four": B, "params": G, "url": G, "return_url": G, "last_error": G, "reason": B},
    "incidents": {"evidence": G, "resolution_reason": B, "resolved_by_id": L},
    "refunds": {"reason": B, "failure_reason": B, "actor_id": L},
    "told_reports": {"reference": B, "note": B, "by_id": L, "confirmed_by_id": L, "withdrawn_by_id": L},
    "biller_answers": {"answer": B, "account": B},
    "wallets": {"user_id": L},
    "wallet_holds": {"description": B},
    "transfers": {"debit": L, "credit": L, "description": B, "actor_id": L},
    "events": {"organiser_id": L, "refunding_by_id": L},
    "door_passes": {"created_by_id": L, "label": S, "folded": S},
    "audit_log": {"actor_id": L, "actor_name": S, "about_id": L, "label": G, "changes": G, "words": G},
    "erasures": {"address": G, "line": B, "user_id": L, "by_id": L, "waits_for": G, "kept_orders": L},
}
# Columns of these kinds that hold nobody: what is on sale, codes, currencies, providers' ids and their words.
NOBODY: dict[str, frozenset[str]] = {
    "account_cursors": frozenset(("provider", "account")),
    "agents": frozenset(("slug", "name", "description", "currency", "service", "folded")),
    "api_requests": frozenset(("method", "body_hash", "attempt")),
    "athletes": frozenset(("public_id",)),
    "audit_log": frozenset(("door", "subject", "subject_id")),
    "backups": frozenset(("place", "error", "sha256", "keys")),
    "biller_answers": frozenset(("provider", "txn_id")),
    "categories": frozenset(("public_id",)),
    "check_ins": frozenset(("scan_id",)),
    "check_runs": frozenset(("violations", "unchecked", "marks")),
    "tallies": frozenset(("name", "counts")),
    "whole_checks": frozenset(("violations", "unchecked", "marks")),
    "connections": frozenset(("provider", "account", "currency", "scope", "last_error")),
    "consents": frozenset(("text", "text_hash")),
    "disputes": frozenset(("provider_id", "currency", "provider_status", "reason")),
    "door_passes": frozenset(("token", "pin_hash")),
    "events": frozenset(
        ("slug", "title", "description", "venue", "address", "timezone", "currency", "providers")
        + ("moved_from", "folded")
    ),
    "heartbeats": frozenset(("name", "detail")),
    "incidents": frozenset(("key", "kind", "provider", "charge_id", "currency", "resolution")),
    "mail_requests": frozenset(("kind",)),
    "order_lines": frozenset(("description",)),
    "orders": frozenset(("code", "secret", "form_token", "currency", "failure_code")),
    "outbox": frozenset(("key", "kind", "message_id")),
    "pages": frozenset(("slug", "title", "body")),
    "participants": frozenset(("public_id",)),
    "payments": frozenset(
        ("public_id", "provider", "method", "used_method", "account", "reference", "idempotency_key")
        + ("provider_id", "charge_id", "currency", "reason_code", "last_decline")
    ),
    "pictures": frozenset(("content_type", "sha256", "data")),
    "refunds": frozenset(("currency", "idempotency_key", "provider_id", "void_ticket_ids")),
    "settings_seen": frozenset(("name", "value")),
    "sweep_runs": frozenset(("trigger", "error")),
    "ticket_types": frozenset(("name", "description", "currency", "folded")),
    "tickets": frozenset(("code",)),
    "timeline": frozenset(("door", "what")),
    "told_reports": frozenset(("provider", "currency")),
    "tournaments": frozenset(("rules",)),
    "transfers": frozenset(("key", "currency", "kind", "agent_slug", "provider_reference")),
    "wallet_holds": frozenset(("key", "agent_slug")),
    "wallets": frozenset(("currency",)),
    "webhook_events": frozenset(("provider", "event_id", "type", "object_id", "outcome", "names")),
}


def can_hold_a_person(column: Column[object]) -> bool:
    """Whether a column has to be placed: by its kind, or because it leads to a user."""
    if any(key.column.table.name == "users" for key in column.foreign_keys):
        return True
    if isinstance(column.type, Enum):
        return False
    return isinstance(column.type, String | LargeBinary | Date | JSONB | JSON | TSVECTOR)
