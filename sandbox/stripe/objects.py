"""The API's objects, with every field that Stripe answers, in the pinned version.

A field whose value is None here is one that Stripe answers as null; one that is absent is absent there
unless it is asked for. Whoever reads a field this module leaves out would fail against Stripe, too.
"""

from __future__ import annotations

import copy
from typing import Any

from stripe._api_version import _ApiVersion

from sandbox import ids, settings
from sandbox.stripe.cards import Card

Body = dict[str, Any]
API_VERSION = _ApiVersion.CURRENT
ADDRESS: Body = dict.fromkeys(("city", "country", "line1", "line2", "postal_code", "state"))
# Seconds until Stripe pays the money out.
_AVAILABLE_AFTER = 7 * 86400
_EVIDENCE = (
    "access_activity_log",
    "billing_address",
    "cancellation_policy",
    "cancellation_policy_disclosure",
    "cancellation_rebuttal",
    "customer_communication",
    "customer_email_address",
    "customer_name",
    "customer_purchase_ip",
    "customer_signature",
    "duplicate_charge_documentation",
    "duplicate_charge_explanation",
    "duplicate_charge_id",
    "product_description",
    "receipt",
    "refund_policy",
    "refund_policy_disclosure",
    "refund_refusal_explanation",
    "service_date",
    "service_documentation",
    "shipping_address",
    "shipping_carrier",
    "shipping_date",
    "shipping_documentation",
    "shipping_tracking_number",
    "uncategorized_file",
    "uncategorized_text",
)


# An open session, but for what a request decides.
_SESSION: Body = {
    "object": "checkout.session",
    "adaptive_pricing": {"enabled": False},
    "after_expiration": None,
    "allow_promotion_codes": None,
    "allowed_payment_method_types": None,
    "amount_subtotal": 0,
    "amount_total": 0,
    "automatic_tax": {"enabled": False, "liability": None, "provider": None, "status": None},
    "billing_address_collection": None,
    "branding_settings": {
        "background_color": "#ffffff",
        "border_style": "rounded",
        "button_color": "#0a5c5c",
        "display_name": settings.MERCHANT,
        "font_family": "default",
        "icon": None,
        "logo": None,
    },
    "cancel_url": None,
    "client_reference_id": None,
    "client_secret": None,
    "collected_information": None,
    "consent": None,
    "consent_collection": None,
    "currency": "",
    "currency_conversion": None,
    "custom_fields": [],
    "custom_text": {
        "after_submit": None,
        "shipping_address": None,
        "submit": None,
        "terms_of_service_acceptance": None,
    },
    "customer": None,
    "customer_account": None,
    "customer_creation": "if_required",
    "customer_details": None,
    "customer_email": None,
    "discounts": [],
    "expires_at": 0,
    "integration_identifier": None,
    "invoice": None,
    "invoice_creation": {
        "enabled": False,
        "invoice_data": {
            "account_tax_ids": None,
            "custom_fields": None,
            "description": None,
            "footer": None,
            "issuer": None,
            "metadata": {},
            "rendering_options": None,
        },
    },
    "livemode": False,
    "locale": None,
    "managed_payments": {"enabled": False},
    "metadata": {},
    "mode": "payment",
    "origin_context": None,
    "payment_intent": None,
    "payment_link": None,
    "payment_method_collection": "if_required",
    "payment_method_configuration_details": {"id": "pmc_kassasandbox", "parent": None},
    "payment_method_options": {"card": {"request_three_d_secure": "automatic"}},
    "payment_method_types": [],
    "payment_status": "unpaid",
    "permissions": None,
    "phone_number_collection": {"enabled": False},
    "recovered_from": None,
    "saved_payment_method_options": None,
    "setup_intent": None,
    "shipping_address_collection": None,
    "shipping_cost": None,
    "shipping_options": [],
    "status": "open",
    "submit_type": None,
    "subscription": None,
    "success_url": None,
    "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
    "ui_mode": "hosted_page",
    "url": None,
    "wallet_options": None,
}


def session(values: Body, now: int) -> Body:
    """An open Checkout Session. `values` are what the request decided, its id among them."""
    return copy.deepcopy(_SESSION) | {"created": now} | values


