"""What a Checkout Session may be created with. What the sandbox does not imitate it refuses, in words."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from sandbox import ids
from sandbox.stripe import objects
from sandbox.stripe.currencies import check_currency, check_total
from sandbox.stripe.wire import ApiError, missing
from sandbox.stripe.world import World

Body = dict[str, Any]

MOST_LINES = 100
SHORTEST, LONGEST = 30 * 60, 24 * 60 * 60
_BANK_DEBIT = "sepa_debit"
# Kept as they are sent; the sandbox's page does not change for them.
_COPIED = (
    "adaptive_pricing",
    "billing_address_collection",
    "cancel_url",
    "client_reference_id",
    "customer_creation",
    "customer_email",
    "integration_identifier",
    "locale",
    "origin_context",
    "payment_method_collection",
    "phone_number_collection",
    "submit_type",
    "success_url",
    "ui_mode",
)
_READ = (
    "allowed_payment_method_types",
    "currency",
    "excluded_payment_method_types",
    "expand",
    "expires_at",
    "line_items",
    "metadata",
    "mode",
    "payment_intent_data",
)
_OFF = ("allow_promotion_codes", "automatic_tax", "invoice_creation", "tax_id_collection")
_INTENT_COPIED = ("description", "receipt_email", "statement_descriptor", "statement_descriptor_suffix")


def create(world: World, params: Body, public_url: str) -> Body:
    """Open a session as the request asks. Raises ApiError where Stripe would refuse, or the sandbox must."""
    _refuse_what_is_not_imitated(params)
    if "mode" not in params:
        raise ApiError("Missing required param: mode.", code="parameter_missing", param="mode", kept=False)
    if params["mode"] != "payment":
        raise not_imitated("mode", params["mode"])
    if params.get("ui_mode", "hosted_page") != "hosted_page":
        raise not_imitated("ui_mode", params["ui_mode"])
    _check_addresses(params)
    now = world.now()
    lines, currency = _lines(params, now)
    total = sum(line["amount_total"] for line in lines)
    if total:
        check_total(total, currency, "line_items", "The Checkout Session's total amount due")
    session_id = ids.new("cs_test", 58)
    values = {name: params[name] for name in _COPIED if name in params}
    values |= {
        "id": session_id,
        "amount_subtotal": total,
        "amount_total": total,
        "currency": currency,
        "expires_at": _expires_at(params, now),
        "metadata": check_metadata(params.get("metadata"), "metadata"),
        "url": f"{public_url}/stripe/pay/{session_id}",
        **_payment_methods(params),
    }
    if "phone_number_collection" in values:
        values["phone_number_collection"] = {"enabled": params["phone_number_collection"]["enabled"]}
    return world.open_session(objects.session(values, now), lines, _intent(params))


def _refuse_what_is_not_imitated(params: Body) -> None:
    for name, value in params.items():
        off = name in _OFF and value in (False, {"enabled": False})
        if name not in (*_COPIED, *_READ) and not off:
            raise not_imitated(name)
    for name in params.get("payment_intent_data", {}):
        if name not in (*_INTENT_COPIED, "metadata", "capture_method"):
            raise not_imitated(f"payment_intent_data[{name}]")
    if params.get("payment_intent_data", {}).get("capture_method", "automatic_async") == "manual":
        raise not_imitated("payment_intent_data[capture_method]", "manual")


def not_imitated(name: str, value: str = "") -> ApiError:
    """Stripe knows this; the sandbox does not, and says so rather than pretend."""
    what = f"{name}={value}" if value else name
    return ApiError(
        f"The sandbox does not imitate {what}.", code="sandbox_not_imitated", param=name, kept=False
    )


def _check_addresses(params: Body) -> None:
    if "success_url" not in params:
        raise ApiError(
            "Missing required param: success_url.", code="parameter_missing", param="success_url", kept=False
        )
    for name in ("success_url", "cancel_url"):
        if name in params:
            check_url(params[name], name)
    if "customer_email" in params:
        check_email(params["customer_email"], "customer_email")
    if len(params.get("client_reference_id", "")) > 200:
        raise too_long("client_reference_id", params["client_reference_id"], 200)


def check_url(url: str, param: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or len(url) > 5000:
        raise ApiError("Not a valid URL", code="url_invalid", param=param)


def check_email(address: str, param: str) -> None:
    if not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", address) or len(address) > 800:
        raise ApiError(f"Invalid email address: {address}", code="email_invalid", param=param)


def too_long(name: str, value: str, most: int) -> ApiError:
    return ApiError(
        f"Invalid string: {value[:12]}...; must be at most {most} characters",
        code="parameter_invalid_string_length",
        param=name,
    )


def check_metadata(metadata: Body | str | None, param: str) -> dict[str, str]:
    """Metadata within Stripe's limits: 50 keys of 40 characters, values of 500."""
    if not metadata or isinstance(metadata, str):
        return {}
    kept = {str(key): str(value) for key, value in metadata.items() if value != ""}
    if len(kept) > 50:
        raise ApiError("Metadata can have at most 50 keys.", param=param)
    for key, value in kept.items():
        if len(key) > 40:
            raise ApiError(f"Metadata keys must be at most 40 characters: {key}", param=param)
        if len(value) > 500:
            raise ApiError(
                "Metadata values can have up to 500 characters, but you passed in a value that is "
                f"{len(value)} characters. Invalid value: {value[:12]}...",
                param=f"{param}[{key}]",
            )
    return kept


