"""How the buyer of a payment comes to pay it on our own page: a code, words, or a form that goes elsewhere.

What a provider's own page does is no matter of ours: its address is all there is to show.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import urlsplit

from sqlalchemy import select

import config
from domain import clock, urls
from domain.errors import NotFound
from domain.payments import own_end
from domain.people import athletes
from domain.providers import registry
from domain.providers.contract import Instructs, Presentation, Provider
from domain.tickets import documents
from extensions import db
from models import Payment, PaymentState

# What is paid at the payment's own address: the provider's page, or the one of ours that has its button.
_ELSEWHERE = (Presentation.PAGE, Presentation.ELEMENT)
# Pixels a module: a phone reads it from a screen at arm's length.
_SCALE = 6


@dataclass(frozen=True)
class Paying:
    """What the page of an open payment shows. Times are UTC; None where there is none to be told."""

    how: Presentation
    label: str
    # Where the provider's page or app is; "" where there is no address.
    link: str = ""
    # What the code says; "" without one.
    code: str = ""
    words: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    # Until when somebody can begin to pay, and from when on nobody can have paid any more.
    until: datetime | None = None
    over_at: datetime | None = None
    may_cancel: bool = True

    @property
    def is_over(self) -> bool:
        """Whether nobody can begin to pay it, and it is still being made sure that nobody has."""
        return self.until is not None and self.until <= clock.now()

    @property
    def part(self) -> str:
        """Which part of our page tells it: how it is paid, or that its time is over."""
        return "over" if self.is_over else self.how.value

    @property
    def origin(self) -> str:
        """Where its form goes: scheme and host; "" where it goes nowhere else."""
        parts = urlsplit(self.link)
        return f"{parts.scheme}://{parts.netloc}" if self.how is Presentation.FORM and parts.netloc else ""


def of(payment: Payment | None) -> Paying | None:
    """How to pay a payment now; None where it is not open."""
    if payment is None or payment.state is not PaymentState.OPEN:
        return None
    provider = registry.get(payment.provider, payment.account)
    how = provider.presents(payment.method)
    address = payment.url if payment.url is not None and _is_address(payment.url) else ""
    form = payment.params.get("form", {}) if how is Presentation.FORM else {}
    return Paying(
        how,
        provider.label,
        link=address,
        code=payment.url or "" if how is Presentation.QR else "",
        words=provider.instructions if isinstance(provider, Instructs) else "",
        fields={str(name): str(value) for name, value in form.items()},
        until=(payment.expires_at or payment.closes_at) if not provider.can.close else None,
        over_at=own_end.last_word_at(payment, provider.can) if _ends_by_itself(provider) else None,
        may_cancel=own_end.may_end(payment, provider.can),
    )


def _ends_by_itself(provider: Provider) -> bool:
    """Whether there is a moment after which silence says that nobody has paid."""
    return not provider.can.close and provider.can.tells


def how(payment: Payment | None) -> str:
    """How a payment is, or was, to be paid; "" without one."""
    if payment is None:
        return ""
    return registry.get(payment.provider, payment.account).presents(payment.method).value


def _is_address(url: str) -> bool:
    return urlsplit(url).scheme in ("https", "http")


def page_of(payment: Payment | None) -> str | None:
    """The page on which it is paid, where the buyer is to be sent there; None where the order's says how."""
    paying = of(payment)
    return paying.link or None if paying is not None and paying.how in _ELSEWHERE else None


def payment_url(payment: Payment) -> str | None:
    """Where a program sends its buyer: the provider's page or app, or our page where that says how to pay."""
    paying = of(payment)
    if paying is None:
        return None
    linked = paying.how in (*_ELSEWHERE, Presentation.QR) and paying.link
    return paying.link if linked else urls.order(payment.order)


def qr_image_url(payment: Payment) -> str | None:
    """Where the code's picture is, under an address that cannot be guessed; None where there is no code."""
    paying = of(payment)
    if paying is None or not paying.code:
        return None
    return f"{config.get().public_url}/pay/qr/{payment.public_id}.png"


def picture(payment: Payment | None) -> bytes:
    """The code as a PNG. NotFound where there is none to be paid by."""
    paying = of(payment)
    if payment is None or paying is None or not paying.code or athletes.unagreed(payment.order) is not None:
        raise NotFound("no_code", "There is no code here that can be paid.")
    return documents.qr_png(paying.code, scale=_SCALE)


def by_public_id(public_id: str) -> Payment | None:
    """The payment that programs know by this name."""
    return db.session.scalar(select(Payment).where(Payment.public_id == public_id))


def stage(payment: Payment | None) -> str:
    """What of a payment's own time has passed, in a letter: it changes as the page would."""
    if payment is not None and payment.awaits_buyer:
        return "a"
    paying = of(payment)
    return "" if paying is None or paying.until is None else "e" if paying.is_over else "l"