def line_item(name: str, quantity: int, unit_minor: int, currency: str, now: int) -> Body:
    """One line of a session, with the price that the request's `price_data` made."""
    total = quantity * unit_minor
    return {
        "id": ids.new("li"),
        "object": "item",
        "adjustable_quantity": None,
        "amount_discount": 0,
        "amount_subtotal": total,
        "amount_tax": 0,
        "amount_total": total,
        "currency": currency,
        "description": name,
        "metadata": {},
        "price": {
            "id": ids.new("price"),
            "object": "price",
            "active": False,
            "billing_scheme": "per_unit",
            "created": now,
            "currency": currency,
            "custom_unit_amount": None,
            "livemode": False,
            "lookup_key": None,
            "metadata": {},
            "nickname": None,
            "product": ids.new("prod", 14),
            "recurring": None,
            "tax_behavior": "unspecified",
            "tiers_mode": None,
            "transform_quantity": None,
            "type": "one_time",
            "unit_amount": unit_minor,
            "unit_amount_decimal": str(unit_minor),
        },
        "quantity": quantity,
    }


# A new PaymentIntent, but for what a request decides.
_INTENT: Body = {
    "object": "payment_intent",
    "allowed_payment_method_types": None,
    "amount": 0,
    "amount_capturable": 0,
    "amount_details": {"tip": {}},
    "amount_received": 0,
    "application": None,
    "application_fee_amount": None,
    "automatic_payment_methods": None,
    "canceled_at": None,
    "cancellation_reason": None,
    "capture_method": "automatic_async",
    "confirmation_method": "automatic",
    "currency": "",
    "customer": None,
    "customer_account": None,
    "description": None,
    "excluded_payment_method_types": None,
    "last_payment_error": None,
    "latest_charge": None,
    "livemode": False,
    "managed_payments": None,
    "metadata": {},
    "next_action": None,
    "on_behalf_of": None,
    "payment_method": None,
    "payment_method_configuration_details": None,
    "payment_method_options": {"card": {"request_three_d_secure": "automatic"}},
    "payment_method_types": ["card"],
    "processing": None,
    "receipt_email": None,
    "review": None,
    "setup_future_usage": None,
    "shipping": None,
    "source": None,
    "statement_descriptor": None,
    "statement_descriptor_suffix": None,
    "status": "requires_payment_method",
    "transfer_data": None,
    "transfer_group": None,
}


def payment_intent(values: Body, now: int) -> Body:
    """A PaymentIntent that waits for a payment method."""
    intent_id = ids.new("pi")
    own = {"id": intent_id, "client_secret": f"{intent_id}_secret_{ids.text(24)}", "created": now}
    return copy.deepcopy(_INTENT) | own | values


def billing_details(name: str | None, email: str | None) -> Body:
    return {"address": dict(ADDRESS), "email": email, "name": name, "phone": None, "tax_id": None}


def wallet(kind: str, card: Card) -> Body | None:
    """What Stripe says of the wallet that a card was in; None of a card by itself."""
    return {"type": kind, kind: {}, "dynamic_last4": card.last4} if kind else None


def payment_method(kind: str, card: Card | None, billing: Body, now: int, wallet_kind: str = "") -> Body:
    """A card, alone or in a wallet, or a SEPA debit mandate where `card` is None."""
    body: Body = {
        "id": ids.new("pm"),
        "object": "payment_method",
        "allow_redisplay": "limited",
        "billing_details": billing,
        "created": now,
        "customer": None,
        "customer_account": None,
        "livemode": False,
        "metadata": {},
        "radar_options": {},
        "type": kind,
    }
    if card is None:
        debit = {"bank_code": "37040044", "branch_code": "", "country": "DE", "fingerprint": ids.text(16)}
        return body | {"sepa_debit": {**debit, "generated_from": None, "last4": "3000"}}
    details = {
        "brand": card.brand,
        "checks": _checks(),
        "country": "US",
        "display_brand": card.brand,
        "exp_month": card.exp_month,
        "exp_year": card.exp_year,
        "fingerprint": card.fingerprint,
        "funding": "credit",
        "generated_from": None,
        "last4": card.last4,
        "networks": {"available": [card.brand], "preferred": None},
        "regulated_status": "unregulated",
        "three_d_secure_usage": {"supported": True},
        "wallet": wallet(wallet_kind, card),
    }
    return body | {"card": details}


