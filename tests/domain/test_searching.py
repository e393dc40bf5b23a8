"""Finding orders by their words, however many others there are."""

from __future__ import annotations

import pytest
from flask import Flask
from sqlalchemy import delete, select, update

from domain import searching
from domain.door import check_in
from domain.office import attendees, backfill, overview
from domain.orders import managing
from domain.payments import reconciling, refunds, starting
from extensions import db
from models import Event, Order, OrderWord
from tests.support.sandbox import Sandbox
from tests.support.shop import make_event, place

NAMES = [
    *("Alfa", "Bravo", "Charlie", "Delta", "Echo", "Foxtrot"),
    *("Golf", "Hotel", "India", "Juliett", "Kilo", "Lima"),
]


@pytest.fixture
def many(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Event:
    """An event with a dozen orders, where a dozen is as many as a million is: nothing may be read whole."""
    for name, number in (("_NEAR", 2), ("_FEW", 3), ("_FAR", 5)):
        monkeypatch.setattr(searching, name, number)
    event = make_event(price_minor=0, capacity=100)
    for name in NAMES:
        place(event, name=f"Ben Böhm {name}", email=f"ben.{name}@example.org")
    return event


def found(typed: str, event: Event | None = None, before: int | None = None) -> list[str]:
    rows = overview.orders(typed, event_id=event.id if event else None, before=before).rows
    return [order.name for order in rows]


def test_an_old_order_is_found_by_each_of_its_words(many: Event, sandbox: Sandbox) -> None:
    """What it has from the start, and what comes to it: paid, refunded, its tickets."""
    shop = make_event("gala", price_minor=2350)
    bought = place(shop, name="Zoë O’Hara-Núñez", email="zoe.q@mail.münchen.de")
    payment = starting.open_at_provider(bought)
    assert payment is not None and payment.provider_id is not None
    assert found(payment.provider_id) == [bought.name]
    sandbox.do(payment.provider_id, "pay")
    reconciling.reconcile(payment.id, door="test")
    refunds.request(payment.id, 1050, actor_id=None, reason="Ill")
    for number in range(5):
        place(many, name=f"Vera {number}", email="vera@example.net")
    day = payment.created_at.date().isoformat()
    words = [
        *("zoe", "OHara", "nunez", "O’HARA-NÚÑEZ", "zoe nun"),
        *("zoe.q@mail.münchen.de", "mail.munchen", "münchen.de", "xn--mnchen"),
        *(bought.code, bought.code[4:], bought.code[:-2].lower(), f"{bought.code}-1"),
        *(payment.provider_id, str(payment.charge_id), str(payment.charge_id)[:12]),
        *("23.50", "23,5", "10.50", payment.last_four, f"zoe {day}", f"{day} 23.50"),
        *(bought.tickets[0].code, f"{bought.tickets[0].code[:4]} {bought.tickets[0].code[4:]}"),
    ]
    assert len(payment.last_four) == 4
    assert {typed: found(typed) for typed in words} == dict.fromkeys(words, [bought.name])
    year, month, date = day.split("-")
    assert found(f"zoe {date}.{month}.{year}") == [bought.name] == found(f"zoe {month}/{date}/{year}")
    for other in ("zoex", "hara zoex", "23.51", "zoe 2001-01-01", "zoe 01.02.2001"):
        assert found(other) == [], other


def test_a_corrected_address_finds_and_the_wrong_one_does_not(many: Event) -> None:
    order = place(make_event("gala"), name="Zoë", email="typo@example.net")
    managing.correct_email(order, "zoe@example.org")
    assert found("zoe@example.org") == ["Zoë"] and found("typo") == []
    assert found(f"zoe {order.code}-1") == ["Zoë"]


def test_words_of_many_are_walked_through_from_the_newest(many: Event) -> None:
    """Bounded: a page looks through so many, says where the next one begins, and leaves nobody out."""
    seen, before, pages = [], None, 0
    while True:
        rows = overview.orders("ben bohm", before=before)
        seen += [order.name for order in rows.rows]
        before, pages = rows.more, pages + 1
        if before is None:
            break
    assert seen == [f"Ben Böhm {name}" for name in reversed(NAMES)] and pages == 3
    # A part of a word is found among the first of the list, as everywhere in a small one.
    assert found("öhm") == ["Ben Böhm Lima", "Ben Böhm Kilo"]
    assert found("ben golf") == ["Ben Böhm Golf"]


def test_an_event_s_lists_find_alike(many: Event) -> None:
    other = make_event("other", price_minor=0)
    mine = place(other, name="Ben Other", email="ben@example.com")
    place(many, name="Cara Last", email="cara@example.org")
    assert found("ben", other) == ["Ben Other"] and found("cara", other) == []
    assert [guest.holder for guest in attendees.find(many, "bohm delta").rows] == ["Ben Böhm Delta"]
    assert [guest.holder for guest in attendees.find(many, "standard bohm delta").rows] == ["Ben Böhm Delta"]
    assert [guest.holder for guest in attendees.find(other, "standard").rows] == ["Ben Other"]
    assert [guest.holder for guest in check_in.search(many, "ben.delta")] == ["Ben Böhm Delta"]
    assert [guest.holder for guest in check_in.search(other, mine.tickets[0].code)] == ["Ben Other"]


def test_orders_of_before_are_found_and_get_their_words(many: Event, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an earlier version wrote them: without words. A job writes them in batches."""
    monkeypatch.setattr(backfill, "BATCH", 5)
    written = set(db.session.execute(select(OrderWord.order_id, OrderWord.word)).tuples())
    db.session.execute(delete(OrderWord))
    db.session.execute(update(Order).values(worded=False))
    db.session.commit()
    assert found("bohm delta") == ["Ben Böhm Delta"]
    assert backfill.run(budget_seconds=0).more
    assert backfill.run().rows["order_words"] == 7 and not backfill.run().rows.total()
    assert set(db.session.execute(select(OrderWord.order_id, OrderWord.word)).tuples()) == written
    assert len(written) > 12 * 5
