"""The history of a merchant's transactions: filters, order, pages."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from sandbox.sumup import shapes
from sandbox.sumup.books import Books, Transaction

Body = dict[str, Any]

USUAL, MOST = 10, 100


def listed(books: Books, merchant: str, given: Body) -> tuple[list[Transaction], list[Body]]:
    """One page of transactions, and the links to the next. `given` is checked by shapes.LIST_TRANSACTIONS."""
    where, values = ["merchant = ?"], [merchant]
    _by_time(given, where, values)
    _by_reference(books, given, where, values)
    if "transaction_code" in given:
        where.append("code = ?")
        values.append(given["transaction_code"])
    for name, column in (("statuses[]", "status"), ("entry_modes[]", "'CUSTOMER_ENTRY'")):
        _among(given, name, column, where, values)
    for name, column in (("types[]", "'PAYMENT'"), ("payment_types[]", "'ECOM'")):
        _among(given, name, column, where, values)
    limit = max(1, min(given.get("limit", USUAL), MOST))
    descending = given.get("order", "ascending") == "descending"
    found = books.history(" AND ".join(where), values, "DESC" if descending else "ASC", limit + 1)
    page = found[:limit]
    if len(found) == len(page):
        return page, []
    # The next page begins beside the last one of this.
    beyond = {"newest_ref": page[-1].id} if descending else {"oldest_ref": page[-1].id}
    kept = {name: value for name, value in given.items() if name not in ("newest_ref", "oldest_ref")}
    return page, [{"rel": "next", "href": urlencode(kept | beyond, doseq=True)}]


def _by_time(given: Body, where: list[str], values: list[Any]) -> None:
    for name, condition in (
        ("changes_since", "changed >= ?"),
        ("oldest_time", "created >= ?"),
        ("newest_time", "created <= ?"),
    ):
        moment = shapes.moment(given.get(name))
        if moment is not None:
            where.append(condition)
            values.append(moment.timestamp())


def _by_reference(books: Books, given: Body, where: list[str], values: list[Any]) -> None:
    for name, condition in (("oldest_ref", "seq > ?"), ("newest_ref", "seq < ?")):
        if name in given:
            beside = books.transaction("id", given[name])
            where.append(condition)
            values.append(beside.seq if beside else 0)


def _among(given: Body, name: str, column: str, where: list[str], values: list[Any]) -> None:
    if given.get(name):
        where.append(f"{column} IN ({','.join('?' * len(given[name]))})")
        values += given[name]
