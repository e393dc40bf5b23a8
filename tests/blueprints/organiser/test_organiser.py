"""The organisers' pages: applying, events, what is sold for them, and what it costs to look at them."""

from __future__ import annotations

import csv
import io
import re
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from domain import clock, spreadsheets
from domain.orders import event_cancellation
from domain.payments import reconciling, refunds, settling, starting
from domain.people import accounts, organisers
from extensions import db
from models import Event, EventState, Order, OrderState, PaymentState, Role, TicketState, TicketType
from tests.support.people import log_in, mails, make_member, post
from tests.support.queries import recorded
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, place, report_on
from tests.support.web import press

EMAIL = "olga@example.org"
PROFILE = {"name": "Olga’s Hall", "contact_email": "hall@example.org", "website": "https://hall.example.org"}


@pytest.fixture
def olga(app: Flask) -> FlaskClient:
    """An approved organiser's browser."""
    organisers.edit(make_member(EMAIL, Role.ORGANISER), PROFILE)
    browser = app.test_client()
    log_in(browser, EMAIL)
    return browser


def hers(slug: str = "gala", **more: Any) -> Event:
    user = accounts.find(EMAIL)
    assert user is not None
    return make_event(slug, organiser_id=user.id, **more)


def paid(event: Event, quantity: int = 1, **more: str) -> Order:
    """A paid order, settled without a provider."""
    order = place(event, quantity, **more)
    payment = order.payments[0]
    settling.settle(payment.id, report_on(payment, "open"), door="test")
    settling.settle(payment.id, report_on(payment, "paid"), door="test")
    db.session.expire_all()
    return order


def form(**changes: str) -> dict[str, str]:
    """An event as its organiser types it."""
    typed = {
        "title": "Summer Gala",
        "venue": "Olga’s Hall",
        "description": "Dancing.",
        "timezone": "Europe/Lisbon",
        "starts_at": "2030-07-01T20:00",
        "ends_at": "2030-07-01T23:00",
        "currency": "EUR",
    }
    return typed | changes


KIND = {"name": "Adult", "price": "25.00", "capacity": "100", "per_order_limit": "6", "position": "0"}


# --- Becoming one ---------------------------------------------------------------------------------------


def test_a_member_applies_and_an_admin_approves(app: Flask, client: FlaskClient) -> None:
    make_member()
    make_member("boss@example.org", Role.ADMIN)
    log_in(client)
    refused = client.get("/organiser/")
    assert refused.status_code == 403
    assert "/organiser/apply" in refused.text
    wrong = post(client, "/organiser/apply", name="Ann’s", contact_email="nowhere")
    assert wrong.status_code == 400
    assert "does not look right" in wrong.text
    assert post(client, "/organiser/apply", **PROFILE).status_code == 303
    assert "We have your application" in client.get("/organiser/apply").text
    boss = app.test_client()
    log_in(boss, "boss@example.org")
    listed = boss.get("/admin/organisers?state=pending").text
    page = re.search(r"/admin/organisers/\d+", listed)
    assert page is not None and "Olga’s Hall" in listed
    post(boss, page[0], do="approve")
    assert client.get("/organiser/").status_code == 200
    post(boss, page[0], do="suspend")
    assert client.get("/organiser/").status_code == 200
    post(boss, page[0], do="suspend", reason="Complaints of buyers")
    # Their logins ended with what they gave.
    assert client.get("/organiser/").location == "/account/login?next=/organiser/"
    log_in(client)
    assert "Complaints of buyers" in client.get("/organiser/").text
    assert [mail.to for mail in mails("organiser_suspended")] == ["ann@example.org"]


def test_a_newcomer_is_told_what_to_do(olga: FlaskClient) -> None:
    page = olga.get("/organiser/").text
    assert "Your first event" in page
    assert post(olga, "/organiser/profile", **(PROFILE | {"name": "The Hall"})).status_code == 303
    assert organisers.of(accounts.find(EMAIL)).name == "The Hall"  # type: ignore[arg-type, union-attr]


# --- Events ---------------------------------------------------------------------------------------------


