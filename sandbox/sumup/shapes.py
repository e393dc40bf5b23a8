"""The fields, types and words of the operations that the sandbox imitates: a table of our own.

Requests are checked against it as they come in, answers in tests. tests/sandbox/test_sumup_shapes.py holds
the table against the official SDK's models.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from sandbox.sumup.money import CURRENCIES

Shape = dict[str, "Field"]


@dataclass(frozen=True)
class Field:
    """One field. `kind`: string, number, integer, boolean, date-time, date, uri, list or object."""

    kind: str = "string"
    required: bool = False
    nullable: bool = False
    words: tuple[str, ...] = ()
    longest: int = 0
    # The fields of an object, or of each object of a list.
    inside: Shape | None = None


@dataclass(frozen=True)
class Flaw:
    """What is wrong with one field. `code` is SumUp's word for it: MISSING or INVALID."""

    param: str
    code: str
    message: str


_CURRENCY = Field(words=CURRENCIES)
_WHEN = Field("date-time")
_CHECKOUT_STATUS = Field(words=("PENDING", "FAILED", "PAID", "EXPIRED"))
_TRANSACTION_STATUS = Field(words=("SUCCESSFUL", "CANCELLED", "FAILED", "PENDING", "REFUNDED"))
_CARD_TYPE = Field(words=("AMEX", "MASTERCARD", "VISA", "UNKNOWN"))
_EVENT_TYPE = Field(words=("PAYOUT", "CHARGE_BACK", "REFUND", "PAYOUT_DEDUCTION"))
_EVENT_STATUS = Field(
    words=("FAILED", "PAID_OUT", "PENDING", "RECONCILED", "REFUNDED", "SCHEDULED", "SUCCESSFUL")
)

# What is sent

CREATE_CHECKOUT: Shape = {
    "checkout_reference": Field(required=True, longest=64),
    "amount": Field("number", required=True),
    "currency": Field(required=True, words=CURRENCIES),
    "merchant_code": Field(required=True),
    "description": Field(),
    "return_url": Field("uri"),
    "redirect_url": Field("uri"),
    "customer_id": Field(),
    "purpose": Field(words=("CHECKOUT",)),
    "valid_until": Field("date-time", nullable=True),
    "hosted_checkout": Field("object", inside={"enabled": Field("boolean", required=True)}),
}
UPDATE_CHECKOUT: Shape = {
    "checkout_reference": Field(longest=64),
    "amount": Field("number"),
    "currency": _CURRENCY,
    "description": Field(),
    "customer_id": Field(),
    "valid_until": Field("date-time", nullable=True),
}
REFUND: Shape = {"amount": Field("number")}
LIST_CHECKOUTS: Shape = {"checkout_reference": Field()}
GET_TRANSACTION: Shape = {
    "id": Field(),
    "transaction_code": Field(),
    "foreign_transaction_id": Field(),
    "client_transaction_id": Field(),
}
LIST_TRANSACTIONS: Shape = {
    "transaction_code": Field(),
    "order": Field(words=("ascending", "descending")),
    "limit": Field("integer"),
    "users[]": Field("list"),
    "statuses[]": Field("list", words=("SUCCESSFUL", "CANCELLED", "FAILED", "REFUNDED", "CHARGE_BACK")),
    "payment_types[]": Field("list", words=("ECOM", "RECURRING", "POS", "CASH", "MOTO", "BALANCE")),
    "entry_modes[]": Field("list"),
    "types[]": Field("list", words=("PAYMENT", "REFUND", "CHARGE_BACK")),
    "changes_since": _WHEN,
    "newest_time": _WHEN,
    "newest_ref": Field(),
    "oldest_time": _WHEN,
    "oldest_ref": Field(),
}
LIST_MEMBERSHIPS: Shape = {
    "offset": Field("integer"),
    "limit": Field("integer"),
    "kind": Field(),
    "status": Field(words=("accepted", "pending", "expired", "disabled", "unknown")),
    "resource.type": Field(),
    "resource.name": Field(),
    "resource.parent.id": Field(),
    "resource.parent.type": Field(),
    "resource.attributes.sandbox": Field(),
    "roles": Field("list"),
}
NOTHING: Shape = {}

