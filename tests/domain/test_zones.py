"""Times as people type them: zones by their places, and the hours that clocks skip or repeat."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from flask import Flask
from flask.testing import FlaskClient

import config
from domain import zones
from domain.catalogue import events
from domain.errors import DomainError
from domain.people import organisers
from extensions import db
from models import Event, Role, TicketType
from tests.support.people import log_in, make_member, post
from tests.support.shop import make_event

BERLIN = "Europe/Berlin"
TYPED = {
    "title": "Summer Gala",
    "timezone": BERLIN,
    "starts_at": "2030-07-01T20:00",
    "ends_at": "2030-07-01T23:00",
    "currency": "EUR",
}
# The clocks of Berlin go back on 27 October 2030 at 03:00, and forward on 31 March 2030 at 02:00.
NIGHT = {"starts_at": "2030-10-27T02:30", "ends_at": "2030-10-27T06:00"}


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_zones_are_listed_by_their_places() -> None:
    listed = dict(zones.listed())
    assert listed[BERLIN] == "Germany: Berlin" and listed["Europe/Jersey"] == "Jersey"
    assert listed["America/New_York"] == "United States: New York"
    assert next(iter(listed)) == "UTC" and len(listed) > 400
    assert not {"localtime", "Factory", "posixrules", "CET", "US/Eastern"} & set(listed)
    for name in listed:
        assert config.is_timezone(name) and ZoneInfo(name).key == name


@pytest.mark.parametrize(
    "name",
    ["", "localtime", "Factory", "posixrules", "posix/UTC", "Europe", "../etc/passwd", "Mars/Base"],
)
def test_what_is_no_zone_is_refused(name: str) -> None:
    with pytest.raises(DomainError, match="is not a time zone"):
        zones.check(name)


@pytest.mark.parametrize(
    ("typed", "zone", "which", "stored"),
    [
        ("2030-07-01T20:00", BERLIN, "", "2030-07-01T18:00"),
        ("2030-10-27T02:30", BERLIN, "first", "2030-10-27T00:30"),
        ("2030-10-27T02:30", BERLIN, "second", "2030-10-27T01:30"),
        ("2030-10-27T03:00", BERLIN, "", "2030-10-27T02:00"),
        ("2030-10-27T01:59", BERLIN, "", "2030-10-26T23:59"),
        ("2030-03-31T03:00", BERLIN, "", "2030-03-31T01:00"),
        ("2030-04-07T01:45", "Australia/Lord_Howe", "second", "2030-04-06T15:15"),
    ],
)
def test_a_clock_s_time_is_stored(typed: str, zone: str, which: str, stored: str) -> None:
    moment = zones.moment(datetime.fromisoformat(typed), zone, field="starts_at", which=which)
    assert moment == utc(stored)
    assert zones.which([moment, None], zone) == which


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("2030-10-27T02:00", "02:00 comes twice on that day"),
        ("2030-10-27T02:59", "comes twice"),
        (
            "2030-03-31T02:00",
            "There is no 02:00 on that day in Europe/Berlin: the clocks go forward by 60 m",
        ),
        ("2030-03-31T02:59", "There is no 02:59"),
        ("2019-12-31T23:59", "between 2020 and 2100"),
        ("2101-01-01T00:00", "between 2020 and 2100"),
        ("0001-01-01T00:00", "between 2020 and 2100"),
        ("9999-12-31T23:59", "between 2020 and 2100"),
    ],
)
def test_what_no_clock_shows_once_is_asked_about(typed: str, words: str) -> None:
    with pytest.raises(DomainError) as refused:
        zones.moment(datetime.fromisoformat(typed), BERLIN, field="ends_at")
    assert refused.value.code == "ends_at" and words in refused.value.message


def test_a_zone_that_changes_moves_the_windows_of_its_types(app: Flask) -> None:
    event = make_event(timezone=BERLIN)
    kind = event.ticket_types[0]
    kind.sales_open_at, kind.sales_close_at = utc("2026-12-24T17:00"), utc("2027-07-01T10:00")
    db.session.commit()
    events.update_event(event, timezone="Asia/Tokyo")
    db.session.expire_all()
    # 18:00 and 12:00 on the wall, there as here.
    assert kind.sales_open_at == utc("2026-12-24T09:00")
    assert kind.sales_close_at == utc("2027-07-01T03:00")


@pytest.fixture
def olga(app: Flask) -> FlaskClient:
    user = make_member("olga@example.org", Role.ORGANISER)
    organisers.edit(user, {"name": "Olga’s Hall", "contact_email": "olga@example.org"})
    browser = app.test_client()
    log_in(browser, "olga@example.org")
    return browser


def newest() -> Event:
    db.session.expire_all()
    return db.session.query(Event).order_by(Event.id.desc()).limit(1).one()


def test_an_event_in_the_repeated_hour_is_asked_about_and_kept(olga: FlaskClient) -> None:
    new = "/organiser/events/new"
    assert 'name="twice"' not in olga.get(new).text
    assert '<option value="Europe/Jersey">Jersey</option>' in olga.get(new).text
    asked = post(olga, new, **(TYPED | NIGHT))
    assert asked.status_code == 400 and "02:30 comes twice" in asked.text and 'name="twice"' in asked.text
    assert db.session.query(Event).count() == 0
    assert post(olga, new, **(TYPED | NIGHT), twice="second").status_code == 303
    event = newest()
    assert event.starts_at == utc("2030-10-27T01:30")
    edit = f"/organiser/events/{event.slug}/edit"
    assert '<option selected value="second">' in olga.get(edit).text
    assert post(olga, edit, **(TYPED | NIGHT | {"title": "Ball"}), twice="second").status_code == 303
    assert newest().starts_at == utc("2030-10-27T01:30")


def test_a_ticket_s_sale_in_the_skipped_hour_is_refused(olga: FlaskClient) -> None:
    post(olga, "/organiser/events/new", **TYPED)
    fields = {"name": "Adult", "price": "25", "capacity": "10", "per_order_limit": "6", "position": "0"}
    path = f"/organiser/events/{newest().slug}/types/new"
    answer = post(olga, path, **fields, sales_open_at="2030-03-31T02:15")
    assert answer.status_code == 400 and "There is no 02:15" in answer.text
    answer = post(olga, path, **fields, sales_open_at="20300-03-31T02:15")
    assert answer.status_code == 400
    assert db.session.query(TicketType).count() == 0


def test_the_admin_s_records_ask_alike(app: Flask) -> None:
    make_member("boss@example.org", Role.ADMIN)
    boss = app.test_client()
    log_in(boss, "boss@example.org")
    new = "/admin/records/events/new/"
    asked = post(boss, new, **(TYPED | NIGHT), state="draft")
    assert "02:30 comes twice" in asked.text and 'name="twice"' in asked.text
    assert post(boss, new, **(TYPED | NIGHT), state="draft", twice="first").status_code == 302
    assert newest().starts_at == utc("2030-10-27T00:30")


def test_an_event_keeps_a_zone_that_is_not_listed(olga: FlaskClient) -> None:
    post(olga, "/organiser/events/new", **TYPED)
    event = newest()
    event.timezone = "US/Eastern"
    db.session.commit()
    page = olga.get(f"/organiser/events/{event.slug}/edit").text
    assert '<option selected value="US/Eastern">US/Eastern</option>' in page


@pytest.mark.parametrize("value", ["localtime", "Factory", "Europe"])
def test_the_house_s_own_zone_is_one(environ: dict[str, str], value: str) -> None:
    with pytest.raises(config.ConfigError, match="TIMEZONE must be a time zone"):
        config.load({**environ, "TIMEZONE": value})
