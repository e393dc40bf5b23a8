"""The API's answers, every field of them, from what the books say."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sandbox.sumup.books import FAILED, Body, Checkout, Event, Transaction
from sandbox.sumup.merchants import PLATFORM, Merchant
from sandbox.sumup.money import fee, major

_LOCALES = {"DE": "de-DE", "FR": "fr-FR", "GB": "en-GB", "NO": "nb-NO", "CH": "de-CH", "PL": "pl-PL"}
_LOCALES |= {"SE": "sv-SE", "US": "en-US", "IE": "en-IE"}


def when(moment: float) -> str:
    """A time as SumUp writes it."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")


def checkout(it: Checkout, transactions: Sequence[Transaction], public_url: str) -> Body:
    """A checkout as create, update and delete answer it."""
    body: Body = {
        "id": it.id,
        "status": it.status,
        "checkout_reference": it.reference,
        "amount": major(it.amount_minor, it.currency, noisy=it.noisy),
        "currency": it.currency,
        "merchant_code": it.account,
        "date": when(it.created),
        "transactions": [_of_checkout(t, it) for t in transactions],
    }
    for name in ("description", "return_url", "customer_id"):
        if name in it.more:
            body[name] = it.more[name]
    if it.valid_until is not None:
        body["valid_until"] = when(it.valid_until)
    if it.hosted:
        body["hosted_checkout_url"] = f"{public_url}/sumup/pay/{it.id}"
    return body


def checkout_success(
    it: Checkout, transactions: Sequence[Transaction], public_url: str, merchant: Merchant
) -> Body:
    """A checkout as get and list answer it."""
    body = checkout(it, transactions, public_url) | {"merchant_name": merchant.name}
    if "redirect_url" in it.more:
        body["redirect_url"] = it.more["redirect_url"]
    for paid in transactions:
        if paid.status in ("SUCCESSFUL", "REFUNDED"):
            body |= {"transaction_id": paid.id, "transaction_code": paid.code}
    return body


def _transaction(it: Transaction, noisy: bool) -> Body:
    return {
        "id": it.id,
        "transaction_code": it.code,
        "amount": major(it.amount_minor, it.currency, noisy=noisy),
        "currency": it.currency,
        "timestamp": when(it.created),
        "status": it.status,
        "payment_type": "ECOM",
        "installments_count": 1,
    }


def _of_checkout(it: Transaction, of: Checkout) -> Body:
    body = _transaction(it, of.noisy) | {
        "merchant_code": of.account,
        "vat_amount": 0.0,
        "tip_amount": 0.0,
        "entry_mode": "CUSTOMER_ENTRY",
    }
    return body | ({"auth_code": it.more["auth_code"]} if "auth_code" in it.more else {})


def transaction_full(
    it: Transaction, of: Checkout, events: Sequence[Event], merchant: Merchant, public_url: str
) -> Body:
    """A transaction with all that happened to its money."""
    refunded = _refunded(events)
    body = _of_checkout(it, of) | {
        "payouts_total": 1,
        "payouts_received": 0,
        "payout_plan": "SINGLE_PAYMENT",
        "username": merchant.email,
        "fee_amount": major(fee(it.amount_minor), it.currency),
        "merchant_id": merchant.number,
        "simple_payment_type": "CC_CUSTOMER_ENTERED",
        "verification_method": "none",
        "card": {"last_4_digits": it.more["last4"], "type": it.more["card_type"]},
        "local_time": when(it.created),
        "process_as": "CREDIT",
        "simple_status": _simple(it, events),
        "events": [_event(e, it.currency, of.noisy) for e in events],
        "transaction_events": [_transaction_event(e, it.currency, of.noisy) for e in events],
        "links": [],
    }
    if "description" in of.more:
        body["product_summary"] = of.more["description"]
    left = it.amount_minor - refunded
    if it.status in ("SUCCESSFUL", "REFUNDED") and left:
        body["links"].append(
            {
                "rel": "refund",
                "href": f"{public_url}/sumup/v1.0/merchants/{it.merchant}/payments/{it.id}/refunds",
                "type": "application/json",
                "min_amount": major(1, it.currency),
                "max_amount": major(left, it.currency),
            }
        )
    return body


