"""Issuing tickets, and what their QR codes and typed codes are read as."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from flask import Flask
from sqlalchemy.exc import IntegrityError

import config
from domain import codes
from domain.tickets import issuing
from domain.tickets.issuing import ClaimKind
from extensions import db
from models import LineKind, OrderLine, Ticket, TicketState, TicketType
from tests.support import queries
from tests.support.shop import make_event, place


def issued(app: Flask, quantity: int = 3) -> list[Ticket]:
    return issuing.issue(place(make_event(limit=100, capacity=200), quantity))


# --- Issuing --------------------------------------------------------------------------------------------


def test_one_ticket_for_each_unit_numbered_from_one(app: Flask) -> None:
    order = place(make_event(), 2)
    second = TicketType(event_id=order.event_id, name="Balcony", price_minor=0, capacity=5)
    db.session.add(second)
    db.session.flush()
    extra = OrderLine(
        order_id=order.id,
        kind=LineKind.TICKET,
        ticket_type_id=second.id,
        description="Balcony",
        quantity=1,
        unit_minor=0,
    )
    db.session.add(extra)
    db.session.flush()
    db.session.refresh(order)
    made = issuing.issue(order)
    assert [(t.number, t.ticket_type.name, t.holder, t.state) for t in made] == [
        (1, "Standard", "Ada Buyer", TicketState.VALID),
        (2, "Standard", "Ada Buyer", TicketState.VALID),
        (3, "Balcony", "Ada Buyer", TicketState.VALID),
    ]
    assert [t.id for t in order.tickets] == [t.id for t in made]
    assert len({t.code for t in made}) == 3
    assert all(len(t.code) == 8 and set(t.code) <= set(codes.ALPHABET) for t in made)


def test_issuing_twice_is_refused_by_the_database(app: Flask) -> None:
    order = place(make_event())
    issuing.issue(order)
    with pytest.raises(IntegrityError), db.session.begin_nested():
        issuing.issue(order)


def test_the_number_of_queries_does_not_grow_with_the_number_of_tickets(app: Flask) -> None:
    event = make_event(limit=100, capacity=200)
    counts = []
    for quantity in (1, 100):
        order = place(event, quantity)
        assert order.lines
        with queries.recorded() as statements:
            assert len(issuing.issue(order)) == quantity
        counts.append(len(statements))
    assert counts == [1, 1]


def test_a_code_that_is_taken_is_drawn_again(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    event = make_event()
    first = issuing.issue(place(event))[0]
    db.session.commit()
    draws = iter([first.code, "22222222", "33333333", "44444444"])
    monkeypatch.setattr(issuing, "_new_code", lambda: next(draws))
    made = issuing.issue(place(event, 2))
    assert sorted(ticket.code for ticket in made) == ["22222222", "33333333"]
    assert [ticket.number for ticket in made] == [1, 2]


def test_states_change_with_their_reason(app: Flask) -> None:
    one, two, three = issued(app)
    issuing.void([one], "refunded")
    issuing.suspend([two], "disputed")
    db.session.commit()
    found = db.session.query(Ticket).order_by(Ticket.number).all()
    assert [(t.state, t.state_reason) for t in found] == [
        (TicketState.VOID, "refunded"),
        (TicketState.SUSPENDED, "disputed"),
        (TicketState.VALID, ""),
    ]
    issuing.restore([one, two, three])
    assert {(t.state, t.state_reason) for t in found} == {(TicketState.VALID, "")}


# --- The QR text ----------------------------------------------------------------------------------------


def test_the_qr_text_has_the_fixed_form_and_a_signature_of_80_bits(app: Flask) -> None:
    ticket = issued(app)[1]
    text = issuing.qr_text(ticket, ticket.order.code)
    form = rf"TICKET:{ticket.order.code}-2\|ORDER:{ticket.order.code}\|EVENT:{ticket.event_id}\|VALID:(\w+)"
    found = re.fullmatch(form, text)
    assert found is not None
    seal = found[1]
    assert seal.startswith(ticket.code)
    assert len(base64.b32decode(seal.removeprefix(ticket.code))) * 8 == 80


def test_a_genuine_text_is_read_with_all_it_says(app: Flask) -> None:
    ticket = issued(app)[2]
    claim = issuing.read(f" {issuing.qr_text(ticket, ticket.order.code)}\n")
    assert claim.kind is ClaimKind.GENUINE
    assert (claim.order_code, claim.number, claim.event_id, claim.code) == (
        ticket.order.code,
        3,
        ticket.event_id,
        ticket.code,
    )


def test_changing_any_one_character_is_never_genuine(app: Flask) -> None:
    """Forged where the text is still whole; one that is not whole may be a genuine ticket, badly scanned."""
    ticket = issued(app)[0]
    text = issuing.qr_text(ticket, ticket.order.code)
    seal = text.index("VALID:") + len("VALID:")
    for place_, char in enumerate(text[len("TICKET:") :], start=len("TICKET:")):
        for other in {"A", "7", "2"} - {char}:
            changed = text[:place_] + other + text[place_ + 1 :]
            kind = issuing.read(changed).kind
            assert kind in (ClaimKind.FORGED, ClaimKind.UNREADABLE), changed
            if place_ >= seal:
                assert kind is ClaimKind.FORGED, changed


AS_TYPED: dict[str, Callable[[str], str]] = {
    "lower": str.lower,
    "swapped": str.swapcase,
    "aim": lambda text: f"]Q1{text}",
    "aim in lower": lambda text: f"]q3{text.lower()}\r\n",
    "framed": lambda text: f"\x02{text}\x03\t",
    # An American reader on a German, a Swiss and a French computer (digits and letters as they are there).
    "german": lambda text: text.translate(str.maketrans("YZyz:|-", "ZYzyÖ'ß")),
    "german aim": lambda text: "+Q1" + text.translate(str.maketrans("YZ:|-", "ZYÖ'ß")),
    "spanish": lambda text: text.translate(str.maketrans(":|-", "Ñ·'")),
    "spaces": lambda text: text.replace("|", " | ").replace(":", " : "),
}


@pytest.mark.parametrize("hand", AS_TYPED)
def test_a_genuine_text_is_read_however_a_hand_reader_types_it(app: Flask, hand: str) -> None:
    for ticket in issued(app):
        text = issuing.qr_text(ticket, ticket.order.code)
        assert issuing.read(AS_TYPED[hand](text)) == issuing.read(text)
        assert issuing.read(text).kind is ClaimKind.GENUINE


def test_no_part_can_be_moved_into_another_ticket(app: Flask) -> None:
    one, two, _ = issued(app)
    other_event = make_event("other")
    first, second = (
        dict(part.split(":") for part in issuing.qr_text(t, t.order.code).split("|")) for t in (one, two)
    )
    for name in first:
        mixed = "|".join(f"{key}:{second[key] if key == name else value}" for key, value in first.items())
        if first[name] != second[name]:
            assert issuing.read(mixed).kind is ClaimKind.FORGED, mixed
    elsewhere = "|".join(
        f"{key}:{other_event.id if key == 'EVENT' else value}" for key, value in first.items()
    )
    assert issuing.read(elsewhere).kind is ClaimKind.FORGED


def test_another_secret_key_makes_every_code_forged(app: Flask) -> None:
    ticket = issued(app)[0]
    text = issuing.qr_text(ticket, ticket.order.code)
    config.use(replace(config.get(), secret_key="another key, and a long one"))
    assert issuing.read(text).kind is ClaimKind.FORGED


@pytest.mark.parametrize(
    "text",
    [
        "TICKET:",
        "]Q1TICKET",
        "TICKET:" + "x" * 5000,
        "TICKET:ORD-1-1|ORDER:ORD-1|EVENT:1|VALID:",
        "ticket:x",
        "TICKET:ORD-A-1|ORDER:ORD-A|EVENT:1|VALID:a1b2c3d4",
    ],
)
def test_what_is_not_whole_is_unreadable_and_not_forged(app: Flask, text: str) -> None:
    assert issuing.read(text).kind is ClaimKind.UNREADABLE


# --- Typed codes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "typed", ["7K2QM4XP", "7k2q m4xp", " 7K2Q-M4XP ", "7KZQ M4XP", "7k2q–m4xp", "7K2Q.M4XP"]
)
def test_a_typed_code_is_read_however_it_is_written(typed: str) -> None:
    claim = issuing.read(typed.replace("Q", "R").replace("q", "r"))
    assert claim == issuing.Claim(ClaimKind.SHORT_CODE, code="7K2RM4XP")


@pytest.mark.parametrize(
    "typed", ["", "7K2RM4X", "7K2RM4XPP", "Ada Buyer", "ORD-7K2RM4XP", "https://x.org", "0OIL1UUU", "\0" * 8]
)
def test_other_texts_are_not_tickets(typed: str) -> None:
    assert issuing.read(typed) == issuing.Claim(ClaimKind.NOT_A_TICKET)


def test_no_two_characters_of_the_alphabet_look_alike() -> None:
    for alike in ("0OQD", "1IL", "2Z", "5S", "8B", "UV"):
        assert sum(char in codes.ALPHABET for char in alike) <= (2 if alike == "0OQD" else 1)
    assert len(codes.ALPHABET) == len(set(codes.ALPHABET))


def test_a_code_is_shown_in_two_groups() -> None:
    assert codes.show("7K2RM4XP") == "7K2R M4XP"


def test_reading_needs_no_database(app: Flask) -> None:
    ticket = issued(app)[0]
    text = issuing.qr_text(ticket, ticket.order.code)
    with queries.recorded() as statements:
        assert issuing.read(text).kind is ClaimKind.GENUINE
    assert statements == []
