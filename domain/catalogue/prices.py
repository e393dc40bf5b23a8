"""The price that somebody was shown, and the price as it is now: nobody pays another one than they saw.

A page that sells carries what it shows in its form, as a tag. Where a form carries none, because a program
and no browser sends it, the provider's own page shows the price before anything is taken; only what is paid
at once, from a wallet, is asked about first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from domain import money
from domain.errors import DomainError
from domain.providers import registry
from models import Order, TicketType


class PriceChanged(DomainError):
    """The price is not the one that was shown, or none was shown; nothing was taken."""


@dataclass(frozen=True)
class Change:
    """A ticket type of an order whose price is another one now, in minor units."""

    name: str
    then_minor: int
    now_minor: int


def tag(amount_minor: int, currency: str) -> str:
    """A price as a form carries it: `2500 EUR`."""
    return f"{amount_minor} {currency}"


def paid_at_once(provider_name: str | None) -> bool:
    """Whether paying so takes the money without another page that shows the sum."""
    return provider_name is not None and registry.get(provider_name).immediate


def check(
    chosen: Sequence[tuple[TicketType, int]],
    currency: str,
    shown: Mapping[int, str] | None,
    provider_name: str | None,
) -> None:
    """Refuse ticket types that cost something else than their buyer was shown. PriceChanged in words.

    `shown` are the tags by ticket type; None where no form is behind the order.
    """
    if shown is None:
        return
    other = [
        kind for kind, _ in chosen if shown.get(kind.id, "") not in ("", tag(kind.price_minor, currency))
    ]
    if other:
        now = ", ".join(f"{kind.name} {_say(kind.price_minor, currency)}" for kind in other)
        raise PriceChanged(
            "price_changed",
            f"The price has changed since you opened this page. It is now: {now}. Nothing was ordered or "
            "charged. Send the form again if that is all right.",
        )
    total = sum(kind.price_minor * quantity for kind, quantity in chosen)
    if total and paid_at_once(provider_name) and not all(shown.get(kind.id) for kind, _ in chosen):
        raise PriceChanged(
            "confirm_price",
            f"This costs {money.show(total, currency)}, and is paid from your wallet at once. Nothing was "
            "taken yet. Send the form again to confirm.",
        )


def check_one(amount_minor: int, currency: str, shown: str | None, *, at_once: bool) -> None:
    """The same for one price. `shown` is "" where the form carried none. PriceChanged in words."""
    if shown is None or shown == tag(amount_minor, currency):
        return
    price = money.show(amount_minor, currency)
    if shown:
        raise PriceChanged(
            "price_changed",
            f"The price has changed since you opened this page: it is {price} now. Nothing was charged. Send "
            "the form again if that is all right.",
        )
    if at_once and amount_minor:
        raise PriceChanged(
            "confirm_price",
            f"This costs {price}, and is paid from your wallet at once. Nothing was taken yet. Send the form "
            "again to confirm.",
        )


def changes(order: Order) -> tuple[Change, ...]:
    """What the tickets of an order cost now, where that is another price than the order's."""
    return tuple(
        Change(line.ticket_type.name, line.unit_minor, line.ticket_type.price_minor)
        for line in order.lines
        if line.ticket_type is not None and line.ticket_type.price_minor != line.unit_minor
    )


def say(found: Sequence[Change], currency: str) -> str:
    """`Standard cost €25.00 and costs €30.00 now`."""
    return "; ".join(
        f"{one.name} cost {_say(one.then_minor, currency)} and costs {_say(one.now_minor, currency)} now"
        for one in found
    )


def _say(amount_minor: int, currency: str) -> str:
    return money.show(amount_minor, currency) if amount_minor else "nothing"