def history_item(it: Transaction, of: Checkout, events: Sequence[Event], merchant: Merchant) -> Body:
    """A transaction as the history lists it."""
    body = _transaction(it, of.noisy) | {
        "payouts_total": 1,
        "payouts_received": 0,
        "payout_plan": "SINGLE_PAYMENT",
        "transaction_id": it.id,
        "user": merchant.email,
        "type": "PAYMENT",
        "card_type": it.more["card_type"],
        "refunded_amount": major(_refunded(events), it.currency, noisy=of.noisy),
    }
    if "description" in of.more:
        body["product_summary"] = of.more["description"]
    return body


def _refunded(events: Sequence[Event]) -> int:
    return sum(e.amount_minor for e in events if e.type == "REFUND" and e.status != FAILED)


def _simple(it: Transaction, events: Sequence[Event]) -> str:
    if any(e.type == "CHARGE_BACK" and e.status != FAILED for e in events):
        return "CHARGEBACK"
    failed = [e for e in events if e.type == "REFUND" and e.status == FAILED]
    return "REFUND_FAILED" if failed and it.status == "SUCCESSFUL" else it.status


def _event(it: Event, currency: str, noisy: bool) -> Body:
    return {
        "id": it.id,
        "transaction_id": it.transaction_id,
        "type": it.type,
        "status": it.status,
        "amount": major(it.amount_minor, currency, noisy=noisy),
        "timestamp": when(it.created),
        "fee_amount": 0.0,
    }


def _transaction_event(it: Event, currency: str, noisy: bool) -> Body:
    return {
        "id": it.id,
        "event_type": it.type,
        "status": it.status,
        "amount": major(it.amount_minor, currency, noisy=noisy),
        "date": when(it.created)[:10],
        "timestamp": when(it.created),
    }


def merchant(it: Merchant) -> Body:
    """A merchant as GET /v1/merchants/<code> answers it."""
    address = {"street_address": ["1 Sandbox Street"], "post_code": "10115", "country": it.country}
    return {
        "merchant_code": it.code,
        "organization_id": f"org-{it.code.lower()}",
        "business_type": "company",
        "alias": it.name,
        "country": it.country,
        "default_currency": it.currency,
        "default_locale": _LOCALES.get(it.country, "en-GB"),
        "sandbox": True,
        "company": {"name": it.name, "address": address},
        "business_profile": {"name": it.name, "email": it.email, "address": address},
        "classic": {"id": it.number},
        "created_at": when(it.created),
        "updated_at": when(it.created),
    }


def me(it: Merchant) -> Body:
    """The older GET /v0.1/me, of which the OpenAPI file says nothing: as the old reference has it."""
    return {
        "account": {"username": it.email, "type": "normal"},
        "personal_profile": {"first_name": "Sandbox", "last_name": "Merchant", "complete": True},
        "merchant_profile": {
            "merchant_code": it.code,
            "company_name": it.name,
            "website": "",
            "legal_type": {"id": 1, "full_description": "Company", "description": "Company"},
            "merchant_category_code": "7922",
            "country": it.country,
            "locale": _LOCALES.get(it.country, "en-GB"),
            "default_currency": it.currency,
            "extdev": False,
            "complete": True,
            "doing_business_as": {"business_name": it.name, "email": it.email},
        },
        "app_settings": {},
        "permissions": {"create_referral": it.code == PLATFORM},
    }


def memberships(it: Merchant, *, shown: bool) -> Body:
    """The one merchant that a token belongs to, where the filter has not left it out."""
    made: dict[str, Any] = {"created_at": when(it.created), "updated_at": when(it.created)}
    member = {
        "id": f"mem-{it.code.lower()}",
        "resource_id": it.code,
        "type": "merchant",
        "roles": ["owner"],
        "permissions": [],
        "status": "accepted",
        "resource": {"id": it.code, "type": "merchant", "name": it.name, **made},
        **made,
    }
    return {"items": [member] if shown else [], "total_count": 1 if shown else 0}
