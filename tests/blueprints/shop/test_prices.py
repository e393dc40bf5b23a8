"""Nobody pays another price than they saw: tickets, the wallet, services, fees; and orders that are old."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func, select
from werkzeug.test import TestResponse

import config
from domain import clock
from domain.catalogue import events
from domain.ledger import agents, wallet
from domain.orders import managing, placing
from domain.payments import settling, starting
from extensions import db
from models import Event, Order, OrderState, Payment, Role, TicketType, User, WalletHold
from tests.support.people import log_in, make_member, post
from tests.support.sandbox import Sandbox
from tests.support.shop import address, make_event, make_user, place, report_on
from tests.support.web import newest_order, newest_payment


def fields_of(html: str) -> dict[str, str]:
    """What a browser sends of the page's hidden fields."""
    return dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', html))


def typed(event: Event, **more: str) -> dict[str, str]:
    who = {"name": "Ada Buyer", "email": "ada@example.org"}
    return who | {f"quantity-{event.ticket_types[0].id}": "2"} | more


def count(table: type[Order] | type[WalletHold]) -> int:
    return db.session.scalars(select(func.count()).select_from(table)).one()


def reprice(event: Event, price_minor: int) -> None:
    events.update_ticket_type(event.ticket_types[0], price_minor=price_minor)


@pytest.fixture
def ann(client: FlaskClient) -> User:
    """A member who is logged in, with 90.00 in the wallet."""
    user = make_member()
    log_in(client)
    wallet.add_balance(user, 9000, "Present", key="present", currency="EUR")
    return user


def balance(user: User) -> int:
    return wallet.available_minor(user, "EUR")


# --- The event's form -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("shown", "now"), [(2500, 3000), (2500, 2000), (0, 3000), (3000, 0)])
def test_a_price_that_changed_while_the_page_was_open_takes_nothing(
    client: FlaskClient, shown: int, now: int
) -> None:
    event = make_event(price_minor=shown)
    path = f"/events/{event.slug}"
    form = fields_of(client.get(path).text) | typed(event)
    reprice(event, now)
    answer = client.post(path, data=form)
    assert answer.status_code == 409
    assert "The price has changed" in answer.text
    assert count(Order) == 0
    # The page shows the new price, and its form is for that one.
    again = client.post(path, data=fields_of(answer.text) | typed(event))
    assert again.status_code == 303
    assert newest_order().total_minor == 2 * now


def test_a_price_that_changed_of_what_is_not_ordered_stops_nobody(client: FlaskClient) -> None:
    event = make_event()
    other = events.add_ticket_type(event, name="Child", price_minor=900, capacity=5)
    form = fields_of(client.get(f"/events/{event.slug}").text) | typed(event)
    events.update_ticket_type(other, price_minor=1000)
    assert client.post(f"/events/{event.slug}", data=form).status_code == 303


@pytest.mark.parametrize("number", ["9" * 30, "9" * 5000, "\u0663", "-1", ""])
def test_a_price_of_nothing_that_is_sold_stops_nobody(client: FlaskClient, number: str) -> None:
    event = make_event()
    form = fields_of(client.get(f"/events/{event.slug}").text) | typed(event) | {f"price-{number}": "1 EUR"}
    assert client.post(f"/events/{event.slug}", data=form).status_code == 303


def test_the_same_form_sent_twice_around_a_change_is_one_order(client: FlaskClient) -> None:
    event = make_event()
    form = fields_of(client.get(f"/events/{event.slug}").text) | typed(event)
    assert client.post(f"/events/{event.slug}", data=form).status_code == 303
    reprice(event, 3000)
    assert client.post(f"/events/{event.slug}", data=form).status_code == 303
    assert count(Order) == 1


def bare(client: FlaskClient, event: Event, **more: str) -> TestResponse:
    """What a program sends that knows the form's fixed fields only."""
    token = fields_of(client.get(f"/events/{event.slug}").text)["csrf_token"]
    return client.post(f"/events/{event.slug}", data=typed(event, csrf_token=token, **more))


def test_a_form_without_prices_is_paid_on_the_providers_page(client: FlaskClient) -> None:
    assert bare(client, make_event(), provider="stripe").status_code == 303
    assert newest_payment().amount_minor == 5000


def test_a_form_without_prices_takes_nothing_from_a_wallet_before_it_is_confirmed(
    client: FlaskClient, ann: User
) -> None:
    event = make_event()
    answer = bare(client, event, provider="wallet")
    assert answer.status_code == 409
    assert "This costs €50.00" in answer.text
    assert (count(Order), balance(ann)) == (0, 9000)
    confirmed = client.post(
        f"/events/{event.slug}", data=fields_of(answer.text) | typed(event, provider="wallet")
    )
    assert confirmed.status_code == 303
    assert (newest_order().state, balance(ann)) == (OrderState.COMPLETED, 4000)


def test_a_free_ticket_needs_no_price(client: FlaskClient) -> None:
    assert bare(client, make_event(price_minor=0)).status_code == 303
    assert newest_order().state is OrderState.COMPLETED


