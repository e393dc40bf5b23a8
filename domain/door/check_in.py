"""What happens at an event's door: scans and their verdicts, letting a group in, undoing, looking people up.

One scan wins when several doors scan one ticket at the same moment: admission is one conditional UPDATE,
written with its check-in in one statement, and a partial unique index allows one admission that was not
undone. A device names each scan, so that a retry after a lost answer repeats the verdict.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from itertools import chain
from typing import Any, TypeAlias, cast
from zoneinfo import ZoneInfo

from babel.dates import format_datetime
from sqlalchemy import (
    Integer,
    Row,
    Select,
    String,
    Table,
    bindparam,
    func,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import aliased
from sqlalchemy.sql.dml import ReturningInsert

from domain import addresses, clock, folding, locks, paging, searching
from domain.door.staff import Doorkeeper
from domain.errors import DomainError
from domain.tickets import holders, issuing
from domain.tickets.holders import Holder
from domain.tickets.issuing import Claim, ClaimKind
from extensions import Base, db
from models import CheckIn, Event, Ticket, TicketState, TicketType, Verdict

UNDO_WITHIN = timedelta(minutes=30)
MAX_TEXT = 500
_TRIES = 3
_FOUND_AT_MOST = 20
_SCAN_ID = re.compile(r"[A-Za-z0-9-]{8,40}")


# One row of `_look`.
_Seen: TypeAlias = Row[*tuple[Any, ...]]


@dataclass(frozen=True)
class Count:
    """How many of an event's tickets are in. `total` leaves void ones out."""

    admitted: int
    total: int


@dataclass(frozen=True)
class Scan:
    """The verdict on one scan, with the words for whoever stands at the door.

    `at` and `by` are of the admission: this one, or the earlier one that used the ticket. `rest` is how many
    more tickets of the same order wait to be let in; 0 unless the verdict is valid.
    """

    scan_id: str
    verdict: Verdict
    words: str
    holder: str
    type: str
    at: datetime | None
    by: str
    count: Count
    rest: int = 0


# --- Scanning -------------------------------------------------------------------------------------------


def scan(keeper: Doorkeeper, scan_id: str, text: str) -> Scan:
    """Judge a scanned QR text or a typed code, and let its holder in where it is valid. Commits.

    The same `scan_id` with the same text repeats its verdict. DomainError for a malformed or reused id. Two
    queries, or four for whoever loses a race.
    """
    _check_scan_id(scan_id)
    claim = issuing.read(text[:MAX_TEXT])
    said = hashlib.sha256(text.strip().encode()).hexdigest()[:16]
    for _ in range(_TRIES):
        asked = {"event_id": keeper.event_id, "scan_id": scan_id, "code": claim.code}
        seen = db.session.execute(_look(), asked).one()
        if seen.scan_verdict is not None:
            db.session.rollback()
            return _repeated(keeper, scan_id, said, seen)
        verdict, words = _judge(keeper, claim, seen)
        result = _result(keeper, scan_id, verdict, words, seen)
        detail = _detail(keeper, said, result)
        if _write(keeper, result, detail, seen.ticket_id):
            db.session.commit()
            return result
        # Somebody was faster with this ticket, or with this scan's id: look again.
        db.session.rollback()
    raise DomainError("busy", "That ticket is being scanned somewhere else. Scan it again.")


def _check_scan_id(scan_id: str) -> None:
    if not _SCAN_ID.fullmatch(scan_id):
        raise DomainError("scan_id_invalid", "This scan has no proper id. Reload the page and scan again.")


def _table(model: type[Base]) -> Table:
    """A model's table, for statements that need no objects."""
    return cast(Table, model.__table__)


@cache
def _look() -> Select[*tuple[Any, ...]]:
    """All that a verdict needs, in one row: the ticket, an earlier answer to this scan, and the count.

    Parameters: event_id, scan_id, code. Made once, because making it would cost more than asking it.
    """
    event_id = bindparam("event_id", type_=Integer)
    ticket, ticket_type, event, check_in = map(_table, (Ticket, TicketType, Event, CheckIn))
    mate, counted = ticket.alias("mate"), ticket.alias("counted")
    one = select(literal_column("1").label("one")).subquery()
    rest = (
        select(func.count())
        .where(mate.c.order_id == ticket.c.order_id, mate.c.event_id == event_id, mate.c.id != ticket.c.id)
        .where(mate.c.state == TicketState.VALID, mate.c.checked_in_at.is_(None))
        .scalar_subquery()
    )
    numbers = (
        select(func.count().label("total"), func.count(counted.c.checked_in_at).label("admitted"))
        .where(counted.c.event_id == event_id, counted.c.state != TicketState.VOID)
        .subquery()
    )
    return (
        select(
            ticket.c.id.label("ticket_id"),
            *(ticket.c[name] for name in ("event_id", "state", "state_reason", "holder")),
            ticket.c.checked_in_at,
            ticket.c.checked_in_by,
            ticket_type.c.name.label("type"),
            *(event.c[name].label(f"event_{name}") for name in ("title", "starts_at", "timezone")),
            *(
                check_in.c[name].label(f"scan_{name}")
                for name in ("verdict", "event_id", "detail", "undone_at")
            ),
            rest.label("rest"),
            numbers.c.total,
            numbers.c.admitted,
        )
        .select_from(one)
        .join(numbers, literal_column("true"))
        .outerjoin(ticket, ticket.c.code == bindparam("code", type_=String))
        .outerjoin(ticket_type, ticket_type.c.id == ticket.c.ticket_type_id)
        .outerjoin(event, event.c.id == ticket.c.event_id)
        .outerjoin(check_in, check_in.c.scan_id == bindparam("scan_id", type_=String))
    )


