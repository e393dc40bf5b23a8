"""Where a wallet's button may stand: it is shown on hosts only that are registered at Stripe.

See docs.stripe.com/payments/payment-methods/pmd-registration. Test and live mode have a list each.
"""

from __future__ import annotations

from typing import Any

from stripe import StripeClient

from domain.providers.contract import DomainStatus

PATH = "/v1/payment_method_domains"
# The wallets of which the button on our page is, by Stripe's field and by what people call it.
_WALLETS = {"apple_pay": "Apple Pay", "google_pay": "Google Pay"}


def status(client: StripeClient, domain: str) -> DomainStatus | None:
    """What Stripe says of a host; None where it is not registered."""
    found = _find(client, domain)
    return None if found is None else _read(found)


def register(client: StripeClient, domain: str) -> DomainStatus:
    """Register a host, or have one looked at again that is. Repeating it does no harm."""
    known = _find(client, domain)
    if known is None:
        known = client.v1.payment_method_domains.create({"domain_name": domain}).to_dict()
    elif not known["enabled"]:
        client.v1.payment_method_domains.update(known["id"], {"enabled": True})
    return _read(client.v1.payment_method_domains.validate(known["id"]).to_dict())


def _find(client: StripeClient, domain: str) -> dict[str, Any] | None:
    page = client.v1.payment_method_domains.list({"domain_name": domain, "limit": 1}).to_dict()
    found: list[dict[str, Any]] = page["data"]
    return found[0] if found else None


def _read(found: dict[str, Any]) -> DomainStatus:
    problems = [] if found["enabled"] else ["It is switched off in Stripe's dashboard."]
    for field, name in _WALLETS.items():
        if found[field]["status"] != "active":
            why = (found[field].get("status_details") or {}).get("error_message") or "it is not active."
            problems.append(f"{name}: {why}")
    return DomainStatus(str(found["domain_name"]), bool(found["livemode"]), tuple(problems))
