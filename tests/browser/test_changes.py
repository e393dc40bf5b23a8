"""What changes under an open page: a price while somebody orders, the date of what is sold."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from domain.catalogue import events
from domain.office import demo
from domain.orders import moved_events
from domain.people import accounts
from extensions import db
from models import Event, TicketType
from tests.browser.house import House
from tests.browser.visitor import Visitor
from tests.support.shop import make_event

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser-office")]
Visit = Callable[..., Visitor]


def reprice(event_id: int, price_minor: int) -> None:
    db.session.rollback()
    kind = db.session.query(TicketType).filter_by(event_id=event_id).one()
    events.update_ticket_type(kind, price_minor=price_minor)


def test_nobody_pays_another_price_than_they_saw(house: House, visit: Visit) -> None:
    event_id = make_event("tides", price_minor=2000).id
    guest = visit()
    guest.go("/events/tides")
    guest.page.get_by_label("Your name").fill("Pia Price")
    guest.page.get_by_label("E-mail").fill("pia@example.org")
    reprice(event_id, 2400)
    guest.foresee("409")
    guest.press("Continue to payment")
    guest.see(re.compile("It is now: Standard €24.00"))
    expect(guest.page.locator("#total")).to_have_text("Total €24.00")
    guest.look("event-price-changed")
    guest.press("Continue to payment")
    guest.page.get_by_role("link", name=re.compile("^Cancel and return")).click()
    guest.press("Cancel this order")
    guest.see("This order was cancelled")
    reprice(event_id, 3000)
    guest.page.reload()
    guest.see(re.compile("Standard cost €24.00 and costs €30.00 now"))
    guest.look("order-price-changed")
    guest.press("Order again for €30.00")
    guest.pay()
    guest.see(re.compile("You’re going to"))


def test_who_moves_what_is_sold_agrees_to_tell_them(house: House, visit: Visit) -> None:
    owner = accounts.find("organiser@example.org")
    assert owner is not None
    event_id = make_event("harbour", organiser_id=owner.id, price_minor=0).id
    guest, organiser = visit(), visit()
    guest.go("/events/harbour")
    guest.page.get_by_label("Standard", exact=True).fill("2")
    guest.page.get_by_label("Your name").fill("Moe Moved")
    guest.page.get_by_label("E-mail").fill("moe@example.org")
    guest.press("Get tickets")
    guest.see(re.compile("You’re going to"))
    organiser.log_in("organiser@example.org", demo.PASSWORD)
    organiser.go("/organiser/events/harbour/edit")
    organiser.look("organiser-edit")
    organiser.page.get_by_label("Venue", exact=True).fill("Pier Ten")
    organiser.foresee("400")
    organiser.press("Save")
    organiser.see(re.compile("2 tickets are out, in 1 order"))
    organiser.look("organiser-moves")
    organiser.page.get_by_label("Tell them by mail").check()
    organiser.press("Save")
    organiser.see("The event is saved.")
    db.session.rollback()
    moved_events.tell_holders()
    mail = house.mail("moe@example.org", "Changed")
    assert "Pier Ten" in mail["text"]
    assert any(part["name"] == "event.ics" for part in mail["attachments"])
    assert db.session.get_one(Event, event_id).calendar_sequence == 1
