"""What sells and why not, and the rules of changing the catalogue."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from io import BytesIO
from typing import Any

import pytest
from flask import Flask
from PIL import Image
from sqlalchemy import select

import config
from domain import clock, money
from domain.catalogue import events, front_page, payees, pictures
from domain.catalogue.availability import Sale
from domain.errors import DomainError, NotFound
from domain.ledger import transfers
from domain.office import demo
from extensions import db
from models import Event, EventState, Order, Picture, TicketType, User
from tests.support.sandbox import free_port
from tests.support.shop import make_event, make_user, place


def _values(**changes: Any) -> dict[str, Any]:
    now = clock.now()
    values = {
        "title": "Été au théâtre",
        "starts_at": now + timedelta(days=3),
        "ends_at": now + timedelta(days=3, hours=2),
        "currency": "EUR",
        "timezone": "Europe/Paris",
    }
    return values | changes


def _png(width: int = 400, height: int = 300, kind: str = "PNG", mode: str = "RGBA") -> bytes:
    out = BytesIO()
    Image.new(mode, (width, height), 0).save(out, kind)
    return out.getvalue()


# --- Selling --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "state", "words"),
    [
        ({"state": EventState.DRAFT}, Sale.DRAFT, "draft"),
        ({"state": EventState.CANCELLED}, Sale.CANCELLED, "was cancelled"),
        ({}, Sale.OPEN, ""),
    ],
)
def test_an_event_sells_by_its_state(app: Flask, changes: dict[str, Any], state: Sale, words: str) -> None:
    selling = events.selling(make_event(**changes))
    assert selling.state is state
    assert words in selling.words


def test_an_event_sells_inside_its_window_and_before_its_end(app: Flask) -> None:
    now = clock.now()
    event = make_event(sales_open_at=now + timedelta(days=1), sales_close_at=now + timedelta(days=2))
    times = {
        now: Sale.NOT_YET,
        now + timedelta(days=1): Sale.OPEN,
        now + timedelta(days=2): Sale.CLOSED,
        event.ends_at: Sale.PAST,
    }
    assert {at: events.selling(event, at).state for at in times} == times


def test_not_yet_says_when_in_the_event_s_own_time(app: Flask) -> None:
    opens_at = clock.now().replace(hour=10, minute=0) + timedelta(days=1)
    event = make_event(sales_open_at=opens_at, timezone="Asia/Tokyo")
    assert "at 19:00" in events.selling(event).words


def test_a_type_s_own_window_decides_for_it_alone(app: Flask) -> None:
    event = make_event()
    opens_at = clock.now() + timedelta(days=1)
    events.add_ticket_type(event, name="Late", price_minor=900, capacity=5, sales_open_at=opens_at)
    selling = events.selling(event)
    assert [kind.state for kind in selling.types] == [Sale.OPEN, Sale.NOT_YET]
    assert selling.is_open
    assert selling.types[1].words.startswith("On sale from ")
    assert selling.types[1].most == 0


def test_the_last_tickets_are_held_then_sold(app: Flask) -> None:
    event = make_event(capacity=2)
    assert events.selling(event).types[0].words == "2 left"
    order = place(event, 2)
    held = events.selling(event)
    assert held.state is Sale.ALL_HELD
    closes_at = order.payments[0].closes_at
    assert closes_at is not None
    assert "in other people's baskets" in held.words
    assert "Try again at " in held.words or "Try again on " in held.words
    kind = event.ticket_types[0]
    kind.held, kind.sold = 0, 2
    assert events.selling(event).state is Sale.SOLD_OUT


def test_a_hold_that_is_overdue_promises_no_time(app: Flask) -> None:
    event = make_event(capacity=1)
    place(event)
    later = clock.now() + timedelta(hours=2)
    assert "in a few minutes" in events.selling(event, later).words


def test_no_more_than_the_limit_or_what_is_left(app: Flask) -> None:
    assert events.selling(make_event(capacity=50, limit=4)).types[0].most == 4
    assert events.selling(make_event("small", capacity=3, limit=4)).types[0].most == 3


def test_without_a_provider_only_free_tickets_sell(app: Flask) -> None:
    no_sumup = replace(config.get(), sumup_api_key="", sumup_client_id="", sumup_client_secret="")
    config.use(replace(no_sumup, stripe_secret_key=""))
    event = make_event()
    assert events.selling(event).state is Sale.PAYMENTS_OFF
    assert config.get().support_email in events.selling(event).words
    assert events.ways_to_pay(event) == ()
    events.add_ticket_type(event, name="Free", price_minor=0, capacity=5)
    selling = events.selling(event)
    assert selling.is_open
    assert not selling.costs_money


def test_an_event_without_ticket_types_waits(app: Flask) -> None:
    event = events.create_event(**_values(state=EventState.PUBLISHED))
    assert events.selling(event).state is Sale.NOTHING


# --- Ways to pay ----------------------------------------------------------------------------------------


def _give(user: User, amount_minor: int, currency: str) -> None:
    wallet = transfers.wallet_of(user.id, currency)
    transfers.post(
        key=f"gift:{user.id}:{currency}",
        debit=transfers.PLATFORM,
        credit=wallet.account,
        amount_minor=amount_minor,
        currency=currency,
        kind="adjustment",
    )
    db.session.commit()


def test_the_wallet_is_offered_to_whom_it_can_help(app: Flask) -> None:
    event, user = make_event(price_minor=2500, providers=["stripe"]), make_user()
    assert [way.name for way in events.ways_to_pay(event)] == ["stripe"]
    assert [way.name for way in events.ways_to_pay(event, user)] == ["stripe"]
    _give(user, 2499, "EUR")
    assert [way.name for way in events.ways_to_pay(event, user)] == ["stripe"]
    _give(user, 9000, "AED")
    assert [way.name for way in events.ways_to_pay(event, user)] == ["stripe"]
    rich = make_user("rich@example.org")
    _give(rich, 2500, "EUR")
    ways = events.ways_to_pay(event, rich)
    assert [(way.name, way.balance_minor) for way in ways] == [("stripe", None), ("wallet", 2500)]


# --- The list -------------------------------------------------------------------------------------------


def test_the_list_has_what_is_published_and_not_over_the_next_first(app: Flask) -> None:
    now = clock.now()
    make_event("later", starts_at=now + timedelta(days=40), ends_at=now + timedelta(days=41))
    make_event("sooner")
    make_event("draft", state=EventState.DRAFT)
    make_event("cancelled", state=EventState.CANCELLED)
    make_event("over", starts_at=now - timedelta(days=2), ends_at=now - timedelta(days=1))
    make_event("running", starts_at=now - timedelta(hours=1))
    assert [listing.event.slug for listing in front_page.upcoming()] == ["running", "sooner", "later"]


def test_the_list_tells_the_lowest_price_that_can_be_had(app: Flask) -> None:
    event = make_event(price_minor=2500)
    cheap = events.add_ticket_type(event, name="Cheap", price_minor=900, capacity=5)
    assert (front_page.upcoming()[0].from_minor, front_page.upcoming()[0].one_price) == (900, False)
    cheap.sold = 5
    db.session.commit()
    assert (front_page.upcoming()[0].from_minor, front_page.upcoming()[0].one_price) == (2500, True)


def test_a_draft_is_not_found_but_by_those_who_may_see_it(app: Flask) -> None:
    make_event(state=EventState.DRAFT)
    with pytest.raises(NotFound):
        events.event("concert")
    with pytest.raises(NotFound):
        events.event("another")
    assert events.event("concert", drafts=True).slug == "concert"


# --- Events ---------------------------------------------------------------------------------------------


def test_a_slug_is_made_from_the_title_and_is_free(app: Flask) -> None:
    slugs = [events.create_event(**_values()).slug for _ in range(3)]
    assert slugs == ["ete-au-theatre", "ete-au-theatre-2", "ete-au-theatre-3"]
    assert events.create_event(**_values(title="音楽会")).slug == "event"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"title": "  "}, "title"),
        ({"title": "x" * 201}, "title"),
        ({"slug": "Summer Gala"}, "slug"),
        ({"slug": "taken"}, "slug"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"timezone": ""}, "timezone"),
        ({"currency": "XQX"}, "unknown_currency"),
        ({"currency": "UGX"}, "blocked_currency"),
        ({"providers": ["barter"]}, "unknown_provider"),
        ({"providers": []}, "providers"),
        ({"venue": "x" * 201}, "venue"),
    ],
)
def test_an_event_that_cannot_be_is_refused_in_words(app: Flask, changes: dict[str, Any], code: str) -> None:
    make_event("taken")
    with pytest.raises(DomainError) as refused:
        events.create_event(**_values(**changes))
    assert refused.value.code == code
    assert refused.value.message
    db.session.rollback()
    assert db.session.query(Event).count() == 1


def test_it_ends_after_it_starts_and_closes_after_it_opens(app: Flask) -> None:
    now = clock.now()
    with pytest.raises(DomainError, match="end after it starts"):
        events.create_event(**_values(ends_at=now))
    window = {"sales_open_at": now + timedelta(days=1), "sales_close_at": now}
    with pytest.raises(DomainError, match="close after they open"):
        events.create_event(**_values(**window))


def test_the_currency_is_fixed_by_the_first_order(app: Flask) -> None:
    event = make_event()
    events.update_event(event, currency="gbp")
    assert event.currency == "GBP"
    place(event)
    with pytest.raises(DomainError, match="stays GBP") as refused:
        events.update_event(event, currency="EUR", title="Another")
    assert refused.value.code == "currency"
    db.session.expire_all()
    assert (event.currency, event.title) == ("GBP", "Concert")


def test_an_event_with_orders_cannot_hide_or_vanish_but_be_cancelled(app: Flask) -> None:
    event = make_event()
    place(event)
    with pytest.raises(DomainError, match="need this page"):
        events.update_event(event, state=EventState.DRAFT)
    with pytest.raises(DomainError, match="stays on record"):
        events.delete_event(event)
    with pytest.raises(DomainError, match="stays on record"):
        events.delete_ticket_type(event.ticket_types[0])
    assert events.cancel_event(event).state is EventState.CANCELLED
    assert db.session.query(Order).count() == 1


def test_what_nobody_ordered_can_be_deleted_with_its_picture(app: Flask) -> None:
    event = make_event()
    events.set_picture(event, _png())
    events.delete_event(event)
    assert [db.session.query(table).count() for table in (Event, TicketType, Picture)] == [0, 0, 0]


def test_an_unknown_column_is_the_programmer_s_mistake(app: Flask) -> None:
    with pytest.raises(TypeError, match="id"):
        events.update_event(make_event(), id=7)


# --- Ticket types ---------------------------------------------------------------------------------------


def test_the_capacity_never_falls_below_what_is_sold_and_held(app: Flask) -> None:
    event = make_event(capacity=10)
    place(event, 3)
    kind = event.ticket_types[0]
    assert events.update_ticket_type(kind, capacity=3).capacity == 3
    with pytest.raises(DomainError, match="cannot be below 3: 0 are sold and 3 held"):
        events.update_ticket_type(kind, capacity=2)
    db.session.expire_all()
    assert kind.capacity == 3


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"name": " "}, "name"),
        ({"price_minor": -1}, "price_minor"),
        ({"price_minor": 49}, "price_minor"),
        ({"price_minor": money.MAX_MINOR + 1}, "price_minor"),
        ({"capacity": -1}, "capacity"),
        ({"per_order_limit": 0}, "per_order_limit"),
        ({"per_order_limit": 101}, "per_order_limit"),
    ],
)
def test_a_ticket_type_that_cannot_be_is_refused(app: Flask, changes: dict[str, Any], code: str) -> None:
    event = make_event()
    values: dict[str, Any] = {"name": "Seat", "price_minor": 1000, "capacity": 5} | changes
    with pytest.raises(DomainError) as refused:
        events.add_ticket_type(event, **values)
    assert refused.value.code == code
    db.session.rollback()
    assert db.session.query(TicketType).count() == 1


def test_a_price_fits_its_currency_also_when_that_changes(app: Flask) -> None:
    event = make_event(price_minor=1234, currency="EUR")
    with pytest.raises(DomainError, match="end the amount with a zero"):
        events.update_event(event, currency="KWD")
    assert events.update_event(event, currency="USD").currency == "USD"


def test_ticket_types_keep_the_order_they_were_made_in(app: Flask) -> None:
    event = events.create_event(**_values())
    for name in ("Adult", "Child", "Dog"):
        events.add_ticket_type(event, name=name, price_minor=0, capacity=1)
    db.session.expire_all()
    assert [kind.name for kind in event.ticket_types] == ["Adult", "Child", "Dog"]


# --- Pictures -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "mode"), [("PNG", "RGBA"), ("PNG", "P"), ("JPEG", "CMYK"), ("WEBP", "RGB")])
def test_a_picture_is_drawn_anew_and_smaller(app: Flask, kind: str, mode: str) -> None:
    event = make_event()
    picture = events.set_picture(event, _png(3200, 800, kind, mode))
    assert picture is not None
    assert (picture.width, picture.height, picture.content_type) == (1600, 400, "image/jpeg")
    with Image.open(BytesIO(pictures.find(picture.sha256).data)) as kept:
        assert (kept.format, kept.size) == ("JPEG", (1600, 400))


@pytest.mark.parametrize(
    "data",
    [b"", b"<svg/>", b"GIF89a", b"\x89PNG\r\n\x1a\nrubbish", b"\0" * (pictures.MAX_BYTES + 1)],
    ids=["nothing", "svg", "gif", "rubbish", "too large"],
)
def test_what_is_not_a_picture_is_refused(app: Flask, data: bytes) -> None:
    event = make_event()
    with pytest.raises(DomainError) as refused:
        events.set_picture(event, data)
    assert refused.value.code == "picture"


def test_a_picture_with_too_many_pixels_is_refused_unread(app: Flask) -> None:
    with pytest.raises(DomainError, match="too many pixels"):
        pictures.store(_png(5001, 5000, mode="1"))
    with pytest.raises(DomainError, match="at most 12 million"):
        pictures.store(_png(4001, 3000, "WEBP", "RGB"))


def test_a_picture_taken_sideways_is_turned(app: Flask) -> None:
    out, exif = BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (3200, 800), (255, 0, 0)).save(out, "JPEG", exif=exif)
    picture = pictures.store(out.getvalue())
    assert (picture.width, picture.height) == (400, 1600)


_UNPACK = """
import io, resource, sys
from PIL import Image
from domain.catalogue import pictures
out = io.BytesIO()
Image.new("1", (5000, 5000)).save(out, "PNG")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
pictures._encode(out.getvalue())
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_a_large_picture_is_made_smaller_piece_by_piece() -> None:
    done = subprocess.run([sys.executable, "-c", _UNPACK], capture_output=True, text=True, check=True)
    # In colours it would be 100 MB, and was held twice.
    assert int(done.stdout) < 90


