"""An event that moves: its organiser hears how many hold tickets, and they are told once, with a new file."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from icalendar import Calendar
from sqlalchemy import select

import worker
from domain.catalogue import events
from domain.door import staff
from domain.errors import DomainError
from domain.orders import event_cancellation, moved_events, placing
from domain.post.mail_kinds import compose
from domain.sweep import sweeping
from domain.tickets import documents
from extensions import db
from models import Event, Order, Role
from tests.support.people import log_in, mails, make_member, post
from tests.support.shop import make_event, make_user, place, settled

LATER = timedelta(days=7)


def sold(**more: Any) -> Event:
    """A published event with two orders, of three tickets in all, and one that is not paid."""
    event = make_event(price_minor=0, **more)
    place(event, 2, email="ada@example.org")
    place(event, 1, email="bea@example.org")
    paid = events.add_ticket_type(event, name="Seat", price_minor=900, capacity=9)
    placing.place(event, {paid.id: 1}, name="Una", email="unpaid@example.org", provider="stripe")
    return db.session.get_one(Event, event.id, populate_existing=True)


def later(event: Event) -> dict[str, Any]:
    return {"starts_at": event.starts_at + LATER, "ends_at": event.ends_at + LATER}


def entry(file: bytes) -> dict[str, Any]:
    """The event in a calendar file."""
    (found,) = Calendar.from_ical(file.decode()).walk("VEVENT")
    return dict(found)


def told() -> list[str]:
    moved_events.tell_holders()
    return sorted(mail.to for mail in mails("event_moved"))


def test_who_holds_a_ticket_is_told_once_with_a_new_calendar_file(app: Flask) -> None:
    event = sold()
    order = db.session.scalars(select(Order).filter_by(email="ada@example.org")).one()
    before = entry(documents.calendar(order))
    events.update_event(event, moves=True, venue="Old Ropeworks", **later(event))
    # Who orders now knows the new date already.
    place(event, 1, email="new@example.org")
    assert told() == ["ada@example.org", "bea@example.org"]
    sweeping.run("test")
    assert told() == ["ada@example.org", "bea@example.org"]
    letter = next(compose(mail) for mail in mails("event_moved") if mail.to == "ada@example.org")
    assert letter.subject == "Changed: Concert"
    assert "Where: Old Ropeworks" in letter.text and "(before: Town Hall)" in letter.text
    assert "When: " in letter.text
    (file,) = letter.attachments
    after = entry(file.data)
    assert (file.name, str(after["UID"])) == ("event.ics", str(before["UID"]))
    assert after["SEQUENCE"] > before["SEQUENCE"]
    assert after["DTSTART"].dt == before["DTSTART"].dt + LATER


def test_nothing_moves_before_somebody_agrees_to_tell_them(app: Flask) -> None:
    event = sold()
    starts_at, venue = event.starts_at, event.venue
    elsewhere = [{"venue": "Elsewhere"}, {"address": "1 Road"}, {"timezone": "Asia/Tokyo"}]
    for change in (later(event), *elsewhere):
        with pytest.raises(DomainError, match="3 tickets are out, in 2 orders") as refused:
            events.change_both(event, dict(change))
        assert refused.value.code == "moves"
    db.session.refresh(event)
    assert (event.starts_at, event.venue, event.calendar_sequence) == (starts_at, venue, 0)
    assert told() == []


def test_what_moves_nobody_needs_no_word(app: Flask) -> None:
    """Another title, a date nobody knows yet, an event that is over: nobody has to be told."""
    event = sold()
    # Within the minute that was told.
    events.update_event(event, title="Other", starts_at=event.starts_at.replace(second=30))
    empty = make_event("empty")
    events.update_event(empty, **later(empty))
    over = make_event("over", price_minor=0)
    place(over)
    over.starts_at, over.ends_at = over.starts_at - 9 * LATER, over.ends_at - 9 * LATER
    db.session.commit()
    events.update_event(over, starts_at=over.starts_at - LATER, ends_at=over.ends_at - LATER)
    assert told() == []


def test_each_move_is_told_and_two_at_once_are_one_mail(app: Flask) -> None:
    event = sold()
    events.update_event(event, moves=True, venue="First")
    events.update_event(event, moves=True, venue="Second")
    assert len(told()) == 2
    assert "(before: Town Hall)" in compose(mails("event_moved")[0]).text
    events.update_event(event, moves=True, venue="Third")
    assert len(told()) == 4
    assert "(before: Second)" in compose(mails("event_moved")[-1]).text


def test_a_job_tells_them_at_once(app: Flask) -> None:
    event = sold()
    events.update_event(event, moves=True, venue="Elsewhere")
    worker.moved_events()
    assert len(mails("event_moved")) == 2


def test_who_paid_for_the_old_date_is_told_when_the_ticket_is_there(app: Flask) -> None:
    """The order was made before the event moved, and paid afterwards."""
    event = sold()
    order = db.session.scalars(select(Order).filter_by(email="unpaid@example.org")).one()
    events.update_event(event, moves=True, venue="Elsewhere")
    assert "unpaid@example.org" not in told()
    settled(order, "open", "paid")
    assert "unpaid@example.org" in told()


def test_a_cancelled_event_moves_nobody(app: Flask) -> None:
    event = sold()
    events.update_event(event, moves=True, venue="Elsewhere")
    event_cancellation.cancel(event, refund=False, actor_id=make_user("boss@example.org", Role.ADMIN).id)
    assert told() == []
    event_cancellation.tell_holders()
    assert entry(compose(mails("event_cancelled")[0]).attachments[0].data)["STATUS"] == "CANCELLED"
    assert "STATUS:CANCELLED" in documents.calendar(event).decode()


@pytest.mark.parametrize("page", ["organiser", "records"])
def test_the_forms_ask_before_a_sold_event_moves(client: FlaskClient, page: str) -> None:
    make_member("boss@example.org", Role.ADMIN)
    log_in(client, "boss@example.org")
    event = sold()
    path = {
        "organiser": f"/organiser/events/{event.slug}/edit",
        "records": f"/admin/records/events/edit/?id={event.id}",
    }[page]
    assert 'name="moves"' not in client.get(path).text
    fields = {
        "title": event.title,
        "slug": event.slug,
        "timezone": event.timezone,
        "currency": "EUR",
        "venue": "Elsewhere",
        "starts_at": f"{event.starts_at:%Y-%m-%dT%H:%M}",
        "ends_at": f"{event.ends_at:%Y-%m-%dT%H:%M}",
        "state": "published",
    }
    asked = post(client, path, **fields)
    assert "3 tickets are out, in 2 orders" in asked.text
    assert 'name="moves"' in asked.text and 'value="Elsewhere"' in asked.text
    assert db.session.get_one(Event, event.id, populate_existing=True).venue == "Town Hall"
    done = post(client, path, **fields, moves="y")
    assert done.status_code in (302, 303)
    assert db.session.get_one(Event, event.id, populate_existing=True).venue == "Elsewhere"
    assert told() == ["ada@example.org", "bea@example.org"]


def test_the_doors_links_outlive_an_event_that_is_later(app: Flask) -> None:
    event = make_event()
    kept, _ = staff.make_pass(event, "Front", created_by=None)
    gone, _ = staff.make_pass(event, "Side", created_by=None)
    staff.revoke(event, gone.id)
    until, was = kept.expires_at, gone.expires_at
    events.update_event(event, **later(event))
    db.session.expire_all()
    assert (kept.expires_at, gone.expires_at) == (until + LATER, was)
    # Earlier, it stays: nobody at the door is locked out by a correction.
    events.update_event(event, starts_at=event.starts_at - LATER)
    events.update_event(event, ends_at=event.ends_at - LATER)
    db.session.expire_all()
    assert kept.expires_at == until + LATER