def test_an_event_from_nothing_to_sale(olga: FlaskClient, client: FlaskClient) -> None:
    made = post(olga, "/organiser/events/new", **form())
    assert made.location == "/organiser/events/summer-gala"
    assert client.get("/events/summer-gala").status_code == 404
    assert olga.get("/events/summer-gala").status_code == 200
    post(olga, "/organiser/events/summer-gala/publish", page=made.location)
    assert client.get("/events/summer-gala").status_code == 404
    assert post(olga, f"{made.location}/types/new", **KIND).status_code == 303
    post(olga, f"{made.location}/publish", page=made.location)
    page = client.get("/events/summer-gala").text
    assert "Olga’s Hall" in page and "mailto:hall@example.org" in page
    event = db.session.query(Event).one()
    assert event.starts_at.isoformat() == "2030-07-01T19:00:00+00:00"
    assert event.organiser_id == accounts.find(EMAIL).id  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ends_at": "2030-07-01T19:00"}, "must end after"),
        ({"timezone": "Mars/Base"}, "not a time zone"),
        ({"currency": "XYZ"}, "XYZ"),
        ({"title": ""}, "Give it a title"),
        ({"slug": "Not An Address"}, "small letters"),
        ({"starts_at": "soon"}, "Type a date and a time, such as"),
        ({"poll_minutes": "30"}, "Give between 31 and 1370 minutes."),
        ({"poll_minutes": "1371"}, "Give between 31 and 1370 minutes."),
        ({"poll_minutes": "an hour"}, "Type a whole number"),
    ],
)
def test_a_wrong_event_is_refused_beside_its_field(
    olga: FlaskClient, changes: dict[str, str], words: str
) -> None:
    answer = post(olga, "/organiser/events/new", **form(**changes))
    assert answer.status_code == 400
    assert words in answer.text
    assert db.session.query(Event).count() == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": ""}, "Give it a name."),
        ({"price": "-5"}, "must be zero or more"),
        ({"price": "5.005"}, "at most 2 digits"),
        ({"price": "1,000"}, "Type 1000 for €1,000.00 or 1.00 for €1.00."),
        ({"price": "a lot"}, "is not an amount"),
        ({"capacity": "1.5"}, "Type a whole number"),
        ({"capacity": "99999999999"}, "between 0 and 1,000,000"),
        ({"position": "99999999999"}, "between 0 and 9,999"),
    ],
)
def test_a_wrong_ticket_is_refused_beside_its_field(
    olga: FlaskClient, changes: dict[str, str], words: str
) -> None:
    event = hers()
    before = len(event.ticket_types)
    answer = post(olga, f"/organiser/events/{event.slug}/types/new", **(KIND | changes))
    assert answer.status_code == 400
    assert words in answer.text and 'name="price"' in answer.text
    assert db.session.query(TicketType).count() == before


def test_the_catalogues_rules_hold_for_organisers(olga: FlaskClient) -> None:
    event = hers(capacity=10)
    paid(event, 3)
    kind = event.ticket_types[0]
    base = f"/organiser/events/{event.slug}"
    page = f"{base}/types/{kind.id}"
    assert "cannot be below 3" in post(olga, page, **(KIND | {"capacity": "2"})).text
    assert post(olga, page, **(KIND | {"capacity": "3"})).status_code == 303
    post(olga, f"{page}/delete", page=page)
    assert db.session.query(TicketType).count() == 1
    answer = post(olga, f"{base}/edit", **form(currency="USD"))
    assert answer.status_code == 400 and "stays EUR" in answer.text
    assert post(olga, f"{base}/edit", **form(title="New title", moves="y")).status_code == 303
    fresh = db.session.get_one(Event, event.id)
    assert (fresh.title, fresh.slug, fresh.state) == ("New title", "gala", EventState.PUBLISHED)


def test_a_copy_is_an_unsold_draft_a_week_later(olga: FlaskClient, client: FlaskClient) -> None:
    event = hers(capacity=10)
    paid(event, 2)
    copied = post(olga, "/organiser/events/gala/duplicate", page="/organiser/events/gala")
    assert copied.location == "/organiser/events/gala-2/edit"
    copy = db.session.query(Event).filter_by(slug="gala-2").one()
    assert copy.state is EventState.DRAFT and copy.organiser_id == event.organiser_id
    assert abs((copy.starts_at - event.starts_at) - timedelta(days=7)) <= timedelta(hours=1)
    assert [(kind.sold, kind.held, kind.capacity) for kind in copy.ticket_types] == [(0, 0, 10)]
    assert post(olga, "/organiser/events/gala-2/delete", page=copied.location).location == "/organiser/"
    assert db.session.query(Event).count() == 1


def test_a_cancelled_event_shows_how_far_its_refunds_are(olga: FlaskClient, sandbox: Sandbox) -> None:
    event = hers()
    order = place(event, 2)
    payment = starting.open_at_provider(order)
    assert payment is not None
    sandbox.do(str(payment.provider_id), "pay")
    reconciling.reconcile(payment.id, door="test")
    page = "/organiser/events/gala/cancel"
    assert "1 order was paid for" in olga.get(page).text
    post(olga, page, refund="yes")
    assert "0 of 1 paid orders are paid back; 1 waiting" in olga.get("/organiser/events/gala").text
    event_cancellation.refund_due()
    assert "1 of 1 paid orders are paid back" in olga.get("/organiser/events/gala").text
    assert post(olga, "/organiser/events/gala/edit", **form()).status_code == 400
    assert db.session.get_one(Order, order.id).state is OrderState.REFUNDED


