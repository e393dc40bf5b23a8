"""Step 1 of Start: a payment's row with the exact parameters of the call that opens it at its provider."""

from __future__ import annotations

from datetime import datetime, timedelta

import config
from domain import clock, ledger, providers
from domain.errors import DomainError
from domain.providers import LineItem, Purchase
from extensions import db
from models import LineKind, Order, Payment, PaymentState


def prepare(order: Order, provider_name: str) -> Payment:
    """Step 1 of Start: the payment's row, with everything the provider call will need. Does not commit.

    Raises DomainError when the provider cannot take this order's money.
    """
    provider = providers.get(provider_name)
    _check_acceptable(order, provider)
    now = clock.now()
    attempt = 1 + max((payment.attempt for payment in order.payments), default=0)
    reference = f"{order.code}-{attempt}"
    closes_at = now + timedelta(minutes=config.get().stripe_session_minutes)
    account = provider.account if not provider.immediate else ledger.wallet_account(order.user_id or 0)
    payment = Payment(
        order=order,
        attempt=attempt,
        provider=provider.name,
        account=account,
        livemode=provider.livemode,
        reference=reference,
        idempotency_key=f"pay-{reference}-{order.secret[:8]}",
        params=provider.params(_purchase(order, provider.name, reference, closes_at, account)),
        amount_minor=order.total_minor,
        currency=order.currency,
        state=PaymentState.CREATED,
        created_at=now,
        state_since=now,
        closes_at=closes_at + timedelta(minutes=config.get().open_grace_minutes),
        # The web process is about to make the call; the sweep finishes it if that process dies.
        next_check_at=now + timedelta(seconds=20),
    )
    db.session.add(payment)
    return payment


def _check_acceptable(order: Order, provider: providers.Provider) -> None:
    offered = order.event.providers if order.event is not None else None
    if offered and provider.name not in offered and not provider.immediate:
        raise DomainError(
            "provider_not_offered", "This event is not sold through that. Choose another way to pay."
        )
    if not provider.supports(order.currency):
        raise DomainError("currency_not_supported", f"{provider.label} cannot take {order.currency}.")
    if order.total_minor < provider.minimum_minor(order.currency):
        raise DomainError("below_minimum", f"The amount is too small to be paid by {provider.label.lower()}.")
    if provider.immediate and (order.user_id is None or any(x.kind is LineKind.TOP_UP for x in order.lines)):
        raise DomainError("wallet_needs_login", "Log in to pay from your wallet.")
    if not provider.immediate and not config.get().sales_open:
        raise DomainError(
            "sales_closed",
            f"Payments are not set up here yet. Ask {config.get().support_email} when they will be.",
        )


def _purchase(
    order: Order, provider_name: str, reference: str, closes_at: datetime, account: str
) -> Purchase:
    base = config.get().public_url
    success = f"{base}/pay/success/{order.code}/{order.secret}"
    cancel = f"{base}/pay/cancel/{order.code}/{order.secret}"
    if any(line.kind is LineKind.TOP_UP for line in order.lines):
        success, cancel = f"{base}/wallet/top-up/success/", f"{base}/wallet/top-up/cancel/"
    return Purchase(
        reference=reference,
        order_code=order.code,
        amount_minor=order.total_minor,
        currency=order.currency,
        lines=tuple(LineItem(x.description, x.quantity, x.unit_minor) for x in order.lines if x.unit_minor),
        email=order.email,
        success_url=success + "?session_id={CHECKOUT_SESSION_ID}",
        cancel_url=cancel,
        doorbell_url=f"{base}/{provider_name}/webhook/",
        closes_at=closes_at,
        account=account,
    )
