"""Tickets: issuing them, changing their state, and what their QR codes say.

The QR text is `TICKET:<order code>-<number>|ORDER:<order code>|EVENT:<event id>|VALID:<seal>`. The seal is
the ticket's short code followed by an 80-bit keyed signature over all four, so a genuine text is known
without the database, and no part of one ticket's text can be moved into another's. Nothing here commits.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy.dialects.postgresql import insert

import config
from domain import clock, codes, search_words
from domain.errors import DomainError
from extensions import db
from models import ADMISSIONS, Order, Ticket, TicketState

_SEAL = "ticket-qr"
_SIGNATURE_BYTES = 10
_TRIES = 5
# A QR text's letters and digits, with one dash for whatever stands between them: see _read_qr().
_QR = re.compile(
    r"TICKET-(?P<order>[A-Z0-9-]{1,20})-(?P<number>[1-9][0-9]{0,5})"
    r"-ORDER-(?P=order)-EVENT-(?P<event>[1-9][0-9]{0,9})"
    rf"-VALID-(?P<code>[A-Z0-9]{{{codes.LENGTH}}})(?P<signature>[A-Z0-9]{{16}})"
)
# What hand readers put before a text, to say what kind of code it was in: ]Q1 for a QR code.
_AIM = re.compile(r"\][A-Za-z][0-9A-Za-z]")
# Where the word of a QR text begins at the latest, with such a mark garbled by a keyboard's layout before it.
_BEGINS_BY = 10
# A reader that types as an American keyboard does on a German computer exchanges them.
_OTHER_KEYBOARD = str.maketrans("YZ", "ZY")


class ClaimKind(StrEnum):
    """What somebody at a door has shown or typed."""

    GENUINE = "genuine"
    FORGED = "forged"
    # Begins as a QR text of ours does, and is not all of one.
    UNREADABLE = "unreadable"
    SHORT_CODE = "short_code"
    NOT_A_TICKET = "not_a_ticket"


@dataclass(frozen=True)
class Claim:
    """What a scanned or typed text says. Only a genuine one carries more than its `kind` and `code`.

    `code` is the ticket's short code, for GENUINE and SHORT_CODE. Genuine means that Kassa made the text;
    whether the ticket is still valid is in the database.
    """

    kind: ClaimKind
    code: str = ""
    order_code: str = ""
    number: int = 0
    event_id: int = 0


# Made once: making a statement costs more than PostgreSQL's part of it.
_ADD = insert(Ticket).on_conflict_do_nothing(index_elements=["code"]).returning(Ticket)


def issue(order: Order) -> list[Ticket]:
    """One ticket for each unit of the order's ticket lines, numbered from 1, in one INSERT for all of them.

    The order must be flushed. A second call for one order fails on the numbers' unique constraint.
    """
    wanted = _rows(order)
    issued: list[Ticket] = []
    for _ in range(_TRIES):
        if not wanted:
            break
        issued += db.session.scalars(_ADD, wanted).all()
        # A code that was taken already left its row out: it gets another code.
        done = {ticket.number for ticket in issued}
        wanted = [row | {"code": _new_code()} for row in wanted if row["number"] not in done]
    if wanted:
        raise DomainError("no_free_code", "No free ticket code was found. Try again.")
    search_words.of_issued(order, issued)
    db.session.expire(order, ["tickets"])
    return sorted(issued, key=lambda ticket: ticket.number)


def _rows(order: Order) -> list[dict[str, Any]]:
    now = clock.now()
    units = [line for line in order.lines if line.kind in ADMISSIONS for _ in range(line.quantity)]
    return [
        {
            "order_id": order.id,
            "order_line_id": line.id,
            "event_id": order.event_id,
            "ticket_type_id": line.ticket_type_id,
            "number": number,
            "code": _new_code(),
            "holder": line.holder or order.name,
            "state": TicketState.VALID,
            "state_reason": "",
            "issued_at": now,
            "checked_in_by": "",
        }
        for number, line in enumerate(units, start=1)
    ]


def _new_code() -> str:
    return "".join(secrets.choice(codes.ALPHABET) for _ in range(codes.LENGTH))


# --- State ----------------------------------------------------------------------------------------------


def void(some: Iterable[Ticket], reason: str) -> None:
    """End tickets for good unless they are restored; the door turns them away with `reason`."""
    _set(some, TicketState.VOID, reason)


def suspend(some: Iterable[Ticket], reason: str) -> None:
    """Turn tickets away while something about their money is open, such as a dispute."""
    _set(some, TicketState.SUSPENDED, reason)


def restore(some: Iterable[Ticket]) -> None:
    """Make void or suspended tickets valid again. Who was let in stays let in."""
    _set(some, TicketState.VALID, "")


def _set(some: Iterable[Ticket], state: TicketState, reason: str) -> None:
    for ticket in some:
        ticket.state = state
        ticket.state_reason = reason[:200]


# --- What the QR code says ------------------------------------------------------------------------------


def qr_text(ticket: Ticket, order_code: str) -> str:
    """The text of a ticket's QR code."""
    key = config.get().derived_key(_SEAL)
    signature = _signature(order_code, ticket.number, ticket.event_id, ticket.code, key)
    name = f"TICKET:{order_code}-{ticket.number}|ORDER:{order_code}|EVENT:{ticket.event_id}"
    return f"{name}|VALID:{ticket.code}{signature}"