# What is answered

TRANSACTION: Shape = {
    "id": Field(),
    "transaction_code": Field(),
    "amount": Field("number"),
    "currency": _CURRENCY,
    "timestamp": _WHEN,
    "status": _TRANSACTION_STATUS,
    "payment_type": Field(words=("ECOM",)),
    "installments_count": Field("integer"),
}
_TRANSACTION_OF_CHECKOUT: Shape = TRANSACTION | {
    "merchant_code": Field(),
    "vat_amount": Field("number"),
    "tip_amount": Field("number"),
    "entry_mode": Field(words=("CUSTOMER_ENTRY",)),
    "auth_code": Field(),
}
CHECKOUT: Shape = {
    "id": Field(required=True),
    "status": _CHECKOUT_STATUS,
    "checkout_reference": Field(longest=64),
    "amount": Field("number"),
    "currency": _CURRENCY,
    "merchant_code": Field(),
    "description": Field(),
    "return_url": Field("uri"),
    "date": _WHEN,
    "valid_until": Field("date-time", nullable=True),
    "customer_id": Field(),
    "hosted_checkout_url": Field("uri"),
    "transactions": Field("list", inside=_TRANSACTION_OF_CHECKOUT),
}
CHECKOUT_SUCCESS: Shape = CHECKOUT | {
    "transaction_code": Field(),
    "transaction_id": Field(),
    "merchant_name": Field(),
    "redirect_url": Field(),
}
_EVENT: Shape = {
    "id": Field("integer"),
    "transaction_id": Field(),
    "type": _EVENT_TYPE,
    "status": _EVENT_STATUS,
    "amount": Field("number"),
    "timestamp": _WHEN,
    "fee_amount": Field("number"),
}
_TRANSACTION_EVENT: Shape = {
    "id": Field("integer"),
    "event_type": _EVENT_TYPE,
    "status": _EVENT_STATUS,
    "amount": Field("number"),
    "date": Field("date"),
    "timestamp": _WHEN,
}
_LINK: Shape = {
    "rel": Field(),
    "href": Field("uri"),
    "type": Field(),
    "min_amount": Field("number"),
    "max_amount": Field("number"),
}
TRANSACTION_FULL: Shape = _TRANSACTION_OF_CHECKOUT | {
    "product_summary": Field(),
    "payouts_total": Field("integer"),
    "payouts_received": Field("integer"),
    "payout_plan": Field(words=("SINGLE_PAYMENT",)),
    "username": Field(),
    "fee_amount": Field("number"),
    "merchant_id": Field("integer"),
    "simple_payment_type": Field(words=("CC_CUSTOMER_ENTERED",)),
    "verification_method": Field(words=("none", "na")),
    "card": Field("object", inside={"last_4_digits": Field(longest=4), "type": _CARD_TYPE}),
    "local_time": _WHEN,
    "process_as": Field(words=("CREDIT", "DEBIT")),
    "transaction_events": Field("list", inside=_TRANSACTION_EVENT),
    "simple_status": Field(
        words=("SUCCESSFUL", "CANCELLED", "FAILED", "PENDING", "REFUNDED", "REFUND_FAILED", "CHARGEBACK")
    ),
    "links": Field("list", inside=_LINK),
    "events": Field("list", inside=_EVENT),
}
TRANSACTION_HISTORY: Shape = {
    "items": Field(
        "list",
        required=True,
        inside=TRANSACTION
        | {
            "product_summary": Field(),
            "payouts_total": Field("integer"),
            "payouts_received": Field("integer"),
            "payout_plan": Field(words=("SINGLE_PAYMENT",)),
            "transaction_id": Field(),
            "user": Field(),
            "type": Field(words=("PAYMENT",)),
            "card_type": _CARD_TYPE,
            "refunded_amount": Field("number"),
        },
    ),
    "links": Field("list", required=True, inside={"rel": Field(required=True), "href": Field(required=True)}),
}
_ADDRESS: Shape = {
    "street_address": Field("list"),
    "post_code": Field(longest=10),
    "country": Field(required=True, longest=2),
    "city": Field(longest=60),
}
MERCHANT: Shape = {
    "merchant_code": Field(required=True),
    "country": Field(required=True, longest=2),
    "default_currency": Field(required=True, longest=3),
    "default_locale": Field(required=True, longest=5),
    "created_at": Field("date-time", required=True),
    "updated_at": Field("date-time", required=True),
    "organization_id": Field(),
    "business_type": Field(),
    "alias": Field(),
    "sandbox": Field("boolean"),
    "company": Field(
        "object",
        inside={"name": Field(longest=150), "address": Field("object", inside=_ADDRESS), "website": Field()},
    ),
    "business_profile": Field(
        "object",
        inside={"name": Field(longest=150), "email": Field(), "address": Field("object", inside=_ADDRESS)},
    ),
    "classic": Field("object", inside={"id": Field("integer", required=True)}),
}
MEMBERSHIPS: Shape = {
    "items": Field(
        "list",
        required=True,
        inside={
            "id": Field(required=True),
            "resource_id": Field(required=True),
            "type": Field(required=True),
            "roles": Field("list", required=True),
            "permissions": Field("list", required=True),
            "created_at": Field("date-time", required=True),
            "updated_at": Field("date-time", required=True),
            "status": Field(required=True, words=("accepted",)),
            "resource": Field(
                "object",
                required=True,
                inside={
                    "id": Field(required=True),
                    "type": Field(required=True),
                    "name": Field(required=True),
                    "created_at": Field("date-time", required=True),
                    "updated_at": Field("date-time", required=True),
                },
            ),
        },
    ),
    "total_count": Field("integer", required=True),
}

