"""Every page of the URL map as somebody visits it in a shop of a million orders, with all its lists can do.

An address that is new is visited by itself; one that is left out has its reason here.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from flask import Flask
from werkzeug.routing import Rule

from blueprints.api import cursors
from models import OrderState

# Why an address is not visited.
LEFT_OUT = {
    "static": "a file of the program's",
    "bootstrap.static": "a file of a package's",
    "records.static": "a file of a package's",
    "api.openapi": "made of the program alone",
    "shop.picture": "one row by its key",
    "setup.checklist": "asks providers, the mail's server and the site itself",
    "admin.provider": "asks a provider and waits for it",
    "debug.provider_debug": "asks a provider and waits for it",
    "connections.begin": "leads to a provider",
    "connections.done": "is called by a provider",
    "payments.called": "is called by a provider",
    "payments.success": "asks a provider about one payment",
    "payments.cancel": "asks a provider about one payment",
    "pay_page.show": "one payment, opened at a provider",
    "pay_page.returned": "asks a provider about one payment",
    "pay_page.apple_pay_domain": "a setting",
    "order.qr_of": "one payment of a provider that shows codes",
    "order.tickets_pdf": "a PDF is drawn; the bench has it apart",
    "wallet.topup_success": "asks a provider about one payment",
    "wallet.topup_cancel": "leads on",
    "wallet.agent": "there is none",
    "order.qr": "a picture is drawn; the bench has it with the purchase",
    "factors.app": "leads to a proof of who it is",
    "factors.codes": "leads to a proof of who it is",
    "factors.prove": "leads away whoever has no second factor",
    "organiser.application": "leads away whoever has applied",
    "admin.door": "leads on",
    "records_pages.create_view": "leads away",
    "records_users.create_view": "leads away",
    "records_passes.create_view": "leads away",
    "api.list_keys": "only a member sees them; the page of keys is visited",
    "account.login": "leads away who is logged in",
    "account.register_form": "leads away who is logged in",
    "shop.place": "one row by its key",
    "account.confirm_form": "one row by its key",
    "account.reset_form": "one row by its key",
    "login_steps.code_form": "between two steps of a login",
    "login_steps.second_factor": "between two steps of a login",
    "api.payment_status": "one row by its key; the bench has it apart",
}
# Files and lists as long as an event: the first byte counts, and not the last.
FILES = {
    "organiser.attendee_file",
    "organiser.entry_file",
    "organiser.start_list",
    "door.door_list",
    "admin.statistics_file",
}
# Of these blueprints only the lists are there, of Flask-Admin's views that nobody is led to.
_RECORDS = ("index_view", "create_view")
_SEARCHES = ("", "lindquist", "ben", "b", "ada lindquist", "example.org", "mail3.exam", "25.00", "nobody")
_STATES = ("", *(state.value for state in OrderState))
# Far into a list: behind so many of a hundred rows.
_DEEP = (50, 99)


@dataclass(frozen=True)
class Shop:
    """What addresses are made of: the values of their parts by name, some for one endpoint or blueprint."""

    parts: Mapping[str, str]
    # Of a blueprint or an endpoint: values that differ there.
    own: Mapping[str, dict[str, str]] = field(default_factory=dict)
    # Highest ids, for pages far into a list.
    highest: Mapping[str, int] = field(default_factory=dict)


def paths(app: Flask, shop: Shop) -> Iterator[str]:
    """Each address once, then each list with its filters."""
    for rule in app.url_map.iter_rules():
        if "GET" in (rule.methods or ()) and is_visited(rule.endpoint) and rule.endpoint not in FILES:
            yield address(rule, shop)
    yield from _lists(shop)


def files(app: Flask, shop: Shop) -> Iterator[str]:
    """The files and the long lists."""
    for rule in app.url_map.iter_rules():
        if rule.endpoint in FILES and "GET" in (rule.methods or ()):
            yield address(rule, shop)


def is_visited(endpoint: str) -> bool:
    place, _, view = endpoint.partition(".")
    return endpoint not in LEFT_OUT and (not place.startswith("records_") or view in _RECORDS)


def address(rule: Rule, shop: Shop) -> str:
    place = rule.endpoint.partition(".")[0]
    values = {**shop.parts, **shop.own.get(place, {}), **shop.own.get(rule.endpoint, {})}
    # Of a choice the first, as `stripe` of `<any(stripe, sumup):name>`.
    path = re.sub(r"<any\((\w+)[^)]*\):\w+>", r"\1", rule.rule)
    return re.sub(r"<(?:[^:<>]+:)?(\w+)>", lambda match: values.get(match[1], "1"), path)


def _lists(shop: Shop) -> Iterator[str]:
    """Each list with each of its filters, the pairs of them, and far into it."""
    slug, cup = shop.parts["slug"], shop.own["tournaments"]["slug"]
    orders = _deep(shop.highest["orders"])
    for path in ("/admin/orders", f"/organiser/events/{slug}/orders", "/desk/"):
        yield from _asked(path, q=_SEARCHES, state=_STATES)
        yield from _asked(path, q=("", "example.org"), state=("", "expired", "failed"), before=orders)
    tickets = _deep(shop.highest["tickets"])
    yield from _asked(
        f"/organiser/events/{slug}/attendees", q=(*_SEARCHES, "standard"), before=("", *tickets)
    )
    yield from _asked(f"/organiser/events/{slug}/guests", before=orders)
    yield from _asked(f"/door/events/{slug}/search", q=_SEARCHES)
    entered = ("", "PENDING", "PAID", "WITHDRAWN")
    yield from _asked(f"/organiser/events/{cup}/entries", q=("", "lindquist", "b"), state=entered)
    yield from _asked("/admin/payments", state=("created", "open", "processing", "review"))
    yield from _asked("/admin/mail", state=("due", "failed"), before=("", *_deep(shop.highest["outbox"])))
    yield from _asked("/admin/incidents", decided=("", "1"), before=("", *_deep(shop.highest["incidents"])))
    yield from _asked(
        "/admin/audit", q=("", "capacity", "bulk 7", "nobody", "boss"), area=("", "price", "role")
    )
    yield from _asked("/admin/audit", before=_deep(shop.highest["audit_log"]))
    yield from _asked("/admin/organisers", state=("pending", "approved"))
    yield from _asked("/admin/wallets", email=("nobody@example.org",))
    yield from _asked("/admin/persons", q=("member77@example.org", "nobody@example.org"))
    yield from _asked("/admin/statistics", by=("day", "week", "month"), event=("", slug))
    yield from _asked("/admin/statistics?from=2024-06-01&to=2026-11-30", by=("month",), event=("", slug))
    for records in ("users", "events", "ticket-types", "door-passes"):
        yield from _asked(f"/admin/records/{records}/", search=("member 77", "bulk", "nobody"))
        yield from _asked(f"/admin/records/{records}/", sort=("0", "1"), page=("0", "3"))
    yield from _asked("/account/", before=orders)
    yield from _api(shop, slug)


def _api(shop: Shop, slug: str) -> Iterator[str]:
    path = "/api/v1/payments/admin/payments"
    statuses = ("PENDING", "PROCESSING", "COMPLETED", "FAILED", "CANCELLED", "EXPIRED", "REFUNDED")
    far = [cursors.write("payments", int(key)) or "" for key in _deep(shop.highest["payments"])]
    days = (("2024-03-01", "2024-03-02"), ("2026-11-01", ""), ("", "2024-03-01"))
    yield from _asked(path, status=("", *statuses), method=("", "card", "kaspi_qr"), tournament=("", slug))
    yield from _asked(path, status=("", "EXPIRED", "FAILED"), cursor=far)
    for since, until in days:
        yield from _asked(path, since=(since,), until=(until,), status=("", "FAILED"), tournament=("", slug))
    yield from _asked("/api/v1/payments/admin/statistics", step=("day", "month"), event=("", slug))


def _deep(highest: int) -> tuple[str, ...]:
    return tuple(str(highest - highest * part // 100) for part in _DEEP)


def _asked(path: str, **choices: tuple[str, ...] | list[str]) -> Iterator[str]:
    """The path with each combination of some values; "" is a filter that is left alone."""
    for values in itertools.product(*choices.values()):
        given = [
            f"{name}={value.replace(' ', '+')}" for name, value in zip(choices, values, strict=True) if value
        ]
        joined = "&" if "?" in path else "?"
        yield path + (joined + "&".join(given) if given else "")
