"""Finding people however they are spelled, and bringing older rows into today's forms."""

from __future__ import annotations

import pytest
from flask import Flask
from sqlalchemy import update

from domain import folding
from domain.door import check_in
from domain.office import attendees, backfill, doctor, overview
from domain.people import accounts
from extensions import db
from models import Agent, DoorPass, Event, Order, Organiser, Role, TicketType, User
from tests.support.people import PASSWORD, log_in, make_member
from tests.support.shop import make_event, place

# A name as it is kept, and how it is looked for.
FOUND = [
    ("José Núñez", "jose nunez"),
    ("Jose Nunez", "JOSÉ NÚÑEZ"),
    ("Zoë Quist", "zoe\u0308"),
    ("Siobhán O’Brien", "o'brien"),
    ("Siobhan O'Brien", "O’BRIEN"),
    ("Siobhan OBrien", "o´brien"),
    ("Фёдор Достоевский", "федор"),
    ("Федор Достоевский", "ФЁДОР"),
    ("Straße Müller", "strasse muller"),
    ("Bjørn Łukasz", "bjorn lukasz"),
    ("İbrahim Işık", "ibrahim isik"),
    ("Đặng Thị", "dang thi"),
    ("Nguyễn Văn", "nguyen"),
    ("محمَّد", "محمد"),
    ("O", "o"),
    ("李", "李"),
    ("李明", "李"),
    ("Anne‑Marie", "anne-marie"),
    ("ΣΊΣΥΦΟΣ", "σίσυφος"),
    ("Lindquist", "quist"),
    ("Al Bo", "al"),
]


@pytest.fixture
def event(app: Flask) -> Event:
    return make_event(price_minor=0, capacity=100)


@pytest.mark.parametrize(("name", "typed"), FOUND)
def test_a_name_is_found_however_it_is_spelled(event: Event, name: str, typed: str) -> None:
    """At the door, among the attendees, and in the back office alike."""
    order = place(event, name=name)
    place(event, name="Vera Unrelated", email="vera@example.net")
    assert [guest.holder for guest in check_in.search(event, typed)] == [name]
    assert [found.holder for found in attendees.find(event, typed).rows] == [name]
    assert [found.id for found in overview.orders(typed).rows] == [order.id]


@pytest.mark.parametrize("typed", ["", " ", "'", "\u0301", "\u200b"])
def test_nothing_typed_finds_nobody_at_the_door(event: Event, typed: str) -> None:
    place(event)
    assert check_in.search(event, typed) == []
    assert len(overview.orders(typed).rows) == 1


def test_an_address_is_found_in_both_its_spellings(event: Event) -> None:
    order = place(event, email="info@münchen.de")
    for typed in ("münchen.de", "munchen", "info@xn--mnchen-3ya.de", "INFO@MÜNCHEN.DE"):
        assert [found.id for found in overview.orders(typed).rows] == [order.id], typed


def test_the_records_are_searched_alike(app: Flask) -> None:
    accounts.create("jose@example.org", PASSWORD, name="José Núñez")
    event = make_event(title="Ёлка d’Été", venue="Café Łódź")
    db.session.add(Agent(slug="fax", name="Télécopie", price_minor=100, currency="EUR", service="qr_code"))
    event.ticket_types[0].name = "Früh"
    keep = {"token": "t", "pin_hash": "x", "created_at": event.created_at, "expires_at": event.ends_at}
    db.session.add(DoorPass(event=event, label="Südtor", **keep))
    db.session.commit()
    make_member("boss@example.org", Role.ADMIN)
    boss = app.test_client()
    log_in(boss, "boss@example.org")
    for kind, typed, shown in (
        ("users", "jose+nunez", "José Núñez"),
        ("events", "елка+ete", "Ёлка"),
        ("events", "cafe+lodz", "Ёлка"),
        ("ticket-types", "fruh", "Früh"),
        ("ticket-types", "ЕЛКА", "Früh"),
        ("agents", "telecopie", "Télécopie"),
        ("door-passes", "sudtor", "Südtor"),
    ):
        assert shown in boss.get(f"/admin/records/{kind}/?search={typed}").text, (kind, typed)
        assert shown not in boss.get(f"/admin/records/{kind}/?search={typed}+xyzzy").text


def test_what_changes_is_found_by_its_new_name(event: Event) -> None:
    event.title = "Fête"
    db.session.commit()
    assert event.folded is not None and " fete" in event.folded