@pytest.mark.parametrize("tag", ["", "x", "2500", "2500 USD", "२५०० EUR", "2500 EUR; DROP", "9" * 400])
def test_a_price_that_is_none_is_another_one(client: FlaskClient, ann: User, tag: str) -> None:
    event = make_event()
    kind = event.ticket_types[0].id
    answer = post(
        client, f"/events/{event.slug}", **typed(event, provider="wallet", **{f"price-{kind}": tag})
    )
    assert (answer.status_code, count(Order), balance(ann)) == (409, 0, 9000)


# --- Paying again ---------------------------------------------------------------------------------------


def given_up(event: Event, quantity: int = 2, **more: Any) -> Order:
    """An order that ran out of time."""
    order = place(event, quantity, **more)
    for state in ("open", "expired"):
        payment = db.session.get_one(Payment, order.payments[0].id)
        settling.settle(payment.id, report_on(payment, state), door="test")
    return db.session.get_one(Order, order.id, populate_existing=True)


def pay(client: FlaskClient, order: Order, **more: str) -> TestResponse:
    """Send the closed order's form as a browser does."""
    page = address(order)
    form = fields_of(client.get(page).text) | more
    return client.post(f"{page}/pay", data=form)


def test_paying_again_at_another_price_is_asked_about(client: FlaskClient, sandbox: Sandbox) -> None:
    event = make_event()
    order = given_up(event)
    stale = fields_of(client.get(address(order)).text)
    reprice(event, 3000)
    # The page that was open before: nothing is taken, and the new price is shown.
    refused = client.post(f"{address(order)}/pay", data=stale, follow_redirects=True)
    assert "Standard cost €25.00 and costs €30.00 now" in refused.text
    assert "Order again for €60.00" in refused.text
    assert count(Order) == 1
    answer = pay(client, order)
    new, payment = newest_order(), newest_payment()
    assert (new.id != order.id, new.total_minor, payment.amount_minor) == (True, 6000, 6000)
    assert answer.headers["Location"] == payment.url
    assert (new.name, new.email) == (order.name, order.email)
    # Pressed twice, it is one order; the old one stays what it was.
    assert pay(client, order).headers["Location"] == payment.url
    assert count(Order) == 2
    old = db.session.get_one(Order, order.id, populate_existing=True)
    assert (old.state, old.total_minor, old.lines[0].unit_minor) == (OrderState.EXPIRED, 5000, 2500)
    assert [entry.what for entry in old.timeline].count("ordered_again") == 1


def test_what_became_free_is_ordered_again_for_nothing(client: FlaskClient) -> None:
    event = make_event()
    order = given_up(event)
    reprice(event, 0)
    assert "Order again for nothing" in client.get(address(order)).text
    assert pay(client, order).headers["Location"] == address(newest_order())
    assert (newest_order().state, newest_order().total_minor) == (OrderState.COMPLETED, 0)


def test_a_wallet_pays_no_old_order_without_its_price_on_the_form(client: FlaskClient, ann: User) -> None:
    """It takes the money at once, so that it is confirmed on a page that shows the sum."""
    order = given_up(make_event(), user=ann, email=ann.email)
    post(client, f"{address(order)}/pay", page=address(order), provider="wallet", price="")
    assert balance(ann) == 9000
    pay(client, order, provider="wallet")
    assert balance(ann) == 4000


def test_a_wallet_pays_an_old_order_at_todays_price_only(client: FlaskClient, ann: User) -> None:
    event = make_event()
    order = given_up(event, user=ann, email=ann.email)
    reprice(event, 3000)
    stale = {"provider": "wallet", "price": "5000 EUR"}
    post(client, f"{address(order)}/pay", page=address(order), **stale)
    post(client, f"{address(order)}/pay", page=address(order), **(stale | {"price": ""}))
    assert (balance(ann), count(Order)) == (9000, 1)
    pay(client, order, provider="wallet")
    assert (balance(ann), newest_order().state) == (3000, OrderState.COMPLETED)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"per_order_limit": 1}, "at most 1 now"),
        ({"sales_open_at": timedelta(days=1)}, "not on sale yet"),
        ({"sales_close_at": -timedelta(minutes=1)}, "has ended"),
    ],
)
@pytest.mark.parametrize("price_minor", [2500, 3000])
def test_paying_again_obeys_the_limit_and_the_times_of_sale(
    client: FlaskClient, change: dict[str, Any], words: str, price_minor: int
) -> None:
    event = make_event()
    order = given_up(event)
    stale = fields_of(client.get(address(order)).text)
    values = {k: clock.now() + v if isinstance(v, timedelta) else v for k, v in change.items()}
    events.update_ticket_type(event.ticket_types[0], price_minor=price_minor, **values)
    page = client.get(address(order)).text
    assert words in page
    assert f'action="{address(order)}/pay"' not in page
    for price in ("5000 EUR", f"{2 * price_minor} EUR"):
        client.post(f"{address(order)}/pay", data=stale | {"price": price})
    assert count(Order) == 1
    assert db.session.scalars(select(TicketType.held)).one() == 0