def _lines(params: Body, now: int) -> tuple[list[Body], str]:
    wanted = params.get("line_items")
    if not wanted:
        raise ApiError(
            "Missing required param: line_items.", code="parameter_missing", param="line_items", kept=False
        )
    if len(wanted) > MOST_LINES:
        raise ApiError(f"You can have at most {MOST_LINES} line items.", param="line_items")
    lines = [_line(line, f"line_items[{index}]", now) for index, line in enumerate(wanted)]
    currencies = {line["currency"] for line in lines}
    if "currency" in params:
        currencies.add(params["currency"].lower())
    if len(currencies) > 1:
        raise ApiError("All line items must have the same currency.", param="line_items")
    return lines, currencies.pop()


def _line(line: Body, path: str, now: int) -> Body:
    unknown = line.keys() - {"price", "price_data", "quantity", "metadata"}
    if unknown:
        raise not_imitated(f"{path}[{min(unknown)}]")
    if "price" in line:
        raise missing("price", line["price"], f"{path}[price]")
    if "price_data" not in line:
        raise ApiError(
            f"{path} needs one of price or price_data.",
            code="parameter_missing",
            param=f"{path}[price_data]",
            kept=False,
        )
    price = line["price_data"]
    unknown = price.keys() - {
        "currency",
        "product_data",
        "unit_amount",
        "unit_amount_decimal",
        "tax_behavior",
    }
    if unknown:
        raise not_imitated(f"{path}[price_data][{min(unknown)}]")
    if "product_data" not in price:
        where = f"{path}[price_data][product_data]"
        raise ApiError(f"Missing required param: {where}.", code="parameter_missing", param=where, kept=False)
    quantity = line.get("quantity")
    if quantity is None or not 1 <= quantity <= 999_999:
        raise ApiError(
            f"{path} needs a quantity of 1 to 999999.",
            code="parameter_missing",
            param=f"{path}[quantity]",
            kept=False,
        )
    currency = check_currency(price["currency"], f"{path}[price_data][currency]")
    unit = _unit_amount(price, f"{path}[price_data]")
    name = price["product_data"]["name"]
    if len(name) > 250:
        raise too_long(f"{path}[price_data][product_data][name]", name, 250)
    return objects.line_item(name, quantity, unit, currency, now)


def _unit_amount(price: Body, path: str) -> int:
    given = price.get("unit_amount", price.get("unit_amount_decimal"))
    if given is None or "unit_amount" in price and "unit_amount_decimal" in price:
        raise ApiError(
            f"{path} needs one of unit_amount or unit_amount_decimal.",
            code="parameter_missing",
            param=f"{path}[unit_amount]",
            kept=False,
        )
    if given != int(given):
        raise not_imitated(f"{path}[unit_amount_decimal]", str(Decimal(given)))
    if given < 0:
        raise ApiError(
            "This value must be greater than or equal to 0.",
            code="parameter_invalid_integer",
            param=f"{path}[unit_amount]",
        )
    return int(given)


def _expires_at(params: Body, now: int) -> int:
    expires_at = int(params.get("expires_at", now + LONGEST))
    if expires_at < now + SHORTEST:
        raise ApiError(
            "The `expires_at` timestamp must be at least 30 minutes from Checkout Session creation.",
            param="expires_at",
        )
    if expires_at > now + LONGEST:
        raise ApiError(
            "The `expires_at` timestamp must be less than 24 hours from Checkout Session creation.",
            param="expires_at",
        )
    return expires_at


def _payment_methods(params: Body) -> Body:
    """What the buyer may pay with: cards and bank debit, narrowed as the request asks."""
    allowed, excluded = (
        params.get("allowed_payment_method_types"),
        params.get("excluded_payment_method_types"),
    )
    kinds = [kind for kind in ("card", _BANK_DEBIT) if allowed is None or kind in allowed]
    kinds = [kind for kind in kinds if kind not in (excluded or [])]
    if not kinds:
        raise ApiError(
            "No valid payment method types for this Checkout Session.", param="allowed_payment_method_types"
        )
    body: Body = {"payment_method_types": kinds, "allowed_payment_method_types": allowed}
    return body | ({"excluded_payment_method_types": excluded} if excluded else {})


def _intent(params: Body) -> Body:
    """What the PaymentIntent is made with; the session's own metadata is not inherited."""
    data = params.get("payment_intent_data", {})
    values = {name: data[name] for name in _INTENT_COPIED if name in data}
    return values | {"metadata": check_metadata(data.get("metadata"), "payment_intent_data[metadata]")}