# --- Older rows -----------------------------------------------------------------------------------------


def as_before(*rows: User | Order) -> None:
    """Rows as the version before wrote them: without what is searched, and not in a session."""
    for row in rows:
        kind = type(row)
        db.session.execute(update(kind).where(kind.id == row.id).values(folded=None))
    db.session.commit()
    db.session.expire_all()


def rename(user: User, address: str) -> None:
    db.session.execute(update(User).where(User.id == user.id).values(email=address))
    as_before(user)


def test_older_rows_are_found_and_then_folded(event: Event) -> None:
    order = place(event, name="José", email="info@example.org")
    db.session.execute(update(Order).values(email="info@münchen.de"))
    as_before(order)
    assert [found.id for found in overview.orders("JOSÉ").rows] == [order.id]
    assert backfill.run().rows["orders"] == 1
    assert order.email == "info@xn--mnchen-3ya.de" and order.folded == (
        f" jose info@xn--mnchen-3ya.de {order.code.lower()} info@munchen.de"
    )
    assert backfill.run().rows.total() == 0


def test_older_rows_are_renewed_in_batches(event: Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backfill, "BATCH", 2)
    as_before(*(place(event) for _ in range(5)))
    assert backfill.run(budget_seconds=0).more
    assert backfill.run().rows["orders"] == 3
    assert db.session.query(Order).filter(Order.folded.is_(None)).count() == 0


def test_an_older_account_is_brought_into_the_form(app: Flask) -> None:
    user, organiser = make_member("old@example.org"), make_member("olga@example.org", Role.ORGANISER)
    times = {"created_at": user.created_at, "updated_at": user.created_at}
    db.session.add(Organiser(user_id=organiser.id, name="Olga", contact_email="olga@münchen.de", **times))
    rename(user, "old@münchen.de")
    told = app.test_cli_runner().invoke(args=["backfill"])
    assert told.exit_code == 0 and "users" in told.output and "Two accounts" not in told.output
    db.session.expire_all()
    assert user.email == "old@xn--mnchen-3ya.de" and user.confirmed_at is not None
    assert db.session.query(Organiser).one().contact_email == "olga@xn--mnchen-3ya.de"
    assert accounts.authenticate("old@münchen.de", PASSWORD) is user


def test_an_address_that_was_proven_by_somebody_else_s_mail_is_proven_anew(app: Flask) -> None:
    user = make_member("old@example.org")
    rename(user, "info@straße.de")
    backfill.run()
    db.session.expire_all()
    assert user.email == "info@xn--strae-oqa.de" and user.confirmed_at is None


def test_an_account_with_a_twin_is_proven_anew_too(app: Flask, event: Event) -> None:
    old, new = make_member("old@example.org"), make_member("info@straße.de")
    rename(old, "info@straße.de")
    bought = place(event, email="info@straße.de")
    assert accounts.claim_for(old) == 0
    assert accounts.by_confirmed_email("info@straße.de") is None
    assert accounts.by_confirmed_email("info@xn--strae-oqa.de") is new
    backfill.run()
    db.session.expire_all()
    assert (old.email, old.confirmed_at, old.login_epoch) == ("info@straße.de", None, 1)
    assert new.confirmed_at is not None and bought.user_id != old.id
    assert accounts.claim_for(new) == 1


def test_two_accounts_that_become_one_go_on_and_are_told(app: Flask) -> None:
    old, new = make_member("old@example.org"), make_member("info@münchen.de", password="four blue bottles")
    rename(old, "info@münchen.de")
    told = app.test_cli_runner().invoke(args=["backfill"])
    assert f"info@münchen.de (no. {old.id}) and info@xn--mnchen-3ya.de (no. {new.id})" in told.output
    db.session.expire_all()
    assert old.email == "info@münchen.de" and old.folded is not None
    assert accounts.authenticate("info@münchen.de", PASSWORD) is old
    assert accounts.authenticate("info@xn--mnchen-3ya.de", "four blue bottles") is new
    (seen,) = [finding for finding in doctor.findings() if finding.code == "twins"]
    assert seen.state == doctor.WARN and "info@münchen.de" in seen.words
    assert accounts.find("info@xn--mnchen-3ya.de") is new


def test_every_searched_column_is_a_column() -> None:
    for model, columns in folding.SEARCHED.items():
        assert hasattr(model, "folded") and all(hasattr(model, name) for name in columns)
    assert TicketType in folding.SEARCHED
