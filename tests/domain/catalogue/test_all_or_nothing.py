"""What is made in one step is there whole or not at all; and events are cancelled on their own page."""

from __future__ import annotations

import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from domain.catalogue import events
from domain.errors import DomainError
from domain.office import demo, posters
from domain.orders import event_cancellation, publishing
from extensions import db
from models import Event, EventState, Picture, Role, TicketType
from tests.support.people import log_in, mails, make_member, post
from tests.support.shop import make_event, make_user, place
from tests.support.waiting import until_somebody_waits

ROOT = Path(__file__).parents[3]


def count(table: type[Event] | type[Picture] | type[TicketType]) -> int:
    return db.session.scalars(select(func.count()).select_from(table)).one()


@pytest.fixture
def boss(client: FlaskClient) -> int:
    user = make_member("boss@example.org", Role.ADMIN)
    log_in(client, "boss@example.org")
    return user.id


# --- All or nothing -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        ["--price-minor", "1"],
        ["--price-minor", "99999999999"],
        ["--currency", "KWD", "--price-minor", "1001"],
        ["--capacity", "99999999"],
        ["--currency", "XXX"],
        ["--provider", "nobody"],
        ["--slug", "Not A Slug"],
    ],
)
def test_a_demo_event_that_cannot_be_made_leaves_nothing(app: Flask, wrong: list[str]) -> None:
    run = app.test_cli_runner().invoke(args=["demo", "event", "--slug", "gig", *wrong])
    assert run.exit_code == 1, run.output
    assert (count(Event), count(TicketType)) == (0, 0)
    # And what is right goes on working under the same name.
    done = app.test_cli_runner().invoke(args=["demo", "event", "--slug", "gig", "--provider", "stripe"])
    assert done.exit_code == 0 and done.output.strip().endswith("/events/gig")


@pytest.mark.parametrize(
    "wrong", [["--price-minor", "1"], ["--capacity", "0"], ["--currency", "GBP", "--price-minor", "1"]]
)
def test_a_demo_event_that_cannot_be_changed_stays_as_it_was(app: Flask, wrong: list[str]) -> None:
    event = demo.event("gig", capacity=9, price_minor=2500, currency="EUR")
    place(event)
    run = app.test_cli_runner().invoke(args=["demo", "event", "--slug", "gig", *wrong])
    assert run.exit_code == 1, run.output
    event = db.session.get_one(Event, event.id, populate_existing=True)
    kind = db.session.get_one(TicketType, event.ticket_types[0].id, populate_existing=True)
    assert (event.currency, kind.price_minor, kind.capacity, kind.held) == ("EUR", 2500, 9, 1)


def test_a_demo_event_that_nobody_ordered_is_not_changed_in_part(app: Flask) -> None:
    """Its currency may change, and what it then costs cannot be: neither is."""
    event = demo.event("gig", capacity=9, price_minor=2500, currency="EUR")
    wrong = ["--currency", "GBP", "--price-minor", "1"]
    run = app.test_cli_runner().invoke(args=["demo", "event", "--slug", "gig", *wrong])
    assert run.exit_code == 1, run.output
    event = db.session.get_one(Event, event.id, populate_existing=True)
    assert (event.currency, event.ticket_types[0].price_minor) == ("EUR", 2500)


