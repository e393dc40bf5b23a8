"""The account that the sandbox's key belongs to, and the endpoint it rings."""

from __future__ import annotations

import copy
from typing import Any

from sandbox import settings
from sandbox.stripe.objects import API_VERSION

Body = dict[str, Any]


_NOTHING_DUE: Body = {
    "alternatives": [],
    "current_deadline": None,
    "currently_due": [],
    "disabled_reason": None,
    "errors": [],
    "eventually_due": [],
    "past_due": [],
    "pending_verification": [],
}
_ACCOUNT: Body = {
    "id": settings.ACCOUNT,
    "object": "account",
    "business_profile": {
        "annual_revenue": None,
        "estimated_worker_count": None,
        "mcc": "7922",
        "minority_owned_business_designation": None,
        "name": settings.MERCHANT,
        "support_address": None,
        "support_email": None,
        "support_phone": None,
        "support_url": None,
        "url": None,
    },
    "business_type": "company",
    "capabilities": {"card_payments": "active", "sepa_debit_payments": "active", "transfers": "active"},
    "charges_enabled": True,
    "controller": {"type": "account"},
    "country": "IE",
    "created": 1_700_000_000,
    "default_currency": "eur",
    "details_submitted": True,
    "email": "sandbox@example.org",
    "external_accounts": {
        "object": "list",
        "data": [],
        "has_more": False,
        "url": "/v1/accounts/external_accounts",
    },
    "future_requirements": _NOTHING_DUE,
    "metadata": {},
    "payouts_enabled": True,
    "requirements": _NOTHING_DUE,
    "settings": {
        "bacs_debit_payments": {"display_name": None, "service_user_number": None},
        "branding": {"icon": None, "logo": None, "primary_color": None, "secondary_color": None},
        "card_issuing": {"tos_acceptance": {"date": None, "ip": None}},
        "card_payments": {
            "decline_on": {"avs_failure": False, "cvc_failure": False},
            "statement_descriptor_prefix": None,
            "statement_descriptor_prefix_kana": None,
            "statement_descriptor_prefix_kanji": None,
        },
        "dashboard": {"display_name": settings.MERCHANT, "timezone": "Etc/UTC"},
        "invoices": {"default_account_tax_ids": None, "hosted_payment_method_save": None},
        "payments": {
            "statement_descriptor": "KASSA SANDBOX",
            "statement_descriptor_kana": None,
            "statement_descriptor_kanji": None,
        },
        "payouts": {
            "debit_negative_balances": True,
            "schedule": {"delay_days": 7, "interval": "daily"},
            "statement_descriptor": None,
        },
        "sepa_debit_payments": {},
    },
    "tos_acceptance": {"date": 1_700_000_000, "ip": None, "user_agent": None},
    "type": "standard",
}


def account() -> Body:
    """The account, as GET /v1/account answers it."""
    return copy.deepcopy(_ACCOUNT)


def webhook_endpoint(url: str, events: list[str]) -> Body:
    """The one endpoint that the sandbox rings."""
    return {
        "id": "we_kassasandbox",
        "object": "webhook_endpoint",
        "api_version": API_VERSION,
        "application": None,
        "created": 1_700_000_000,
        "description": "SANDBOX_WEBHOOK_URL",
        "enabled_events": events,
        "livemode": False,
        "metadata": {},
        "status": "enabled",
        "url": url,
    }
