"""Who comes to an event: a list to look through, and a file for a spreadsheet. Only reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Select

from domain import addresses, folding, paging, searching, spreadsheets
from domain.rendering import when
from domain.tickets import holders
from domain.tickets.holders import Holder
from models import Event, Ticket

_COLUMNS = (
    "Name",
    "E-mail",
    "Ticket type",
    "Ticket code",
    "Order",
    "State",
    "Source",
    "Ordered",
    "In",
)


def find(event: Event, words: str = "", before: int | None = None) -> paging.Rows[Holder]:
    """The event's tickets, the newest first; every word must be in a name, an address, a code or a type."""
    query = holders.of_event(event)
    if before is not None:
        query = query.where(Ticket.id < before)
    beyond = None
    if folding.fold(words):
        searched = holders.searched(event, words, types=True).before(before)
        found = searching.look(words, searched, holders.named(words))
        query, beyond = query.where(found.newest), found.beyond
    rows = holders.read(_newest_first(query).limit(paging.PAGE + 1))
    more = rows[paging.PAGE - 1].id if len(rows) > paging.PAGE else beyond
    return paging.Rows(rows[: paging.PAGE], more)


def as_csv(event: Event) -> Iterator[bytes]:
    """Everybody, as a file for a spreadsheet, in parts."""
    zone, query = event.timezone, _newest_first(holders.of_event(event)).limit(paging.PART)

    def read(last: int | None) -> list[Holder]:
        return holders.read(query if last is None else query.where(Ticket.id < last))

    found = paging.parts(read, lambda holder: holder.id)
    return spreadsheets.in_parts(_COLUMNS, ([_cells(holder, zone) for holder in part] for part in found))


def _cells(found: Holder, zone: str) -> tuple[str, ...]:
    pattern = "yyyy-MM-dd HH:mm"
    return (
        found.holder,
        addresses.shown(found.email),
        found.type,
        found.code,
        found.order_code,
        found.state.value,
        "Guest list" if found.guest_list else "Sold",
        when(found.ordered_at, zone, pattern),
        when(found.checked_in_at, zone, pattern) if found.checked_in_at is not None else "",
    )


def _newest_first(query: Select[*tuple[Any, ...]]) -> Select[*tuple[Any, ...]]:
    return query.order_by(Ticket.id.desc())
