"""The order page in all the states of its order: what a buyer reads, and what they can do next."""

from __future__ import annotations

import re

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select

from domain import clock
from domain.catalogue import events
from domain.orders import placing
from extensions import db
from models import (
    Event,
    OrderState,
    OutboxMail,
    PaymentState,
    Ticket,
    TicketState,
)
from tests.support.people import make_member, post
from tests.support.queries import recorded
from tests.support.sandbox import Sandbox
from tests.support.shop import address, make_event, place, settled
from tests.support.web import buy, newest_order, newest_payment

# --- The order page -------------------------------------------------------------------------------------


def test_a_wrong_secret_is_the_same_as_no_order(client: FlaskClient) -> None:
    order = place(make_event())
    wrong = client.get(f"/o/{order.code}/wrong")
    nothing = client.get("/o/ORD-NOTHING1/wrong")
    assert wrong.status_code == nothing.status_code == 404
    assert re.sub("wrong|ORD-[A-Z0-9]+", "", wrong.text) == re.sub("wrong|ORD-[A-Z0-9]+", "", nothing.text)
    for path in ("check", "pay", "cancel", "email", "resend"):
        answer = post(client, f"/o/{order.code}/wrong/{path}", page="/tickets/find")
        assert answer.status_code == 404
    for path in (".json", "/tickets.pdf", "/event.ics"):
        assert client.get(f"/o/{order.code}/wrong{path}").status_code == 404


def test_open_leads_back_to_the_same_payment(client: FlaskClient) -> None:
    order = settled(place(make_event(), 2), "open")
    page = client.get(address(order)).text
    assert "€50.00 to pay" in page
    assert 'href="https://pay.example.org/session"' in page
    assert "Kept for you until" in page
    assert 'http-equiv="refresh" content="5"' in page
    assert 'data-refresh="soon"' in page
    assert "Cancel this order" in page


def test_waiting_asks_nobody_to_pay_again(client: FlaskClient) -> None:
    order = settled(place(make_event(), 2), "open", "processing")
    page = client.get(address(order)).text
    assert (
        "Payment received, your bank is still confirming. "
        "You don't need to pay again; we will email you" in page
    )
    assert "€50.00" in page
    assert order.payments[0].reference in page
    assert "Check again" in page
    assert "Try again" not in page
    assert 'http-equiv="refresh" content="5"' in page


def test_paid_shows_the_tickets_once_and_for_all(client: FlaskClient) -> None:
    order = settled(place(make_event(), 2), "open", "paid")
    page = client.get(address(order)).text
    assert page.count('src="data:image/png;base64,') == 2
    for ticket in order.tickets:
        assert f"{ticket.code[:4]} {ticket.code[4:]}" in page
    assert 'http-equiv="refresh"' not in page
    assert "Wrong address" not in page
    assert client.get(f"{address(order)}/tickets.pdf").data.startswith(b"%PDF")
    assert b"BEGIN:VCALENDAR" in client.get(f"{address(order)}/event.ics").data


def test_a_cancelled_event_is_said_to_those_with_tickets(client: FlaskClient) -> None:
    order = settled(place(make_event()), "open", "paid")
    assert order.event is not None
    events.cancel_event(order.event)
    assert "This event was cancelled" in client.get(address(order)).text


def test_each_ticket_says_how_it_stands(client: FlaskClient) -> None:
    order = settled(place(make_event(), 3), "open", "paid")
    used, void, held = order.tickets
    used.checked_in_at = clock.now()
    void.state, void.state_reason = TicketState.VOID, "Refunded."
    held.state = TicketState.SUSPENDED
    db.session.commit()
    page = client.get(address(order)).text
    for words in ("Checked in", "Void", "Refunded.", "On hold"):
        assert words in page
    assert page.count('class="admit-qr"') == 1


def test_ten_tickets_stay_under_a_hundred_kilobytes_and_few_queries(client: FlaskClient) -> None:
    event = make_event(capacity=20, price_minor=0)
    small, large = place(event, 1), place(event, 10, email="bo@example.org")
    paths = [address(small), address(large)]
    counts = []
    for path in paths:
        db.session.remove()
        with recorded() as seen:
            page = client.get(path)
        counts.append(len(seen))
        assert len(page.data) < 100_000
    assert counts[0] == counts[1]


@pytest.mark.parametrize(
    ("states", "words"),
    [
        (("open", "processing", "failed"), "The payment did not go through"),
        (("open", "expired"), "not paid in time"),
        (("open", "cancelled"), "This order was cancelled"),
    ],
)
def test_what_ended_says_why_and_can_be_tried_again(
    client: FlaskClient, sandbox: Sandbox, states: tuple[str, ...], words: str
) -> None:
    order = settled(place(make_event()), *states, reason="The bank refused.")
    page = client.get(address(order)).text
    assert words in page
    assert 'http-equiv="refresh"' not in page
    answer = post(client, f"{address(order)}/pay", page=address(order))
    payment = newest_payment()
    assert answer.status_code == 303
    assert (answer.headers["Location"], payment.attempt) == (payment.url, 2)