def _judge(keeper: Doorkeeper, claim: Claim, seen: _Seen) -> tuple[Verdict, str]:
    """The verdict on what was shown, and what to tell the person who shows it."""
    if claim.kind is ClaimKind.FORGED:
        return Verdict.FORGED, "This code was not made here. Ask for the ticket's mail, or look the name up."
    if claim.kind is ClaimKind.UNREADABLE:
        return (
            Verdict.UNKNOWN,
            "This code could not be read. Type the ticket's 8 letters and digits, or look the name up.",
        )
    if claim.kind is ClaimKind.NOT_A_TICKET:
        return Verdict.UNKNOWN, "This is not the code of a ticket. A typed code has 8 letters and digits."
    if seen.ticket_id is None:
        return Verdict.UNKNOWN, "No ticket has this code. Check each letter, or look the name up."
    if seen.event_id != keeper.event_id:
        starts = _when(seen.event_starts_at, seen.event_timezone, "EEEE d MMMM, HH:mm")
        return Verdict.WRONG_EVENT, f"This ticket is for {seen.event_title}, {starts}."
    if seen.state is TicketState.SUSPENDED:
        reason = seen.state_reason or "its payment is being disputed"
        return Verdict.VOID, f"Suspended: {reason}. Send them to the desk."
    if seen.state is TicketState.VOID:
        return Verdict.VOID, f"Not valid any more: {seen.state_reason or 'cancelled'}. Send them to the desk."
    if seen.checked_in_at is not None:
        return (
            Verdict.USED,
            f"Already let in {_since(seen.checked_in_at, keeper.timezone)} by {seen.checked_in_by}.",
        )
    return Verdict.VALID, "Welcome."


def _result(keeper: Doorkeeper, scan_id: str, verdict: Verdict, words: str, seen: _Seen) -> Scan:
    """The answer to a new scan. A ticket of another event tells nothing of its holder."""
    known = seen.ticket_id is not None and seen.event_id == keeper.event_id and verdict is not Verdict.FORGED
    admits = verdict is Verdict.VALID
    return Scan(
        scan_id=scan_id,
        verdict=verdict,
        words=words,
        holder=seen.holder if known else "",
        type=seen.type if known else "",
        at=clock.now() if admits else seen.checked_in_at if known else None,
        by=keeper.by if admits else seen.checked_in_by if known else "",
        count=Count(seen.admitted + admits, seen.total),
        rest=seen.rest if admits else 0,
    )


def _detail(keeper: Doorkeeper, said: str, result: Scan) -> dict[str, Any]:
    """What is kept of a verdict, so that it can be repeated as it was."""
    return {
        "door": keeper.key,
        "said": said,
        "words": result.words,
        "holder": result.holder,
        "type": result.type,
        "at": result.at.isoformat() if result.at is not None else None,
        "by": result.by,
        "rest": result.rest,
    }


def _write(keeper: Doorkeeper, result: Scan, detail: dict[str, Any], ticket_id: int | None) -> bool:
    """Write a check-in, together with the admission where it admits. False: nothing may be committed."""
    admits = result.verdict is Verdict.VALID and ticket_id is not None
    row = {
        "scan_id": result.scan_id,
        "event_id": keeper.event_id,
        "ticket_id": ticket_id,
        "verdict": result.verdict,
        "detail": detail,
        "by": keeper.by,
        "at": result.at if admits else clock.now(),
        "undone_by": "",
    }
    if admits:
        return _admit(row)
    statement = insert(CheckIn).values(row).on_conflict_do_nothing().returning(CheckIn.id)
    return db.session.scalar(statement) is not None


def _admit(row: dict[str, Any]) -> bool:
    """Let one ticket in and write its check-in, in one statement; False when it is not free any more."""
    return db.session.scalar(_admission(), {f"new_{name}": value for name, value in row.items()}) is not None