# What is refused

ERROR: Shape = {"error_code": Field(required=True), "message": Field(required=True)}
ERROR_EXTENDED: Shape = ERROR | {"param": Field()}
ERROR_FORBIDDEN: Shape = {
    "error_message": Field(required=True),
    "error_code": Field(required=True),
    "status_code": Field(required=True),
}
PROBLEM: Shape = {
    "type": Field("uri", required=True),
    "title": Field(required=True),
    "status": Field("integer", required=True),
    "detail": Field(),
}


def flaws(body: Any, shape: Shape, path: str = "") -> list[Flaw]:
    """Everything in `body` that `shape` does not allow; empty where it fits."""
    if not isinstance(body, dict):
        return [Flaw(path, "INVALID", f"{path or 'The body'} must be an object")]
    found = [
        Flaw(f"{path}{name}", "INVALID", f"Unknown parameter {path}{name}")
        for name in body
        if name not in shape
    ]
    for name, field in shape.items():
        if name not in body:
            if field.required:
                found.append(Flaw(f"{path}{name}", "MISSING", f"{path}{name} is required"))
        elif body[name] is None and field.nullable:
            continue
        else:
            found += _of(body[name], field, f"{path}{name}")
    return found


def _of(value: Any, field: Field, path: str) -> list[Flaw]:
    if field.kind == "object":
        return flaws(value, field.inside or {}, f"{path}.")
    if field.kind == "list":
        if not isinstance(value, list):
            return [Flaw(path, "INVALID", f"{path} must be a list")]
        if field.inside is not None:
            return [f for i, one in enumerate(value) for f in flaws(one, field.inside, f"{path}[{i}].")]
        return [f for one in value for f in _of(one, Field(words=field.words), path)]
    if not _FITS[field.kind](value):
        return [Flaw(path, "INVALID", f"{path} must be of type {field.kind}")]
    if field.words and value not in field.words:
        return [Flaw(path, "INVALID", f"{path} must be one of {', '.join(field.words)}")]
    if field.longest and len(value) > field.longest:
        return [Flaw(path, "INVALID", f"{path} must have at most {field.longest} characters")]
    return []


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def moment(text: Any) -> datetime | None:
    """An RFC 3339 time with its zone; None where it is none."""
    if not isinstance(text, str) or not re.match(r"\d{4}-\d{2}-\d{2}[Tt ]", text):
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def _date(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", value) is not None


def _uri(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        parts = urlsplit(value)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


_FITS = {
    "string": lambda value: isinstance(value, str),
    "number": _number,
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "date-time": lambda value: moment(value) is not None,
    "date": _date,
    "uri": _uri,
}
