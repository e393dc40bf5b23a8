"""An organiser's account takes one currency: what it cannot take is refused when the event is set up."""

from __future__ import annotations

import pytest
from flask import Flask
from flask.testing import FlaskClient

from domain.catalogue import events
from domain.errors import DomainError
from domain.people import organisers
from extensions import db
from models import Event, EventState, Role, User
from tests.support.merchants import connect
from tests.support.people import log_in, make_member, post
from tests.support.shop import make_event, place

EMAIL = "olga@example.org"
WORDS = "account, MHARBOUR, takes EUR only, and this event is in GBP"
TYPED = {
    "title": "Summer Gala",
    "timezone": "Europe/Jersey",
    "starts_at": "2030-07-01T20:00",
    "ends_at": "2030-07-01T23:00",
    "currency": "GBP",
}


@pytest.fixture
def olga(app: Flask) -> User:
    """An approved organiser."""
    user = make_member(EMAIL, Role.ORGANISER)
    organisers.edit(user, {"name": "Olga’s Hall", "contact_email": EMAIL})
    return user


@pytest.fixture
def browser(app: Flask, olga: User) -> FlaskClient:
    found = app.test_client()
    log_in(found, EMAIL)
    return found


def state_of(slug: str) -> EventState:
    return db.session.query(Event).filter_by(slug=slug).one().state


def test_an_event_in_another_currency_is_refused_as_it_is_typed(olga: User, browser: FlaskClient) -> None:
    connect(olga)
    answer = post(browser, "/organiser/events/new", **TYPED, providers="sumup")
    assert answer.status_code == 400 and WORDS in answer.text
    assert db.session.query(Event).count() == 0
    made = post(browser, "/organiser/events/new", **(TYPED | {"currency": "EUR"}), providers="sumup")
    assert made.status_code == 303
    answer = post(browser, "/organiser/events/summer-gala/edit", **TYPED, providers="sumup")
    assert answer.status_code == 400 and WORDS in answer.text


def test_where_other_ways_are_open_only_they_are_offered(olga: User, browser: FlaskClient) -> None:
    connect(olga)
    assert post(browser, "/organiser/events/new", **TYPED).status_code == 303
    event = db.session.query(Event).one()
    events.add_ticket_type(event, name="Seat", price_minor=2500, capacity=5)
    assert post(browser, "/organiser/events/summer-gala/publish").status_code == 303
    assert state_of("summer-gala") is EventState.PUBLISHED
    event = db.session.query(Event).one()
    assert [way.name for way in events.ways_to_pay(event)] == ["stripe"]
    with pytest.raises(DomainError, match="not set up for this event"):
        place(event, provider="sumup")


def test_an_account_that_is_connected_later_is_compared_when_it_is_published(
    olga: User, browser: FlaskClient
) -> None:
    event = make_event(
        "gala", organiser_id=olga.id, currency="GBP", providers=["sumup"], state=EventState.DRAFT
    )
    connect(olga)
    page = "/organiser/events/gala/publish"
    assert WORDS in browser.get(page).text
    with pytest.raises(DomainError, match="takes EUR only"):
        events.update_event(event, state=EventState.PUBLISHED)
    assert state_of("gala") is EventState.DRAFT


def test_what_sold_before_can_still_be_changed_and_cancelled(olga: User, browser: FlaskClient) -> None:
    make_event("gala", organiser_id=olga.id, currency="GBP", providers=["sumup"])
    connect(olga)
    assert "cannot be paid for here just now" in browser.get("/events/gala").text
    changed = TYPED | {"title": "Gala, later"}
    assert post(browser, "/organiser/events/gala/edit", **changed, providers="sumup").status_code == 303
    page = "/organiser/events/gala/cancel"
    assert post(browser, page).status_code == 303
    assert state_of("gala") is EventState.CANCELLED