@cache
def _admission() -> ReturningInsert[*tuple[Any, ...]]:
    """The statement of `_admit`. Parameters: the columns of a check-in, each with `new_` before its name."""
    ticket, check_in = _table(Ticket), _table(CheckIn)
    new = {
        column.name: bindparam(f"new_{column.name}", type_=column.type)
        for column in check_in.c
        if column.name not in ("id", "undone_at")
    }
    won = (
        update(ticket)
        .where(ticket.c.id == new["ticket_id"], ticket.c.event_id == new["event_id"])
        .where(ticket.c.state == TicketState.VALID, ticket.c.checked_in_at.is_(None))
        .values(checked_in_at=new["at"], checked_in_by=new["by"])
        .returning(ticket.c.id)
        .cte("won")
    )
    chosen = select(*new.values()).select_from(won)
    return insert(check_in).from_select(list(new), chosen).on_conflict_do_nothing().returning(check_in.c.id)


def _repeated(keeper: Doorkeeper, scan_id: str, said: str, seen: _Seen) -> Scan:
    """The stored verdict of a scan whose answer was lost."""
    detail, count = seen.scan_detail, Count(seen.admitted, seen.total)
    if seen.scan_event_id != keeper.event_id or detail.get("said") != said:
        raise DomainError("scan_id_reused", "This scan's id was used for another ticket. Scan again.")
    if seen.scan_undone_at is not None:
        raise DomainError("scan_undone", "This scan was undone. Scan the ticket again.")
    return Scan(
        scan_id=scan_id,
        verdict=seen.scan_verdict,
        words=detail["words"],
        holder=detail["holder"],
        type=detail["type"],
        at=datetime.fromisoformat(detail["at"]) if detail["at"] else None,
        by=detail["by"],
        count=count,
        rest=seen.rest if seen.scan_verdict is Verdict.VALID else 0,
    )


def _when(moment: datetime, timezone: str, pattern: str) -> str:
    return format_datetime(moment.astimezone(ZoneInfo(timezone)), pattern, locale="en")


def _since(moment: datetime, timezone: str) -> str:
    """`at 19:42`, with the day where it was not today."""
    zone = ZoneInfo(timezone)
    same_day = moment.astimezone(zone).date() == clock.now().astimezone(zone).date()
    return "at " + _when(moment, timezone, "HH:mm" if same_day else "HH:mm 'on' d MMMM")


# --- A group, and undoing -------------------------------------------------------------------------------


def admit_rest(keeper: Doorkeeper, of_scan_id: str, scan_id: str) -> int:
    """Let in all that is left of the order whose ticket `of_scan_id` let in. Commits; how many that were.

    Each ticket gets a check-in `<scan_id>:<ticket id>`; the same `scan_id` again answers the same number.
    """
    _check_scan_id(scan_id)
    now, mate = clock.now(), aliased(Ticket)
    order_id = (
        select(mate.order_id)
        .join(CheckIn, CheckIn.ticket_id == mate.id)
        .where(CheckIn.scan_id == of_scan_id, CheckIn.event_id == keeper.event_id)
        .where(CheckIn.verdict == Verdict.VALID, CheckIn.undone_at.is_(None))
        .where(CheckIn.detail["door"].astext == keeper.key)
        .scalar_subquery()
    )

    def work() -> int:
        let_in = db.session.execute(
            update(Ticket)
            .where(Ticket.order_id == order_id, Ticket.event_id == keeper.event_id)
            .where(Ticket.state == TicketState.VALID, Ticket.checked_in_at.is_(None))
            .values(checked_in_at=now, checked_in_by=keeper.by)
            .returning(Ticket.id, Ticket.holder)
            .execution_options(synchronize_session=False)
        ).all()
        if not let_in:
            return _count_group(keeper, scan_id)
        detail = {"door": keeper.key, "said": "", "words": "Welcome.", "type": "", "at": now.isoformat()}
        db.session.execute(
            insert(CheckIn),
            [
                {
                    "scan_id": f"{scan_id}:{ticket_id}",
                    "event_id": keeper.event_id,
                    "ticket_id": ticket_id,
                    "verdict": Verdict.VALID,
                    "detail": detail | {"holder": holder, "by": keeper.by, "rest": 0},
                    "by": keeper.by,
                    "at": now,
                    "undone_by": "",
                }
                for ticket_id, holder in let_in
            ],
        )
        return len(let_in)

    return locks.in_one_transaction(work)


def _count_group(keeper: Doorkeeper, scan_id: str) -> int:
    return db.session.scalars(
        select(func.count())
        .select_from(CheckIn)
        .where(CheckIn.event_id == keeper.event_id, CheckIn.scan_id.startswith(f"{scan_id}:"))
        .where(CheckIn.undone_at.is_(None))
    ).one()