def _checks() -> Body:
    return {"address_line1_check": None, "address_postal_code_check": None, "cvc_check": "pass"}


def charge(intent: Body, method: Body, card: Card | None, now: int) -> Body:
    """A pending charge of a PaymentIntent's whole amount."""
    charge_id = ids.new("ch")
    return {
        "id": charge_id,
        "object": "charge",
        "amount": intent["amount"],
        "amount_captured": 0,
        "amount_refunded": 0,
        "application": None,
        "application_fee": None,
        "application_fee_amount": None,
        "balance_transaction": None,
        "billing_details": method["billing_details"],
        "calculated_statement_descriptor": "KASSA SANDBOX",
        "captured": True,
        "created": now,
        "currency": intent["currency"],
        "customer": None,
        "description": intent["description"],
        "disputed": False,
        "failure_balance_transaction": None,
        "failure_code": None,
        "failure_message": None,
        "fraud_details": {},
        "livemode": intent["livemode"],
        "metadata": dict(intent["metadata"]),
        "on_behalf_of": intent["on_behalf_of"],
        "outcome": None,
        "paid": False,
        "payment_intent": intent["id"],
        "payment_method": method["id"],
        "payment_method_details": _charged_method(intent, method, card),
        "radar_options": {},
        "receipt_email": intent["receipt_email"],
        "receipt_number": None,
        "receipt_url": None,
        "refunded": False,
        "review": None,
        "shipping": None,
        "source": None,
        "source_transfer": None,
        "statement_descriptor": intent["statement_descriptor"],
        "statement_descriptor_suffix": intent["statement_descriptor_suffix"],
        "status": "pending",
        "transfer_data": None,
        "transfer_group": None,
    }


def _charged_method(intent: Body, method: Body, card: Card | None) -> Body:
    if card is None:
        kept = {
            name: method["sepa_debit"][name]
            for name in ("bank_code", "branch_code", "country", "fingerprint", "last4")
        }
        return {
            "sepa_debit": {**kept, "expected_debit_date": None, "mandate": ids.new("mandate")},
            "type": "sepa_debit",
        }
    details = {
        "amount_authorized": intent["amount"],
        "authorization_code": "000000",
        "brand": card.brand,
        "checks": _checks(),
        "country": "US",
        "exp_month": card.exp_month,
        "exp_year": card.exp_year,
        "extended_authorization": {"status": "disabled"},
        "fingerprint": card.fingerprint,
        "funding": "credit",
        "incremental_authorization": {"status": "unavailable"},
        "installments": None,
        "last4": card.last4,
        "mandate": None,
        "multicapture": {"status": "unavailable"},
        "network": card.brand,
        "network_token": {"used": False},
        "network_transaction_id": ids.text(15),
        "overcapture": {"maximum_amount_capturable": intent["amount"], "status": "unavailable"},
        "regulated_status": "unregulated",
        "three_d_secure": None,
        # A charge is paid with the method as it is.
        "wallet": method["card"]["wallet"],
    }
    return {"card": details, "type": "card"}


def outcome(reason: str | None = None) -> Body:
    """What the card network said: approved, or declined for `reason`."""
    declined = reason is not None
    return {
        "advice_code": "try_again_later" if declined else None,
        "network_advice_code": None,
        "network_decline_code": "05" if declined else None,
        "network_status": "declined_by_network" if declined else "approved_by_network",
        "reason": reason,
        "risk_level": "normal",
        "risk_score": 20,
        "seller_message": "The bank did not return any further details with this decline."
        if declined
        else "Payment complete.",
        "type": "issuer_declined" if declined else "authorized",
    }


