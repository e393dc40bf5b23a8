"""What a PaymentIntent may be created with. What the sandbox does not imitate it refuses, in words."""

from __future__ import annotations

from typing import Any

from sandbox.stripe.checkout import check_metadata, not_imitated, too_long
from sandbox.stripe.currencies import check_currency, check_total
from sandbox.stripe.wire import ApiError

Body = dict[str, Any]

_TAKEN = ("card", "sepa_debit")
_PARAMETERS = {
    "allowed_payment_method_types",
    "amount",
    "automatic_payment_methods",
    "currency",
    "description",
    "expand",
    "metadata",
    "receipt_email",
    "statement_descriptor",
    "statement_descriptor_suffix",
}


def values(params: Body) -> Body:
    """The fields of the intent that the request decides. Raises ApiError."""
    for name in params.keys() - _PARAMETERS:
        raise not_imitated(name)
    currency = check_currency(params["currency"], "currency")
    check_total(params["amount"], currency, "amount")
    if len(params.get("description", "")) > 1000:
        raise too_long("description", params["description"], 1000)
    made = {name: value for name, value in params.items() if name != "expand"}
    made["currency"] = currency
    made["metadata"] = check_metadata(params.get("metadata"), "metadata")
    allowed = params.get("allowed_payment_method_types")
    if allowed is not None and "automatic_payment_methods" in params:
        raise ApiError(
            "You may only specify one of these parameters: automatic_payment_methods, "
            "allowed_payment_method_types.",
            param="allowed_payment_method_types",
        )
    if "automatic_payment_methods" in made:
        made["automatic_payment_methods"] = {
            "allow_redirects": "always",
            **made["automatic_payment_methods"],
        }
    kinds = [kind for kind in _TAKEN if allowed is None or kind in allowed]
    if not kinds:
        raise ApiError(
            "No valid payment method types for this Payment Intent.", param="allowed_payment_method_types"
        )
    made["payment_method_types"] = kinds
    return made
