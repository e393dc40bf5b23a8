"""Connecting an account and publishing an event, as an organiser's browser does it."""

from __future__ import annotations

from decimal import Decimal

import pytest
from flask import Flask
from flask.testing import FlaskClient

from domain.connections import linked_accounts
from domain.payments import reconciling
from extensions import db
from models import Connection, ConnectionState, Event, EventState, Payment, Role, User
from tests.support.merchants import allow, connect, query, use_sumup
from tests.support.people import log_in, make_member, post
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event

PAGE = "/organiser/connect/sumup"


@pytest.fixture(autouse=True)
def _sumup(app: Flask, environ: dict[str, str], sandbox: Sandbox) -> None:
    use_sumup(environ, sandbox, listing_fee=Decimal("12.50"), listing_fee_currency="EUR")


@pytest.fixture
def olga(client: FlaskClient) -> User:
    user = make_member("olga@example.org", Role.ORGANISER)
    log_in(client, user.email)
    return user


def leave(client: FlaskClient, merchant: str = "MHARBOUR") -> dict[str, str]:
    """Press the button and allow the app at the provider: what the browser comes back with."""
    answer = post(client, PAGE)
    assert answer.status_code == 303, answer.text
    return allow(answer.location, merchant)


def row() -> Connection | None:
    return db.session.query(Connection).one_or_none()


def test_an_account_is_connected_seen_and_disconnected(client: FlaskClient, olga: User) -> None:
    assert "Connect SumUp" in client.get(PAGE).text
    told = leave(client)
    done = client.get(f"{PAGE}/done", query_string=told, follow_redirects=True)
    assert "Account MHARBOUR is connected" in done.text and "Harbour Jazz Club" in done.text
    again = client.get(f"{PAGE}/done", query_string=told, follow_redirects=True)
    assert "opened too late, or a second time" in again.text
    ended = post(client, f"{PAGE}/end", page=PAGE)
    assert "is disconnected" in client.get(ended.location).text
    found = row()
    assert found is not None and found.state is ConnectionState.DISCONNECTED
    assert "Disconnected" in client.get(PAGE).text


def test_what_comes_back_to_another_browser_or_with_another_state_connects_nothing(
    app: Flask, client: FlaskClient, olga: User
) -> None:
    told = leave(client)
    other = app.test_client()
    log_in(other, olga.email)
    for browser, sent in ((other, told), (client, told | {"state": "made-up"})):
        answer = browser.get(f"{PAGE}/done", query_string=sent, follow_redirects=True)
        assert "nothing was connected" in answer.text
    assert row() is None


def test_who_logs_out_on_the_way_connects_nothing(client: FlaskClient, olga: User) -> None:
    told = leave(client)
    post(client, "/account/logout", page="/account/")
    away = client.get(f"{PAGE}/done", query_string=told)
    assert away.location.startswith("/account/login")
    log_in(client, olga.email)
    answer = client.get(f"{PAGE}/done", query_string=told, follow_redirects=True)
    assert "nothing was connected" in answer.text and row() is None


def test_a_no_at_the_provider_is_said_in_words(client: FlaskClient, olga: User) -> None:
    state = query(post(client, PAGE).location)["state"]
    sent = {"state": state, "error": "access_denied"}
    answer = client.get(f"{PAGE}/done", query_string=sent, follow_redirects=True)
    assert "You did not let Kassa use your SumUp account" in answer.text and row() is None


def test_a_broken_connection_has_a_button_and_admins_see_it(
    app: Flask, client: FlaskClient, olga: User
) -> None:
    found = connect(olga)
    found.state, found.last_error = ConnectionState.BROKEN, "SumUp said no."
    db.session.commit()
    assert "Reconnect" in client.get(PAGE).text
    boss = app.test_client()
    make_member("boss@example.org", Role.ADMIN)
    log_in(boss, "boss@example.org")
    page = boss.get("/admin/connections").text
    assert "MHARBOUR" in page and "broken" in page and "SumUp said no." in page
    assert client.get("/admin/connections").status_code == 403


def test_strangers_log_in_buyers_are_told_and_other_providers_are_not_there(client: FlaskClient) -> None:
    assert client.get(PAGE).location.startswith("/account/login")
    make_member()
    log_in(client)
    assert "Only organisers" in client.get(PAGE).text
    assert client.get("/organiser/connect/stripe").status_code == 404


def test_an_event_is_published_by_paying_its_fee(client: FlaskClient, olga: User, sandbox: Sandbox) -> None:
    first = client.get("/organiser/").text
    assert "that costs €12.50 an event" in first and "Connect your SumUp account" in first
    event = make_event("gala", organiser_id=olga.id, state=EventState.DRAFT)
    event_id, where = event.id, "/organiser/events/gala/publish"
    assert "Publish it: that costs €12.50, once." in client.get("/organiser/events/gala").text
    assert "Listing fee: €12.50" in client.get(where).text
    answer = post(client, where, provider="sumup")
    assert answer.location.startswith(sandbox.base_url)
    payment = db.session.query(Payment).one()
    order_page = f"/o/{payment.order.code}/{payment.order.secret}"
    assert "ticket" not in client.get(order_page).text.split('id="order"')[1].split("</main>")[0].lower()
    sandbox.do(str(payment.provider_id), "pay")
    page = client.get(order_page.replace("/o/", "/pay/success/"), follow_redirects=True).text
    assert "Gala is on sale" in page and "tickets.pdf" not in page
    assert "Questions about the event" not in page, "the reader is the organiser"
    assert db.session.get_one(Event, event_id).state is EventState.PUBLISHED
    assert "It is published" in client.get(where).text


def test_an_admin_decides_about_an_event_whose_fee_went_back(
    app: Flask, client: FlaskClient, olga: User, sandbox: Sandbox
) -> None:
    make_event("gala", organiser_id=olga.id, state=EventState.DRAFT)
    post(client, "/organiser/events/gala/publish", provider="stripe")
    payment = db.session.query(Payment).one()
    sandbox.do(str(payment.provider_id), "pay")
    reconciling.reconcile(payment.id, door="success")
    sandbox.do(str(payment.provider_id), "refund", amount_minor=1250)
    reconciling.reconcile(payment.id, door="success")
    boss = app.test_client()
    make_member("boss@example.org", Role.ADMIN)
    log_in(boss, "boss@example.org")
    assert "Gala" in boss.get("/admin/listings").text
    event_id = db.session.query(Event.id).scalar()
    post(boss, f"/admin/listings/{event_id}", page="/admin/listings", how="publish", reason="Ours")
    assert db.session.get_one(Event, event_id).state is EventState.PUBLISHED
    assert linked_accounts.of(olga.id, "sumup") is None