# --- What is sold ---------------------------------------------------------------------------------------


def test_sales_so_far(olga: FlaskClient) -> None:
    event = hers(capacity=20)
    paid(event, 3)
    place(event, 2)
    page = olga.get("/organiser/events/gala").text
    assert re.search(r'data-label="Sold" class="num">3\b', page)
    assert re.search(r'data-label="Held" class="num">2\b', page)
    assert re.search(r'data-label="Left" class="num">15\b', page)
    assert "€75.00" in page
    assert "€75.00" in olga.get("/organiser/").text


def test_attendees_are_found_and_downloaded(olga: FlaskClient) -> None:
    event = hers(capacity=200, limit=100)
    paid(event, 2, name="=cmd|' calc'!A0", email="evil@example.org")
    paid(event, 60, name="Zoë Ünal", email="zoe@example.org")
    page = olga.get("/organiser/events/gala/attendees").text
    older = re.search(r"attendees\?before=(\d+)", page)
    assert page.count("Zoë") == 50 and older is not None
    assert olga.get(f"/organiser/events/gala/attendees?before={older[1]}").text.count("Zoë") == 10
    assert olga.get("/organiser/events/gala/attendees?q=evil").text.count("evil@example.org") == 2
    assert "Nobody matches" in olga.get("/organiser/events/gala/attendees?q=%25").text
    file = olga.get("/organiser/events/gala/attendees.csv")
    assert file.data.startswith(b"\xef\xbb\xbf")
    assert 'filename="attendees-gala.csv"' in file.headers["Content-Disposition"]
    rows = list(csv.DictReader(io.StringIO(file.data.decode("utf-8-sig"), newline="")))
    assert len(rows) == 62
    assert {row["Name"] for row in rows} == {"'=cmd|' calc'!A0", "Zoë Ünal"}


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@x", "\t=1", " =1", "＝1"])
def test_no_cell_is_a_formula(cell: str) -> None:
    assert spreadsheets.plain(cell).startswith("'")
    assert spreadsheets.plain("Ann-Marie") == "Ann-Marie"


def test_an_order_is_resent_and_refunded(olga: FlaskClient, sandbox: Sandbox) -> None:
    event = hers()
    order = place(event, 2)
    payment = starting.open_at_provider(order)
    assert payment is not None
    sandbox.do(str(payment.provider_id), "pay")
    reconciling.reconcile(payment.id, door="test")
    page = f"/organiser/events/gala/orders/{order.code}"
    assert "fulfilled" in olga.get(page).text
    assert order.code in olga.get("/organiser/events/gala/orders?q=ada@example.org").text
    post(olga, f"{page}/resend", page=page)
    ticket = db.session.get_one(Order, order.id).tickets[0]
    fields = {"payment_id": str(payment.id), "amount": "25.00", "reason": "Ill", "tickets": str(ticket.id)}
    shown = post(olga, f"{page}/refund", page=page, **fields)
    # Among the pages of her event, and not of the back office.
    assert "Attendees" in shown.text and "Money inbox" not in shown.text
    press(olga, shown, f"{page}/refund")
    fresh = db.session.get_one(Order, order.id)
    assert fresh.state is OrderState.PARTIALLY_REFUNDED
    assert [t.state for t in fresh.tickets] == [TicketState.VOID, TicketState.VALID]
    told = [
        (entry.what, entry.door, entry.actor.email) for entry in fresh.timeline if entry.actor is not None
    ]
    assert ("resent", "organiser", EMAIL) in told and ("refund_asked", "organiser", EMAIL) in told
    assert "€25.00 refunded" in olga.get("/organiser/events/gala").text
    fields = {"payment_id": str(payment.id), "amount": "30.00", "reason": "Ill"}
    too_much = post(olga, f"{page}/refund", page=page, **fields)
    assert "At most" in olga.get(too_much.location).text


