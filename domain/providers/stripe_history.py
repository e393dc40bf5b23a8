"""What happened in a Stripe account: charges, refunds and disputes, listed by when they were made.

Only what carries our address in the metadata of its payment intent is ours: others may use the account, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from domain.providers.contract import DisputeReport, Happening, ProviderError, RefundReport, Told

# A call to a list, with its path and parameters.
Ask = Callable[[str, dict[str, Any]], Mapping[str, Any]]
_PATHS = ("/v1/charges", "/v1/refunds", "/v1/disputes")
# The most a page holds, and how many are read of a list before a shorter time is asked about.
_PAGE = 100
_MOST_PAGES = 50
_SHORTEST = timedelta(seconds=1)


def happened(
    ask: Ask,
    read: Callable[[Mapping[str, Any]], Happening | None],
    since: datetime,
    until: datetime,
) -> Iterator[Told]:
    """Page after page of what happened between two times; see `Provider.happened`.

    The lists begin with what is newest, so how far they were read is known only when all three have been.
    A time in which too much happened is asked about in parts.
    """
    first, span = since, max(until - since, _SHORTEST)
    while first < until:
        last = min(first + span, until)
        whole = True
        for path in _PATHS:
            for number, page in enumerate(_pages(ask, path, first, last), start=1):
                found = (read(thing) for thing in page["data"])
                yield Told(tuple(happening for happening in found if happening is not None))
                if number >= _MOST_PAGES and page["has_more"]:
                    whole = False
                    break
        if whole:
            yield Told((), through=last)
            first, span = last, span * 4
        elif span <= _SHORTEST:
            raise ProviderError("Too much happened in one second.", permanent=False, code="too_many")
        else:
            span = max(span / 8, _SHORTEST)


def _pages(ask: Ask, path: str, first: datetime, last: datetime) -> Iterator[Mapping[str, Any]]:
    params: dict[str, Any] = {
        "created": {"gte": int(first.timestamp()), "lte": int(last.timestamp()) + 1},
        "limit": _PAGE,
        "expand": ["data.payment_intent"],
    }
    while True:
        page = ask(path, params)
        yield page
        if not page["has_more"] or not page["data"]:
            return
        params["starting_after"] = page["data"][-1]["id"]


def read(
    thing: Mapping[str, Any],
    site: str,
    refund: Callable[[Mapping[str, Any]], RefundReport],
    dispute: Callable[[Mapping[str, Any]], DisputeReport],
) -> Happening | None:
    """What a charge, a refund or a dispute tells; None of what is not ours, or brought no money."""
    intent = thing.get("payment_intent")
    metadata = intent.get("metadata") if isinstance(intent, Mapping) else None
    if not isinstance(intent, Mapping) or not isinstance(metadata, Mapping) or metadata.get("site") != site:
        return None
    kind = thing["object"]
    if kind == "charge" and not (thing["status"] == "succeeded" and thing["paid"]):
        return None
    charge = thing["id"] if kind == "charge" else thing["charge"]
    return Happening(
        charges=(str(charge),),
        name=str(metadata.get("reference") or ""),
        handle=str(intent["id"]),
        paid=kind == "charge",
        refund=refund(thing) if kind == "refund" else None,
        dispute=dispute(thing) if kind == "dispute" else None,
    )