def test_a_picture_goes_when_no_event_shows_it(app: Flask) -> None:
    one, two = make_event("one"), make_event("two")
    events.set_picture(one, _png(10, 10))
    events.set_picture(two, _png(10, 10))
    assert db.session.query(Picture).count() == 1
    events.set_picture(one, _png(20, 10))
    assert db.session.query(Picture).count() == 2
    events.set_picture(two, None)
    assert db.session.scalars(select(Picture.width)).all() == [20]


# --- The demo -------------------------------------------------------------------------------------------


def test_the_demo_is_made_once_and_has_a_full_house(app: Flask) -> None:
    demo.seed()
    counts = [db.session.query(table).count() for table in (User, Event, TicketType, Order, Picture)]
    demo.seed()
    assert [db.session.query(table).count() for table in (User, Event, TicketType, Order, Picture)] == counts
    listings = {listing.event.slug: listing for listing in front_page.upcoming()}
    assert listings["lighthouse-walk"].state is Sale.SOLD_OUT
    assert listings["lantern-night"].state is Sale.OPEN
    assert len({listing.event.currency for listing in listings.values()}) >= 4
    kinds = listings["harbour-open"].event.ticket_types
    told = [(kind.price_minor, kind.priced_in, kind.capacity - kind.sold) for kind in kinds]
    assert told == [(0, "EUR", 21), (2500, "EUR", 1), (900000, "KZT", 32)]
    organiser = listings["pier-session"].event.organiser
    assert organiser is not None and organiser.name == "Pier Nine Sessions"
    owner = listings["pier-session"].event.organiser_id
    assert payees.receiver("sumup", owner) == "MPIERNIN"