def undo(keeper: Doorkeeper, scan_id: str) -> int:
    """Take back an admission of this doorkeeper's own, or a whole group's. Commits; how many tickets.

    The check-in stays, with who undid it and when. DomainError when there is nothing of theirs to undo, or
    it is too long ago.
    """
    now = clock.now()
    group = CheckIn.scan_id.startswith(f"{scan_id}:", autoescape=True)

    def work() -> int:
        undone = db.session.scalars(
            update(CheckIn)
            .where(CheckIn.event_id == keeper.event_id, CheckIn.detail["door"].astext == keeper.key)
            .where(CheckIn.by == keeper.by, CheckIn.at > now - UNDO_WITHIN)
            .where(CheckIn.verdict == Verdict.VALID, CheckIn.undone_at.is_(None))
            .where(or_(CheckIn.scan_id == scan_id, group))
            .values(undone_at=now, undone_by=keeper.by)
            .returning(CheckIn.ticket_id)
            .execution_options(synchronize_session=False)
        ).all()
        if not undone:
            raise DomainError(
                "nothing_to_undo",
                f"Only your own scans of the last {UNDO_WITHIN.seconds // 60} minutes can be undone, once.",
            )
        db.session.execute(
            update(Ticket)
            .where(Ticket.id.in_(undone))
            .values(checked_in_at=None, checked_in_by="")
            .execution_options(synchronize_session=False)
        )
        return len(undone)

    return locks.in_one_transaction(work)


# --- Looking up -----------------------------------------------------------------------------------------


def count(event: Event) -> Count:
    """How many of the event's tickets are in, and how many there are."""
    types = select(TicketType.id).where(TicketType.event_id == event.id)
    live = Ticket.ticket_type_id.in_(types), Ticket.state != TicketState.VOID
    sold = select(func.count()).select_from(Ticket).where(*live)
    came = select(func.count()).where(
        Ticket.event_id == event.id, Ticket.checked_in_at.is_not(None), Ticket.state != TicketState.VOID
    )
    total, admitted = db.session.execute(select(sold.scalar_subquery(), came.scalar_subquery())).one()
    return Count(admitted, total)


def recent(keeper: Doorkeeper, limit: int = 6) -> Sequence[CheckIn]:
    """This doorkeeper's newest scans, newest first."""
    return db.session.scalars(
        select(CheckIn)
        .where(CheckIn.event_id == keeper.event_id, CheckIn.by == keeper.by)
        .where(CheckIn.detail["door"].astext == keeper.key)
        .order_by(CheckIn.at.desc(), CheckIn.id.desc())
        .limit(limit)
    ).all()


def search(event: Event, words: str) -> list[Holder]:
    """The event's tickets of a name, a mail address, an order or a code; at most 20, by name.

    Every word must be found. Of an address only its first letter and its host are shown; of a tournament's
    athletes nothing, as it is their guardians' and no business of the door's.
    """
    if not folding.fold(words):
        return []
    if event.is_tournament:
        # An athlete is not found by whoever entered them.
        which = holders.of_athletes(words)
    else:
        which = searching.look(words, holders.searched(event, words), holders.named(words)).condition
    return _by_name(not event.is_tournament, holders.of_event(event).where(which).limit(_FOUND_AT_MOST))


def door_list(event: Event) -> Iterator[Holder]:
    """Everybody who may come, by name: for printing. Void tickets are left out.

    Who is on it is read at once, and the list itself in parts as it is taken.
    """
    live = Ticket.event_id == event.id, Ticket.state != TicketState.VOID
    ids = list(db.session.scalars(select(Ticket.id).where(*live).order_by(*_BY_NAME)))
    places, query = dict(zip(ids, range(len(ids)), strict=True)), holders.of_event(event)
    shown = not event.is_tournament

    def read(last: int | None) -> list[Holder]:
        after = 0 if last is None else places[last] + 1
        return _by_name(shown, query.where(Ticket.id.in_(ids[after : after + paging.PART])))

    return chain.from_iterable(paging.parts(read, lambda holder: holder.id))


# In the order of a list on paper.
_BY_NAME = (func.lower(Ticket.holder), Ticket.order_id, Ticket.number)


def _by_name(shown: bool, query: Select[*tuple[Any, ...]]) -> list[Holder]:
    """With a hint of their addresses; a tournament's, which are of whoever entered them, are not `shown`."""
    found = holders.read(query.order_by(*_BY_NAME))
    return [replace(holder, email=hide_address(holder.email) if shown else "") for holder in found]


def hide_address(email: str) -> str:
    """`a•••@example.org`: enough to tell two people of one name apart, too little to write to."""
    name, _, host = addresses.shown(email).partition("@")
    return f"{name[:1]}•••@{host}"