def test_a_sale_of_the_whole_event_that_begins_later_stops_an_old_order(client: FlaskClient) -> None:
    event = make_event()
    order = given_up(event)
    events.update_event(event, sales_open_at=clock.now() + timedelta(days=1))
    assert "Tickets go on sale on" in client.get(address(order)).text
    pay(
        client, order, provider="stripe", csrf_token=fields_of(client.get("/tickets/find").text)["csrf_token"]
    )
    assert db.session.scalars(select(TicketType.held)).one() == 0


def test_who_changes_the_way_to_pay_keeps_the_price_of_the_hold(client: FlaskClient) -> None:
    event = make_event(providers=["stripe", "sumup"])
    order = place(event, 2, provider="stripe")
    starting.open_at_provider(order)
    events.update_ticket_type(event.ticket_types[0], price_minor=3000, per_order_limit=1)
    payment = managing.pay_again(order.id, "sumup", payer_id=None)
    assert payment is not None
    assert (payment.provider, payment.amount_minor, payment.order_id) == ("sumup", 5000, order.id)


# --- What else is paid at once --------------------------------------------------------------------------


def test_a_service_whose_price_changed_takes_nothing(client: FlaskClient, ann: User) -> None:
    agents.seed()
    wallet.add_balance(ann, 500, "Present", key="more")
    agent = agents.find("qr-code")
    path = "/wallet/agents/qr-code/"
    form = fields_of(client.get(path).text) | {"text": "hello"}
    agent.price_minor = 400
    db.session.commit()
    answer = client.post(path, data=form)
    assert answer.status_code == 409
    assert "The price has changed" in answer.text
    assert ">hello</textarea>" in answer.text
    assert count(WalletHold) == 0
    assert client.post(path, data=fields_of(answer.text) | {"text": "hello"}).status_code == 200
    assert wallet.available_minor(ann, agents.find("qr-code").currency) == 100


def test_a_service_is_not_paid_without_a_price_that_was_shown(client: FlaskClient, ann: User) -> None:
    agents.seed()
    wallet.add_balance(ann, 500, "Present", key="more")
    form = fields_of(client.get("/wallet/agents/qr-code/").text) | {"text": "hello"}
    del form["price"]
    answer = client.post("/wallet/agents/qr-code/", data=form)
    assert (answer.status_code, count(WalletHold)) == (409, 0)
    assert "Send the form again to confirm" in answer.text


def test_a_service_that_was_paid_is_shown_again_after_its_price_changed(
    client: FlaskClient, ann: User
) -> None:
    agents.seed()
    wallet.add_balance(ann, 500, "Present", key="more")
    form = fields_of(client.get("/wallet/agents/qr-code/").text) | {"text": "hello"}
    client.post("/wallet/agents/qr-code/", data=form)
    agents.find("qr-code").price_minor = 400
    db.session.commit()
    answer = client.post("/wallet/agents/qr-code/", data=form)
    assert (answer.status_code, count(WalletHold)) == (200, 1)
    assert "not charged again" in answer.text


def test_a_listing_fee_that_changed_is_shown_and_not_taken(
    app: Flask, client: FlaskClient, environ: dict[str, str]
) -> None:
    make_member("olga@example.org", Role.ORGANISER)
    log_in(client, "olga@example.org")
    olga = db.session.scalars(select(User).filter_by(email="olga@example.org")).one()
    wallet.add_balance(olga, 9000, "Present", key="present", currency="EUR")
    event = make_event(organiser_id=olga.id, state="draft")
    path = f"/organiser/events/{event.slug}/publish"

    def fee(amount: str) -> None:
        config.use(config.load(environ | {"LISTING_FEE": amount, "LISTING_FEE_CURRENCY": "EUR"}))

    fee("10")
    form = fields_of(client.get(path).text) | {"provider": "wallet"}
    fee("20")
    answer = client.post(path, data=form, follow_redirects=True)
    assert "it is €20.00 now" in answer.text
    del form["price"]
    assert "This costs €20.00" in client.post(path, data=form, follow_redirects=True).text
    assert balance(olga) == 9000
    client.post(path, data=fields_of(client.get(path).text) | {"provider": "wallet"})
    assert balance(olga) == 7000


def test_an_old_fee_is_not_paid_on_its_orders_page(
    client: FlaskClient, environ: dict[str, str], sandbox: Sandbox
) -> None:
    config.use(config.load(environ | {"LISTING_FEE": "10", "LISTING_FEE_CURRENCY": "EUR"}))
    olga = make_user("olga@example.org", Role.ORGANISER)
    event = make_event(organiser_id=olga.id, state="draft")
    order = placing.place_listing_fee(event, olga, 1000, "EUR", provider="stripe", form_token="fee")
    managing.cancel(order, door="test")
    config.use(config.load(environ | {"LISTING_FEE": "20", "LISTING_FEE_CURRENCY": "EUR"}))
    answer = post(client, f"{address(order)}/pay", page="/tickets/find", provider="stripe")
    assert "The listing fee is €20.00 now" in client.get(answer.headers["Location"]).text
    assert newest_order().state is OrderState.CANCELLED
