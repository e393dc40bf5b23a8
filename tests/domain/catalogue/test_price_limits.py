"""The smallest and the largest price: known when it is set, and the same that Stripe refuses beyond."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from stripe import InvalidRequestError, StripeClient

import config
from domain import money
from domain.catalogue import events
from domain.errors import DomainError
from domain.orders import placing
from domain.providers import registry, stripe_amounts
from extensions import db
from models import Order, Role, TicketType
from tests.support.people import log_in, make_member, post
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, make_user

# Minor units. Published by Stripe, then about half a US dollar.
LEAST = {
    "EUR": 50,
    "GBP": 30,
    "AED": 200,
    "CZK": 1500,
    "HUF": 17500,
    "JPY": 50,
    "MXN": 1000,
    "SEK": 300,
    "THB": 1000,
    "KZT": 26000,
    "KRW": 700,
    "CLP": 480,
    "KWD": 160,
    "ISK": 6300,
    "IDR": 830000,
}


@pytest.fixture
def client(sandbox: Sandbox) -> StripeClient:
    settings = config.get()
    base = {"api": settings.stripe_api_base}
    return StripeClient(settings.stripe_secret_key, base_addresses=base)  # type: ignore[arg-type]


@pytest.mark.parametrize(("currency", "least"), LEAST.items())
def test_a_price_below_the_smallest_is_refused_as_it_is_set_and_by_stripe(
    app: Flask, client: StripeClient, currency: str, least: int
) -> None:
    step = 100 if currency == "ISK" else 10 if currency == "KWD" else 1
    event = make_event(currency=currency, price_minor=least, providers=["stripe"])
    assert registry.get("stripe").minimum_minor(currency) == least
    assert events.price_span(event) == (least, money.MAX_MINOR)
    kind = event.ticket_types[0]
    events.update_ticket_type(kind, price_minor=least)
    with pytest.raises(DomainError, match="The smallest price is"):
        events.update_ticket_type(kind, price_minor=least - step)

    def create(amount: int) -> None:
        line: Any = {
            "quantity": 1,
            "price_data": {
                "currency": currency.lower(),
                "unit_amount": amount,
                "product_data": {"name": "Ticket"},
            },
        }
        client.v1.checkout.sessions.create(
            {"mode": "payment", "line_items": [line], "success_url": "https://example.org/"}
        )

    create(least)
    with pytest.raises(InvalidRequestError) as refused:
        create(least - step)
    assert refused.value.code == "amount_too_small"


def test_no_currency_is_without_a_smallest_amount() -> None:
    for currency in config.known_currencies():
        assert 1 <= stripe_amounts.least_minor(currency) <= money.MAX_MINOR // 10, currency


def test_an_order_above_what_can_be_paid_is_refused_in_words(app: Flask) -> None:
    event = make_event(price_minor=60_000_000)
    with pytest.raises(DomainError, match="more than can be paid at once: €999,999.99. Choose fewer"):
        placing.place(event, {event.ticket_types[0].id: 2}, name="Ada", email="ada@example.org")
    assert db.session.query(Order).count() == 0
    assert db.session.query(TicketType).one().held == 0


def test_the_forms_say_what_a_price_may_be(app: Flask) -> None:
    make_member("boss@example.org", Role.ADMIN)
    boss = app.test_client()
    log_in(boss, "boss@example.org")
    event = make_event(currency="CZK", providers=["stripe"], organiser_id=make_user("o@example.org").id)
    words = "From CZK\u00a015.00 to CZK\u00a0999,999.99; 0 is free."
    kind = event.ticket_types[0]
    for page in (
        f"/organiser/events/{event.slug}/types/new",
        f"/organiser/events/{event.slug}/types/{kind.id}",
        f"/admin/records/ticket-types/edit/?id={kind.id}",
        f"/admin/records/ticket-types/new/?event_id={event.id}",
    ):
        assert words in boss.get(page).text, page
    fields = {"name": "Adult", "capacity": "10", "per_order_limit": "6", "position": "0"}
    answer = post(boss, f"/organiser/events/{event.slug}/types/new", **fields, price="14,99")
    assert answer.status_code == 400 and "The smallest price is CZK\u00a015.00" in answer.text