def read(text: str) -> Claim:
    """Tell what a scanned QR text or a typed short code claims. Never raises, whatever the text is."""
    text = text.strip()
    if "TICKET" in text[: _BEGINS_BY + len("TICKET")].upper():
        return _read_qr(text)
    code = codes.clean(_AIM.sub("", text, count=1) if _AIM.match(text) else text)
    return Claim(ClaimKind.SHORT_CODE, code=code) if code else Claim(ClaimKind.NOT_A_TICKET)


def _read_qr(text: str) -> Claim:
    """Hand readers type: in another case, with a mark before, by another keyboard's signs. The seal decides.

    So only letters and digits count. Forged is what is whole and has another seal; what is not whole may be a
    genuine ticket that was scanned badly.
    """
    # A German keyboard's ß stands where a dash was, and is two letters in capitals.
    upper = text.replace("ß", "-").upper()
    said = "-".join(re.findall("[A-Z0-9]+", upper[upper.index("TICKET") :]))
    readings = (said, said.translate(_OTHER_KEYBOARD))
    found = [match for match in map(_QR.fullmatch, readings) if match is not None]
    for match in found:
        order_code, code = match["order"], match["code"]
        number, event_id = int(match["number"]), int(match["event"])
        sealed = (order_code, number, event_id, code)
        settings = config.get()
        if _sealed_by(match["signature"], sealed, settings.derived_keys(_SEAL)):
            return Claim(ClaimKind.GENUINE, code, order_code, number, event_id)
        if _sealed_by(match["signature"], sealed, settings.revoked_keys(_SEAL)):
            # Others may have that key: its seal proves nothing, and the code is looked up as if it was typed.
            return Claim(ClaimKind.SHORT_CODE, code=code)
    return Claim(ClaimKind.FORGED if found else ClaimKind.UNREADABLE)


def _sealed_by(signature: str, said: tuple[str, int, int, str], keys: Iterable[bytes]) -> bool:
    return any(hmac.compare_digest(signature, _signature(*said, key)) for key in keys)


def _signature(order_code: str, number: int, event_id: int, code: str, key: bytes) -> str:
    """80 bits in 16 characters of base 32; the parts are joined by a character that none of them can hold."""
    said = f"{order_code}|{number}|{event_id}|{code}".encode()
    digest = hashlib.blake2b(said, key=key, digest_size=_SIGNATURE_BYTES)
    return base64.b32encode(digest.digest()).decode()