def test_the_demo_is_made_beside_a_silent_sandbox(app: Flask) -> None:
    config.use(replace(config.get(), sumup_api_base=f"http://127.0.0.1:{free_port()}/sumup"))
    demo.seed()
    listings = {listing.event.slug: listing for listing in front_page.upcoming()}
    assert listings["pier-session"].state is Sale.OPEN
    assert listings["pier-session"].event.organiser_id is None


def test_a_demo_event_is_made_and_changed(app: Flask) -> None:
    made = demo.event("gig", capacity=5, price_minor=1000, currency="eur", provider="stripe")
    assert (made.providers, made.ticket_types[0].capacity) == (["stripe"], 5)
    again = demo.event("gig", capacity=9, price_minor=500, currency="JPY")
    assert (again.id, again.currency, again.providers) == (made.id, "JPY", None)
    assert [(kind.price_minor, kind.capacity) for kind in again.ticket_types] == [(500, 9)]


def test_production_has_no_demo(app: Flask) -> None:
    config.use(replace(config.get(), development=False))
    for make in (demo.seed, lambda: demo.event("gig", capacity=1, price_minor=0, currency="EUR")):
        with pytest.raises(DomainError, match="development only"):
            make()


def test_the_demo_command_refuses_a_currency_that_nobody_pays_with(app: Flask) -> None:
    arguments = ["demo", "event", "--slug", "gig", "--currency", "XXX"]
    done = app.test_cli_runner().invoke(args=arguments)
    assert done.exit_code == 1
    assert "“XXX” is not a currency that people pay with" in done.output
    assert db.session.scalars(select(Event)).all() == []
