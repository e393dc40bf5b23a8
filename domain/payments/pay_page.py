"""Our own pay page: the provider's button, and the secret that it pays by, read as the page is shown."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import select

import config
from domain import pay_links
from domain.errors import NotFound
from domain.payments import reconciling
from domain.people import athletes
from domain.providers import bulkhead, failure_reasons, registry
from domain.providers.contract import Element, HasClientSecret, Presentation, ProviderError
from extensions import db
from models import EventState, Order, Payment, PaymentState


@dataclass(frozen=True)
class Button:
    """What the page needs to carry the provider's button. The secret is the buyer's, and kept nowhere."""

    element: Element
    client_secret: str = field(repr=False)


@dataclass(frozen=True)
class Page:
    """A payment that can be made on our page now. `button` is None where the provider does not answer."""

    payment: Payment
    order: Order
    button: Button | None
    # Why the last try was refused, in the buyer's words; "" where none was.
    refused: str
    # The way to pay the same order on the provider's own page, and what buyers call it; "" for none.
    elsewhere: str
    elsewhere_label: str


def find(reference: str, key: str) -> Payment:
    """The payment whose page this is. NotFound where the key does not open it, or it has no such page."""
    payment = None
    if pay_links.opens(config.get(), reference, key):
        payment = db.session.scalar(select(Payment).filter_by(reference=reference))
    if payment is None or not _is_on_our_page(payment):
        raise NotFound("no_payment", "There is no payment at this address.")
    return payment


def show(payment: Payment) -> Page | None:
    """The page of a payment, after the provider was asked about it. None: there is nothing to pay there."""
    payment_id = payment.id
    reconciling.refresh(payment.order, door="pay_page")
    payment = db.session.get_one(Payment, payment_id, populate_existing=True)
    if (
        payment.state is not PaymentState.OPEN
        or payment.cancel_asked_at is not None
        or _is_off(payment.order)
    ):
        return None
    name, account, provider_id = payment.provider, payment.account, payment.provider_id or ""
    # The call is made outside of any transaction.
    db.session.rollback()
    button = _button(name, account, provider_id)
    payment = db.session.get_one(Payment, payment_id)
    refused = failure_reasons.words(payment.reason_code) if payment.last_decline else ""
    provider = registry.get(name, account)
    pages = (m for m in provider.methods if provider.presents(m) is Presentation.PAGE)
    return Page(payment, payment.order, button, refused, next(pages, ""), provider.label.lower())


def _is_off(order: Order) -> bool:
    """Nobody pays for an event that does not take place, or for a minor whose guardian has not agreed."""
    cancelled = order.event is not None and order.event.state is EventState.CANCELLED
    return cancelled or athletes.unagreed(order) is not None


def _is_on_our_page(payment: Payment) -> bool:
    provider = registry.get(payment.provider, payment.account)
    return provider.presents(payment.method) is Presentation.ELEMENT


def _button(name: str, account: str, provider_id: str) -> Button | None:
    provider = registry.get(name, account)
    if not isinstance(provider, HasClientSecret) or not provider.element.key:
        return None
    try:
        with bulkhead.looking():
            secret = provider.client_secret(provider_id)
    except ProviderError:
        # The page says so, and how else to pay; loading it again asks again.
        return None
    return Button(provider.element, secret) if secret else None
