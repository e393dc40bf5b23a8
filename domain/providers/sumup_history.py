"""What happened in a SumUp account: its transactions, as the history lists those that changed.

Only what was paid in an online checkout whose description begins with a code of ours is ours: the same
account may sell at a counter, or through another shop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs

from sumup.types import TransactionHistory

from domain.providers.contract import Happening, ProviderError, Told

_PAGE = 100
_MOST_PAGES = 2_000
# Attempts that moved no money are left out.
STATUSES = ("SUCCESSFUL", "REFUNDED", "CHARGE_BACK")


def happened(
    ask: Callable[[dict[str, Any]], Any],
    read: Callable[[TransactionHistory, datetime], Happening | None],
    since: datetime,
    until: datetime,
) -> Iterator[Told]:
    """Page after page of what changed since; see `Provider.happened`.

    They come by when they were made, not by when they changed: how far they were read is known at the end.
    """
    query: dict[str, Any] = {
        "changes_since": since,
        "payment_types": ["ECOM"],
        "statuses": list(STATUSES),
        "order": "ascending",
        "limit": _PAGE,
    }
    for _ in range(_MOST_PAGES):
        page = ask(query)
        found = (read(item, since) for item in page.items or [])
        happenings = tuple(happening for happening in found if happening is not None)
        beyond = _beyond(page.links or [])
        if beyond is None:
            yield Told(happenings, through=until)
            return
        yield Told(happenings)
        if beyond == query.get("oldest_ref"):
            raise ProviderError("SumUp's list leads to itself.", permanent=False, code="unreadable")
        query["oldest_ref"] = beyond
    raise ProviderError("SumUp's list has no end.", permanent=False, code="too_many")


def _beyond(links: list[Any]) -> str | None:
    """Where the next page begins, by the link to it."""
    href = next((link.href for link in links if link.rel == "next"), None)
    if href is None:
        return None
    told = parse_qs(str(href).rpartition("?")[2]).get("oldest_ref")
    if not told:
        raise ValueError("a link to the next page that does not say where it begins")
    return told[0]


def read(
    item: TransactionHistory,
    since: datetime,
    code: str,
    minor: Callable[[float, str], int],
) -> Happening | None:
    """What an item of the list tells of the order `code`; None where it tells nothing that counts."""
    charges = tuple(str(name) for name in (item.transaction_id, item.id) if name)
    if not charges:
        raise ValueError("a transaction without an id")
    made = item.timestamp
    if item.type != "PAYMENT" or item.status == "CHARGE_BACK" or made is None or made < since:
        # Something changed of a payment that was made before, and the list does not say what.
        return Happening(charges=charges, name=code, handle=charges[0], unclear=True)
    return Happening(
        charges=charges,
        name=code,
        handle=charges[0],
        paid=True,
        refunded_minor=minor(item.refunded_amount or 0.0, str(item.currency)),
    )