def refund(charge_body: Body, amount_minor: int, values: Body, now: int) -> Body:
    """A refund of part or all of a charge, as it is when it succeeds at once."""
    kind = charge_body["payment_method_details"]["type"]
    destination: Body = {"type": kind}
    if kind == "card":
        card = {
            "reference_status": "pending",
            "reference_type": "acquirer_reference_number",
            "type": "refund",
        }
        destination["card"] = card
    body: Body = {
        "id": ids.new("re"),
        "object": "refund",
        "amount": amount_minor,
        "balance_transaction": None,
        "charge": charge_body["id"],
        "created": now,
        "currency": charge_body["currency"],
        "destination_details": destination,
        "metadata": {},
        "payment_intent": charge_body["payment_intent"],
        "payment_method": charge_body["payment_method"],
        "reason": None,
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": "succeeded",
        "transfer_reversal": None,
    }
    return body | values


def dispute(charge_body: Body, amount_minor: int, now: int) -> Body:
    """A cardholder's bank takes the money back and waits for evidence."""
    evidence = dict.fromkeys(_EVIDENCE)
    card = charge_body["payment_method_details"].get("card") or {"brand": "visa", "network": "visa"}
    return {
        "id": ids.new("du"),
        "object": "dispute",
        "amount": amount_minor,
        "balance_transactions": [],
        "charge": charge_body["id"],
        "created": now,
        "currency": charge_body["currency"],
        "enhanced_eligibility_types": [],
        "evidence": {**evidence, "enhanced_evidence": {}},
        "evidence_details": {
            "due_by": now + 7 * 86400,
            "enhanced_eligibility": {},
            "has_evidence": False,
            "past_due": False,
            "submission_count": 0,
            "submission_method": "not_submitted",
        },
        "is_charge_refundable": False,
        "livemode": charge_body["livemode"],
        "metadata": {},
        "payment_intent": charge_body["payment_intent"],
        "payment_method_details": {
            "card": {
                "brand": card["brand"],
                "case_type": "chargeback",
                "network": card["network"],
                "network_reason_code": "83",
            },
            "type": "card",
        },
        "reason": "fraudulent",
        "status": "needs_response",
    }


def balance_transaction(
    source: str, kind: str, amount_minor: int, fee_minor: int, currency: str, now: int
) -> Body:
    """What a charge, refund or dispute did to the account's balance."""
    fee = {"amount": fee_minor, "application": None, "currency": currency, "type": "stripe_fee"}
    return {
        "id": ids.new("txn"),
        "object": "balance_transaction",
        "amount": amount_minor,
        "available_on": now + _AVAILABLE_AFTER,
        "balance_type": "payments",
        "created": now,
        "currency": currency,
        "description": None,
        "exchange_rate": None,
        "fee": fee_minor,
        "fee_details": [fee | {"description": "Stripe processing fees"}] if fee_minor else [],
        "net": amount_minor - fee_minor,
        "reporting_category": kind if kind in ("charge", "refund") else "dispute",
        "source": source,
        "status": "pending",
        "type": kind,
    }


def event(kind: str, body: Body, before: Body | None, key: str | None, now: int) -> Body:
    """An event with a snapshot of its object. `before`: the values that an update replaced."""
    return {
        "id": ids.new("evt"),
        "object": "event",
        "api_version": API_VERSION,
        "created": now,
        "data": {"object": body} | ({"previous_attributes": before} if before is not None else {}),
        "livemode": body.get("livemode", False),
        "pending_webhooks": 0,
        "request": {"id": ids.new("req", 14) if key else None, "idempotency_key": key},
        "type": kind,
    }


def payment_method_domain(domain: str, enabled: bool, reachable: bool, now: int) -> Body:
    """A host on which wallets' buttons may stand; Apple Pay's only where Apple could look at it."""
    inactive = {
        "status": "inactive",
        "status_details": {"error_message": f"The domain {domain} could not be reached over https."},
    }
    others = ("amazon_pay", "google_pay", "klarna", "link", "paypal")
    return {
        "id": ids.new("pmd"),
        "object": "payment_method_domain",
        **{name: {"status": "active"} for name in others},
        "apple_pay": {"status": "active"} if reachable else inactive,
        "created": now,
        "domain_name": domain,
        "enabled": enabled,
        "livemode": False,
    }