def test_trying_again_when_all_is_gone_says_so(client: FlaskClient) -> None:
    event = make_event(capacity=1)
    order = settled(place(event), "open", "expired")
    place(db.session.get_one(Event, event.id), email="bo@example.org")
    answer = post(client, f"{address(order)}/pay", page=address(order))
    assert answer.headers["Location"] == address(order)
    assert 'role="alert"' in client.get(address(order)).text


def test_review_says_that_a_person_looks(client: FlaskClient) -> None:
    order = settled(place(make_event()), "open")
    settled(order, "paid", amount_minor=1)
    page = client.get(address(order)).text
    assert "A person is looking at your payment" in page
    assert "don’t pay again" in page
    assert "Continue to payment" not in page


def test_refunded_in_part_and_in_full(client: FlaskClient) -> None:
    order = settled(place(make_event()), "open", "paid")
    for state, words in (
        (OrderState.PARTIALLY_REFUNDED, "Partly refunded"),
        (OrderState.REFUNDED, "You were paid back"),
    ):
        order.state = state
        db.session.commit()
        assert words in client.get(address(order)).text


def test_a_top_up_leads_to_the_wallet(client: FlaskClient) -> None:
    order = placing.place_top_up(make_member(), 5000)
    assert "to pay" in client.get(address(settled(order, "open"))).text
    page = client.get(address(settled(order, "paid"))).text
    assert "in your wallet" in page
    assert 'href="/wallet/"' in page


def test_a_provider_that_did_not_answer_is_tried_again(client: FlaskClient, sandbox: Sandbox) -> None:
    sandbox.faults("http_500", rate=1, match={"path": "/stripe/v1"})
    answer = buy(client, make_event())
    order = newest_order()
    assert answer.headers["Location"] == address(order)
    page = client.get(address(order)).text
    assert "The payment page did not answer" in page
    assert "Try again now" in page
    sandbox.faults()
    answer = post(client, f"{address(order)}/pay", page="/tickets/find", provider="stripe")
    payment = newest_payment()
    assert (answer.headers["Location"], payment.attempt) == (payment.url, 1)


def test_a_provider_that_is_out_of_reach_does_not_look_unpaid(client: FlaskClient, sandbox: Sandbox) -> None:
    buy(client, make_event())
    order = newest_order()
    sandbox.faults("http_500", rate=1, match={"path": "/stripe/v1"})
    page = client.get(address(order)).text
    assert "cannot reach the payment service" in page
    assert "You don't need to pay again" in page or "you don't need to pay again" in page


def test_the_buyer_cancels_and_the_tickets_are_free(client: FlaskClient, sandbox: Sandbox) -> None:
    event = make_event(capacity=1)
    buy(client, event)
    order = newest_order()
    post(client, f"{address(order)}/cancel", page=address(order))
    assert newest_payment().state is PaymentState.CANCELLED
    assert "This order was cancelled" in client.get(address(order)).text
    assert 'id="buy"' in client.get("/events/concert").text


def test_a_wrong_address_is_corrected_until_it_is_paid(client: FlaskClient) -> None:
    order = settled(place(make_event()), "open")
    post(client, f"{address(order)}/email", page=address(order), email="right@example.org")
    assert newest_order().email == "right@example.org"
    post(client, f"{address(order)}/email", page=address(order), email="not an address")
    assert newest_order().email == "right@example.org"
    settled(order, "paid")
    post(client, f"{address(order)}/email", page="/tickets/find", email="late@example.org")
    assert newest_order().email == "right@example.org"


def test_tickets_are_mailed_again_a_few_times(client: FlaskClient) -> None:
    order = settled(place(make_event()), "open", "paid")
    before = db.session.query(OutboxMail).filter_by(kind="tickets").count()
    answer = post(client, f"{address(order)}/resend", page=address(order))
    assert answer.status_code == 303
    assert db.session.query(OutboxMail).filter_by(kind="tickets").count() == before + 1


def test_the_json_tells_programs_the_same(client: FlaskClient) -> None:
    order = settled(place(make_event(), 2), "open")
    answer = client.get(f"{address(order)}.json")
    assert answer.headers["Cache-Control"] == "private, no-store"
    told = answer.get_json()
    assert told["state"] == "pending_verification"
    assert told["payment_state"] == "open"
    assert (told["amount_minor"], told["currency"], told["tickets"]) == (5000, "EUR", [])
    shown = re.search(r'data-version="([^"]+)"', client.get(address(order)).text)
    assert shown is not None
    assert shown[1] == told["version"]
    order = settled(order, "paid")
    later = client.get(f"{address(order)}.json").get_json()
    assert later["version"] != told["version"]
    tickets = db.session.scalars(select(Ticket).order_by(Ticket.number)).all()
    assert [ticket["code"] for ticket in later["tickets"]] == [ticket.code for ticket in tickets]
    assert later["tickets"][0]["qr"].startswith(f"TICKET:{order.code}-1|ORDER:{order.code}|")


def test_the_page_verifies_as_it_loads(client: FlaskClient, sandbox: Sandbox) -> None:
    buy(client, make_event())
    order, payment = newest_order(), newest_payment()
    sandbox.do(payment.provider_id or "", "pay")
    sandbox.advance(3)
    assert "You’re going to" in client.get(address(order)).text