def test_what_staff_wrote_is_between_them(app: Flask, olga: FlaskClient) -> None:
    """An organiser sees what was decided and done, and not what staff wrote about it. Staff see all of it."""
    boss = make_member("boss@example.org", Role.ADMIN)
    event, secret = hers(), "Looks like a fraud ring"
    # A payment that matched nothing, closed by a person; and one that was refunded by a person.
    closed, given_back = place(event), paid(event)
    payment = closed.payments[0]
    settling.settle(payment.id, report_on(payment, "open"), door="test")
    settling.settle(payment.id, report_on(payment, "paid", amount_minor=1), door="test")
    settling.override(payment.id, state=PaymentState.EXPIRED, note=secret, actor_id=boss.id)
    refunds.request(given_back.payments[0].id, 100, actor_id=boss.id, reason=secret, door="admin")
    pages = [f"/organiser/events/gala/orders/{order.code}" for order in (closed, given_back)]
    for page in pages:
        text = olga.get(page).text
        assert secret not in text and "boss@example.org" not in text, page
    assert "<strong>decided</strong>" in olga.get(pages[0]).text
    assert "It was closed by hand" in olga.get(pages[0]).text
    # What Kassa itself says of it is there: that it was paid, and that the refund was made.
    assert "1 ticket issued." in olga.get(pages[1]).text and "Refund of €1.00" in olga.get(pages[1]).text
    staff = app.test_client()
    log_in(staff, "boss@example.org")
    for page in pages:
        assert secret in staff.get(page).text


def test_the_guest_list(olga: FlaskClient, client: FlaskClient) -> None:
    event = hers(capacity=3)
    kind = event.ticket_types[0]
    page = "/organiser/events/gala/guests"
    fields = {"name": "Greta Guest", "email": "greta@example.org", "ticket_type_id": str(kind.id)}
    token = {"form_token": "one-form"}
    for _ in range(2):
        assert post(olga, page, **fields, **token, quantity="2").status_code == 303
    fresh = db.session.get_one(TicketType, kind.id)
    assert (fresh.sold, fresh.held) == (2, 0)
    too_many = post(olga, page, **fields, quantity="2")
    assert too_many.status_code == 400
    assert "only 1 are left" in too_many.text or "only 1 left" in too_many.text
    order = db.session.query(Order).one()
    assert (order.total_minor, order.state, order.guest_of_id) == (
        0,
        OrderState.COMPLETED,
        event.organiser_id,
    )
    assert [mail.to for mail in mails("tickets")] == ["greta@example.org"]
    for shown in ("/organiser/events/gala/attendees", f"/organiser/events/gala/orders/{order.code}"):
        assert "Guest list</span>" in olga.get(shown).text
    assert "(guest list)" in olga.get("/door/events/gala/list").text
    ticket, back = order.tickets[0], f"/organiser/events/gala/orders/{order.code}"
    post(olga, f"{back}/withdraw", page=back, tickets=str(ticket.id), reason="Cannot come")
    assert db.session.get_one(TicketType, kind.id).sold == 1
    states = [t.state for t in db.session.get_one(Order, order.id).tickets]
    assert states == [TicketState.VOID, TicketState.VALID]


def test_what_was_paid_for_is_not_withdrawn_without_its_money(olga: FlaskClient) -> None:
    order = paid(hers(), 1)
    page = f"/organiser/events/gala/orders/{order.code}"
    fields = {"tickets": str(order.tickets[0].id), "reason": "No"}
    post(olga, f"{page}/withdraw", page=page, **fields)
    assert db.session.get_one(Order, order.id).tickets[0].state is TicketState.VALID
    assert "refund them instead" in olga.get(page).text


def test_an_admin_runs_house_events_and_enters_organisers_pages(app: Flask, olga: FlaskClient) -> None:
    hers()
    make_member("boss@example.org", Role.ADMIN)
    boss = app.test_client()
    log_in(boss, "boss@example.org")
    post(boss, "/organiser/events/new", **form())
    assert db.session.query(Event).filter_by(slug="summer-gala").one().organiser_id is None
    assert "Summer Gala" in boss.get("/organiser/").text
    assert boss.get("/organiser/events/gala").status_code == 200
    assert olga.get("/organiser/events/summer-gala").status_code == 404


def test_a_past_event_is_not_published(olga: FlaskClient) -> None:
    past = clock.now() - timedelta(days=3)
    event = hers(state=EventState.DRAFT, starts_at=past, ends_at=past + timedelta(hours=1))
    post(olga, "/organiser/events/gala/publish", page="/organiser/events/gala")
    assert db.session.get_one(Event, event.id).state is EventState.DRAFT


# --- What it costs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/events/gala", "/events/gala/attendees", "/events/gala/orders"])
def test_queries_do_not_grow_with_what_was_sold(olga: FlaskClient, path: str) -> None:
    event_id = hers(capacity=500).id
    hers("second")
    paid(db.session.get_one(Event, event_id), 1)
    olga.get(f"/organiser{path}")
    with recorded() as few:
        assert olga.get(f"/organiser{path}").status_code == 200
    for _ in range(6):
        paid(db.session.get_one(Event, event_id), 3)
    with recorded() as many:
        assert olga.get(f"/organiser{path}").status_code == 200
    assert len(few) == len(many) <= 12, many
