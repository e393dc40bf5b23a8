"""What must hold still when an old order is to be paid: the sale, the limit and the price of today."""

from __future__ import annotations

from sqlalchemy import select

import config
from domain import clock, money
from domain.catalogue import availability, listing_fees, prices
from domain.errors import DomainError
from domain.orders import waiting_line
from domain.payments import fulfilment
from domain.people import athletes
from domain.providers import registry
from extensions import db
from models import EventState, LineKind, Order, Participant


def check_payer(order: Order, provider_name: str, payer_id: int | None) -> None:
    """Whoever has an order's link may pay for it, but only its own member from that member's wallet."""
    if registry.get(provider_name).immediate and (payer_id is None or payer_id != order.user_id):
        raise DomainError(
            "not_your_wallet",
            "Only the member who made this order can pay for it from a wallet. Choose another way to pay.",
        )


def check_not_cancelled(order: Order) -> None:
    """Nothing is paid for an event that does not take place."""
    if order.event is not None and order.event.state is EventState.CANCELLED:
        words = ("The event was cancelled, so this order", "The tournament was cancelled, so this entry")
        raise DomainError("event_cancelled", f"{words[order.is_entry]} cannot be paid any more.")


def check_still_on_sale(order: Order) -> None:
    """An old order is no way around the end of a sale: not of the event, nor of the tickets it is for."""
    if order.event is None:
        return
    check_not_cancelled(order)
    if order.is_listing_fee and order.event.state is not EventState.DRAFT:
        raise DomainError("published", "This event is published already, so no fee is due for it.")
    check_entry(order)
    state, of_types = availability.states_of(order.event, clock.now())
    of_order = [of_types[type_id] for type_id in fulfilment.stock_of(order)]
    if state is availability.Sale.WITHDRAWN:
        words = ("Tickets for this event are not on sale", "Nobody can be entered in this tournament")
        raise DomainError("withdrawn", f"{words[order.is_entry]} at the moment.")
    over = (availability.Sale.PAST, availability.Sale.CLOSED)
    if state is availability.Sale.PAST or any(one in over for one in of_order):
        words = (
            "The sale of these tickets has ended, so this order",
            "Entries have closed, so this entry",
        )
        raise DomainError("sales_over", f"{words[order.is_entry]} cannot be paid any more.")


def check_entry(order: Order) -> None:
    """Who took an entry back enters anew: the athlete may have another place by now.

    And nobody pays for a minor whose guardian has not agreed to the consent as it is now.
    """
    if not order.is_entry:
        return
    # As the database has it: it may have been taken back since this session read it.
    withdrawn_at = db.session.scalar(select(Participant.withdrawn_at).filter_by(order_id=order.id))
    if withdrawn_at is not None:
        raise DomainError("withdrawn", "This entry was withdrawn. Enter again on the tournament’s page.")
    athlete = athletes.unagreed(order)
    if athlete is not None:
        raise DomainError(
            "consent_needed",
            f"{athlete.name} is under age: before this is paid, a parent or guardian has to agree to the "
            "consent as it is now, among their entries.",
        )


def check_as_new(order: Order) -> None:
    """What was given up is bought by today's rules: when the sale begins, the limit and the price.

    PriceChanged where the price is another one: whoever agrees to it orders anew.
    """
    waiting_line.check_again(order)
    _check_begun(order)
    _check_limits(order)
    found = prices.changes(order)
    if found:
        raise prices.PriceChanged(
            "price_changed",
            f"The price has changed since you ordered: {prices.say(found, order.currency)}. Nothing was "
            "charged.",
        )
    if order.is_listing_fee:
        _check_fee(order)
    if any(line.kind is LineKind.TOP_UP for line in order.lines):
        check_top_up(order.total_minor, order.currency)


def check_sellable(order: Order) -> None:
    """All of it but the price. DomainError says in words what is in the way."""
    check_still_on_sale(order)
    waiting_line.check_again(order)
    _check_begun(order)
    _check_limits(order)


def check_top_up(amount_minor: int, currency: str) -> None:
    """Only the settings' amounts of the settings' currency are sold."""
    settings = config.get()
    allowed = [amount * 10 ** money.decimals(settings.wallet_currency) for amount in settings.topup_amounts]
    if amount_minor not in allowed or currency != settings.wallet_currency:
        words = ", ".join(money.show(amount, settings.wallet_currency) for amount in allowed)
        raise DomainError("amount_not_offered", f"Choose one of {words}.")


def _check_begun(order: Order) -> None:
    """A sale that begins later by now, of the event or of one of the types. A draft sells nothing at all."""
    if order.event is None or order.is_listing_fee:
        return
    found = availability.selling(order.event, clock.now())
    wanted = fulfilment.stock_of(order)
    late = next(
        (t for t in found.types if t.ticket_type.id in wanted and t.state is availability.Sale.NOT_YET), None
    )
    if late is not None:
        words = (
            found.words
            if found.state is availability.Sale.NOT_YET
            else f"{late.ticket_type.name}: {late.words}."
        )
        begins = ("These tickets are not on sale yet.", "Entries are not open yet.")
        raise DomainError("not_yet", f"{begins[order.is_entry]} {words}")
    if found.state is availability.Sale.DRAFT:
        drafted = ("This event is not on sale", "Nobody can be entered in this tournament")
        raise DomainError("draft", f"{drafted[order.is_entry]} at the moment.")


def _check_limits(order: Order) -> None:
    wanted = fulfilment.stock_of(order)
    kinds = {line.ticket_type_id: line.ticket_type for line in order.lines}
    for type_id, quantity in wanted.items():
        kind = kinds[type_id]
        if kind is not None and quantity > kind.per_order_limit:
            raise DomainError(
                "over_limit",
                f"{kind.name}: one order may have at most {kind.per_order_limit} now, and this one is for "
                f"{quantity}. Order fewer on the event's page.",
            )


def _check_fee(order: Order) -> None:
    price = listing_fees.fee()
    if (order.total_minor, order.currency) != (price.amount_minor, price.currency):
        raise prices.PriceChanged(
            "price_changed",
            f"The listing fee is {money.show(price.amount_minor, price.currency)} now. Pay it on the page "
            "that publishes the event.",
        )
