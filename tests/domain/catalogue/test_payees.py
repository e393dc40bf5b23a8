"""Whom an order pays, and through what, with a provider that organisers connect accounts at (the toy)."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

import config
from domain import clock
from domain.catalogue import availability, events, front_page, payees
from domain.catalogue.availability import Sale
from domain.errors import DomainError
from domain.providers import registry
from domain.security import keyring
from extensions import db
from models import Connection, ConnectionState, Event, User
from tests.support.queries import recorded
from tests.support.shop import make_event, make_user, place


@pytest.fixture(autouse=True)
def _pebble(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._BUILDERS, "pebble", "tests.support.pebble")


def connected(
    user: User, account: str = "shop-7", state: ConnectionState = ConnectionState.CONNECTED
) -> Connection:
    row = Connection(
        user_id=user.id,
        provider="pebble",
        account=account,
        state=ConnectionState.CONNECTED,
        access_token=keyring.seal("access"),
        refresh_token=keyring.seal("refresh"),
        access_expires_at=clock.now(),
        connected_at=clock.now(),
    )
    db.session.add(row)
    db.session.commit()
    return row


def organisers_event(**more: Any) -> tuple[User, Event]:
    user = make_user("org@example.org")
    return user, make_event(organiser_id=user.id, providers=["pebble"], **more)


def test_the_house_and_who_connects_nothing_are_paid_into_the_providers_own_account() -> None:
    assert payees.receiver("pebble", None) == "shop-1"
    assert payees.receiver("stripe", 7) == registry.get("stripe").account


def test_an_organiser_is_paid_into_their_own_account_and_only_while_it_works() -> None:
    user, _ = organisers_event()
    assert payees.receiver("pebble", user.id) is None
    row = connected(user)
    assert payees.receiver("pebble", user.id) == "shop-7"
    for state in (ConnectionState.BROKEN, ConnectionState.DISCONNECTED):
        row.state = state
        db.session.commit()
        assert payees.receiver("pebble", user.id) is None


def test_an_event_without_an_account_says_so_in_words_and_the_front_page_too() -> None:
    user, event = organisers_event()
    sale = availability.selling(event)
    assert sale.state is Sale.PAYMENTS_OFF
    assert "cannot be paid for here just now" in sale.words
    assert front_page.upcoming()[0].state is Sale.PAYMENTS_OFF
    with pytest.raises(DomainError) as refused:
        place(event, provider="pebble")
    assert refused.value.code == "payments_off"
    connected(user)
    assert availability.selling(event).is_open
    assert [way.name for way in events.ways_to_pay(event)] == ["pebble"]
    assert front_page.upcoming()[0].state is Sale.OPEN


def test_a_free_ticket_needs_no_account() -> None:
    _, event = organisers_event(price_minor=0)
    assert availability.selling(event).is_open


def test_the_order_pays_the_account_that_was_connected_then() -> None:
    user, event = organisers_event()
    row = connected(user)
    (payment,) = place(event, provider="pebble").payments
    assert payment.account == "shop-7"
    row.state = ConnectionState.BROKEN
    db.session.commit()
    with pytest.raises(DomainError) as refused:
        place(event, provider="pebble", form_token="another")
    assert refused.value.code == "payments_off"


def test_what_is_offered_keeps_the_events_order_and_takes_its_currency() -> None:
    user, event = organisers_event()
    connected(user)
    event.providers = ["pebble", "stripe"]
    assert [p.name for p in payees.offered(event)] == ["pebble", "stripe"]
    event.currency = "GBP"
    assert [p.name for p in payees.offered(event)] == ["stripe"]
    assert [p.account for p in payees.offered(event)] == [registry.get("stripe").account]


def test_the_accounts_of_many_events_are_one_query_and_of_house_events_none() -> None:
    users = [make_user(f"org{number}@example.org") for number in range(5)]
    for number, user in enumerate(users):
        make_event(f"own-{number}", organiser_id=user.id, providers=["pebble"])
        connected(user, f"shop-{number + 10}")
    db.session.expire_all()
    with recorded() as some:
        assert len(front_page.upcoming()) == 5
    for number in range(5):
        make_event(f"more-{number}", organiser_id=users[number].id, providers=["pebble"])
    db.session.expire_all()
    with recorded() as more:
        assert len(front_page.upcoming()) == 10
    assert len(more) == len(some)
    house = make_event("house")
    db.session.refresh(house)
    list(house.ticket_types)
    with recorded() as none:
        assert availability.selling(house).is_open
    assert len(none) == 0


def test_nothing_is_payable_where_sales_are_closed(environ: dict[str, str]) -> None:
    event = make_event()
    config.use(config.load({**environ, "MAIL_SERVER": ""}))
    assert not payees.payable(event)
