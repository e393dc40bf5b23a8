"""What a program is given to show its buyer, and where that buyer goes back to afterwards."""

from __future__ import annotations

from dataclasses import dataclass

from domain import urls
from domain.payments import presenting
from domain.providers import registry
from domain.providers.contract import HasClientSecret, Presentation
from domain.security import return_origins
from extensions import db
from models import Order, Payment


@dataclass(frozen=True)
class Shown:
    """Where, or with what, a payment is made now; all None where it cannot be paid any more."""

    url: str | None = None
    qr_image_url: str | None = None
    client_secret: str | None = None


def shown(payment: Payment) -> Shown:
    """What a program shows its buyer. Asks the provider where it alone keeps what is shown."""
    return Shown(presenting.payment_url(payment), presenting.qr_image_url(payment), client_secret(payment))


def address(payment: Payment) -> str:
    """Where a buyer is sent by an answer that is given again: to pay, or to read what became of it."""
    return presenting.payment_url(payment) or urls.order(payment.order)


def client_secret(payment: Payment) -> str | None:
    """What the provider's script confirms it with, read from the provider now; None where there is none."""
    if presenting.of(payment) is None or payment.provider_id is None:
        return None
    provider = registry.get(payment.provider, payment.account)
    if provider.presents(payment.method) is not Presentation.ELEMENT:
        return None
    provider_id = payment.provider_id
    # The call is made outside of any transaction.
    db.session.rollback()
    return provider.client_secret(provider_id) if isinstance(provider, HasClientSecret) else None


def onward(order: Order, provider_id: str = "") -> str:
    """Where a buyer who comes back from paying is sent on to: to the program that began it; "" is nowhere.

    `provider_id` is what the provider's redirect names; without it, it is about the newest payment.
    """
    named = (p for p in order.payments if provider_id and provider_id in (p.provider_id, p.reference))
    payment = next(named, order.payments[-1] if order.payments else None)
    if payment is None or not return_origins.is_listed(payment.return_url):
        return ""
    return return_origins.with_payment(payment.return_url, payment.public_id)