def test_a_seed_that_dies_half_way_is_finished_by_the_next(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = posters.draw

    def dies(name: str) -> bytes:
        if name == "dunes":
            raise KeyboardInterrupt
        return draw(name)

    monkeypatch.setattr(posters, "draw", dies)
    with pytest.raises(KeyboardInterrupt):
        demo.seed()
    db.session.rollback()
    assert [event.slug for event in db.session.scalars(select(Event))] == ["lantern-night"]
    monkeypatch.setattr(posters, "draw", draw)
    demo.seed()
    demo.seed()
    made = db.session.scalars(select(Event)).all()
    assert len(made) == 8
    assert all(e.picture_id and e.ticket_types and e.state is EventState.PUBLISHED for e in made)
    visited = events.event("lighthouse-walk").ticket_types[0]
    assert (visited.sold, visited.capacity) == (12, 12)


def _form(event: Event | None, **more: Any) -> dict[str, Any]:
    fields = {"title": "Gala", "slug": "gala", "timezone": "UTC", "currency": "EUR", "state": "draft"}
    fields |= {"starts_at": "2030-01-01T19:00", "ends_at": "2030-01-01T21:00"}
    return fields | more


@pytest.mark.parametrize("new", ["/organiser/events/new", "/admin/records/events/new/"])
def test_an_event_whose_picture_is_refused_is_not_there(client: FlaskClient, boss: int, new: str) -> None:
    answer = post(client, new, **_form(None, picture=(BytesIO(b"no picture"), "x.png")))
    assert "not a picture we can read" in answer.text
    assert (count(Event), count(Picture)) == (0, 0)
    good = BytesIO()
    Image.new("RGB", (8, 8)).save(good, "PNG")
    assert post(client, new, **_form(None, picture=(BytesIO(good.getvalue()), "x.png"))).status_code < 400
    assert events.event("gala", drafts=True).picture is not None


def test_a_change_whose_picture_is_refused_changes_nothing(client: FlaskClient, boss: int) -> None:
    event = make_event("gala")
    path = "/organiser/events/gala/edit"
    answer = post(client, path, **_form(event, picture=(BytesIO(b"no picture"), "x.png")))
    assert "not a picture we can read" in answer.text
    assert db.session.get_one(Event, event.id, populate_existing=True).timezone == "Europe/Jersey"


# --- Cancelled ------------------------------------------------------------------------------------------


def test_no_record_cancels_an_event(client: FlaskClient, boss: int) -> None:
    event = make_event("gala", price_minor=0)
    place(event)
    path = f"/admin/records/events/edit/?id={event.id}"
    page = client.get(path).text
    assert 'value="cancelled"' not in page and 'value="review"' not in page
    assert "/organiser/events/gala/cancel" in page
    times = {
        "starts_at": f"{event.starts_at:%Y-%m-%dT%H:%M}",
        "ends_at": f"{event.ends_at:%Y-%m-%dT%H:%M}",
        "timezone": "UTC",
    }
    fields = _form(event, title="Other", venue=event.venue, **times)
    assert post(client, path, **(fields | {"state": "cancelled", "moves": "y"})).status_code == 200
    assert db.session.get_one(Event, event.id, populate_existing=True).state is EventState.PUBLISHED
    new = post(client, "/admin/records/events/new/", **_form(None, slug="new", state="cancelled"))
    assert new.status_code == 200 and count(Event) == 1


def test_no_rule_is_gone_round_by_another_way_in(app: Flask) -> None:
    event = make_event()
    off = EventState.CANCELLED
    now: dict[str, Any] = {"starts_at": event.starts_at, "ends_at": event.ends_at, "state": off}
    with pytest.raises(DomainError, match="Cancel it on the page"):
        events.update_event(event, state=off)
    with pytest.raises(DomainError, match="Cancel it on the page"):
        publishing.change_record(event, state=off)
    with pytest.raises(DomainError, match="Cancel it on the page"):
        events.create_event(title="X", currency="EUR", **now)
    assert db.session.get_one(Event, event.id, populate_existing=True).state is EventState.PUBLISHED


def test_what_was_cancelled_stays_so(app: Flask) -> None:
    """Its buyers were told. A record that shows it as it is can still be saved."""
    event = make_event()
    event_cancellation.cancel(event, refund=False, actor_id=make_user("boss@example.org", Role.ADMIN).id)
    for state in (EventState.PUBLISHED, EventState.DRAFT, EventState.REVIEW):
        with pytest.raises(DomainError, match="stays cancelled"):
            events.update_event(event, state=state)
    events.update_event(event, state=EventState.CANCELLED, description="Sorry")
    assert mails("event_cancelled") == []


def test_only_two_pages_set_the_state(app: Flask) -> None:
    """Whoever else wrote "cancelled" would leave out the mail, the open pages and the refunds."""
    writes = re.compile(r"(\.state(, [\w.]+)* = |\bstate=).*EventState\.CANCELLED")
    found = {
        path.relative_to(ROOT).as_posix()
        for folder in ("domain", "blueprints")
        for path in (ROOT / folder).rglob("*.py")
        if writes.search(path.read_text(encoding="utf-8"))
    }
    assert found == {"domain/catalogue/events.py", "domain/orders/publishing.py"}


# --- A capacity that changes while somebody buys -----------------------------------------------------------


def _alone(kind: TicketType) -> None:
    events.update_ticket_type(kind, capacity=5)


def _with_its_event(kind: TicketType) -> None:
    events.change_both(kind.event, {}, kind, {"capacity": 5})


LOWER = pytest.mark.parametrize("lower", [_alone, _with_its_event])


def _lower_while_six_are_taken(
    app: Flask, database_url: str, lower: Callable[[TicketType], None]
) -> BaseException | None:
    """Somebody buys six as the organiser sets the capacity to five, having seen none sold."""
    kind_id = make_event(capacity=10).ticket_types[0].id
    db.session.rollback()
    raised: list[BaseException] = []

    def organise() -> None:
        with app.app_context():
            kind = db.session.get_one(TicketType, kind_id)
            assert (kind.sold, kind.held) == (0, 0)
            try:
                lower(kind)
            except (DomainError, IntegrityError) as error:
                raised.append(error)
            finally:
                db.session.rollback()
                db.session.remove()

    with psycopg.connect(database_url) as buyer:
        buyer.execute("UPDATE ticket_types SET held = held + 6 WHERE id = %s", (kind_id,))
        organiser = Thread(target=organise)
        organiser.start()
        until_somebody_waits(buyer)
        buyer.commit()
        organiser.join(30)
    assert db.session.get_one(TicketType, kind_id, populate_existing=True).capacity == 10
    return raised[0] if raised else None


@LOWER
def test_a_capacity_is_compared_with_what_is_sold_now(
    app: Flask, database_url: str, lower: Callable[[TicketType], None]
) -> None:
    error = _lower_while_six_are_taken(app, database_url, lower)
    assert isinstance(error, DomainError) and "cannot be below 6" in error.message


@LOWER
def test_without_the_lock_only_the_constraint_says_no(
    app: Flask, database_url: str, lower: Callable[[TicketType], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control of the test above."""
    session = db.session()
    monkeypatch.setattr(type(session), "refresh", lambda *_, **__: None)
    assert isinstance(_lower_while_six_are_taken(app, database_url, lower), IntegrityError)
