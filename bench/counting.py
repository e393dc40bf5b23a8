"""How many queries things take, counted in a process of its own so that counting slows no measurement.

Statements are counted as SQLAlchemy sends them; BEGIN, COMMIT and the pool's test of a connection that was
idle are not among them, as they are not in the peer's numbers.
"""

from __future__ import annotations

import re
from typing import Any
from uuid import uuid4

from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import inspect, select
from werkzeug.test import TestResponse

from bench.client import Dashboard
from domain.catalogue import events
from domain.door import staff
from domain.orders import managing
from domain.payments import settling
from domain.people import api_access
from domain.post import outbox
from domain.security.scopes import Scope
from domain.tickets import issuing
from extensions import db
from models import Order, Payment, Role
from tests.support import shop
from tests.support import tournaments as cups
from tests.support.queries import recorded


def count(app: Flask, slug: str, three_kinds: str, sandbox_port: int) -> dict[str, float]:
    """Queries of each work, by the keys of `bench.goals`. No worker may run meanwhile."""
    sandbox = Dashboard(sandbox_port)
    # The rings of the sandbox's doorbell would find nobody at home.
    webhook_url = sandbox.control("settings")["webhook_url"]
    sandbox.control("settings", {"webhook_url": None})
    # The first of everything also reads what is then kept.
    _purchase(app, slug, 1, sandbox)
    outbox.deliver_due()
    results = (
        _purchases(app, slug, sandbox)
        | {
            "page.queries": _page(app, three_kinds),
            "settle.queries": _settle(slug, 1),
            "settle.queries_ten": _settle(slug, 10),
            "door.queries": _scan(app, slug),
        }
        | _program(app, slug)
    )
    sandbox.control("settings", {"webhook_url": webhook_url})
    return {key: float(number) for key, number in results.items()}


def _page(app: Flask, slug: str) -> int:
    client = app.test_client()
    _get(app, client, f"/events/{slug}")
    with recorded() as statements:
        _get(app, client, f"/events/{slug}")
    return len(statements)


def _purchases(app: Flask, slug: str, sandbox: Dashboard) -> dict[str, int]:
    pages, mails = _purchase(app, slug, 1, sandbox)
    more_pages, more_mails = _purchase(app, slug, 10, sandbox)
    return {
        "buy.queries": pages + mails,
        "buy.queries_web": pages,
        "buy.queries_ten": more_pages + more_mails,
    }


def _purchase(app: Flask, slug: str, quantity: int, sandbox: Dashboard) -> tuple[int, int]:
    """Buy as a browser does: the queries of its requests, and those of delivering the mails."""
    client, address = app.test_client(), f"/events/{slug}"
    type_id = events.event(slug).ticket_types[0].id
    db.session.remove()
    with recorded() as statements:
        page = _get(app, client, address).text
        form = {name: _hidden(page, name) for name in ("csrf_token", "form_token")}
        form |= {"name": "Ada Buyer", "email": "ada@example.org", f"quantity-{type_id}": str(quantity)}
        with app.app_context():
            session_url = client.post(address, data=form).headers["Location"]
        paid = sandbox.pay(session_url.rpartition("/")[2])
        order_page = _get(app, client, "/pay/" + paid["success_url"].partition("/pay/")[2])
        shown = _get(app, client, order_page.headers["Location"])
    assert shown.status_code == 200, shown.status
    with recorded() as mailing:
        sent = outbox.deliver_due().sent
    assert sent == 2, sent
    # The last statement only finds that no more mail is due: a batch has it once.
    return len(statements), len(mailing) - 1


def _get(app: Flask, client: FlaskClient, path: str) -> TestResponse:
    with app.app_context():
        return client.get(path)


def _hidden(page: str, name: str) -> str:
    found = re.search(rf'name="{name}" (?:content|value)="([^"]+)"', page)
    assert found is not None, name
    return found[1]


def _settle(slug: str, quantity: int) -> int:
    with recorded() as placing:
        order_id = identity(shop.place(events.event(slug), quantity))
    # Reading the row that the made-up report is about stands for the provider, and is not counted.
    payment = db.session.scalars(select(Payment).filter_by(order_id=order_id)).one()
    payment_id, report = payment.id, shop.report_on(payment, "paid")
    db.session.remove()
    with recorded() as settled:
        settling.settle(payment_id, report, door="bench")
    db.session.remove()
    return len(placing) + len(settled)


def identity(order: Order) -> int:
    """The id of an order that was just committed, without reading it again."""
    key = inspect(order).identity
    assert key is not None
    return int(key[0])


def _scan(app: Flask, slug: str) -> int:
    """A scan over HTTP, with what finds out who scans."""
    order = shop.place(events.event(slug), 2)
    payment_id = order.payments[0].id
    settling.settle(payment_id, shop.report_on(order.payments[0], "paid"), door="bench")
    order = db.session.get_one(Order, db.session.get_one(Payment, payment_id).order_id)
    texts = [issuing.qr_text(ticket, order.code) for ticket in order.tickets]
    made, pin = staff.make_pass(events.event(slug), "Count", None)
    address, client = f"/door/{made.token}", app.test_client()
    db.session.remove()
    entry = {"csrf_token": _hidden(_get(app, client, f"{address}/").text, "csrf_token"), "pin": pin}
    with app.app_context():
        assert client.post(f"{address}/enter", data=entry).status_code == 303
    headers = {"X-CSRFToken": _hidden(_get(app, client, f"{address}/").text, "csrf-token")}
    numbers = []
    for text in texts:
        with recorded() as statements, app.app_context():
            body = {"scan_id": str(uuid4()), "text": text}
            verdict = client.post(f"{address}/scan", json=body, headers=headers).get_json()["verdict"]
        assert verdict == "valid", verdict
        numbers.append(len(statements))
    return numbers[-1]


def program(entries: int) -> dict[str, Any]:
    """An admin with a key for everything, and with so many entries of 25.00 EUR, the first of them paid."""
    name = uuid4().hex[:8]
    user = shop.make_user(f"program-{name}@example.org", Role.ADMIN)
    kind = cups.make_tournament(f"cup-{name}", places=entries).ticket_types[0]
    _, key = api_access.make_key(user, "Bench", list(Scope), 30)
    made = [
        cups.enter(kind, cups.make_athlete(user, f"Athlete {number}"), begun=False)
        for number in range(entries)
    ]
    final, rest = made[0], [one.public_id for one in made[1:]]
    payment = managing.pay_again(final.order_id, "stripe", payer_id=user.id, method="card")
    assert payment is not None
    settling.settle(payment.id, shop.report_on(payment, "paid"), door="bench")
    return {"key": key, "participants": rest, "final": final.public_id}


def _program(app: Flask, slug: str) -> dict[str, int]:
    """What a program's requests ask the database; each once before, which reads what is then kept."""
    made = program(4)
    headers = {"Authorization": f"Bearer {made['key']}"}
    order = db.session.get_one(Order, identity(shop.place(events.event(slug), 3)))
    settling.settle(order.payments[0].id, shop.report_on(order.payments[0], "paid"), door="bench")
    texts = [issuing.qr_text(ticket, order.code) for ticket in order.tickets]
    db.session.remove()
    client = app.test_client()

    def asked(method: str, path: str, body: dict[str, Any] | None, expected: int) -> int:
        with recorded() as statements:
            answer = client.open(f"/api/v1{path}", method=method, json=body, headers=headers)
        assert answer.status_code == expected, answer.text
        return len(statements)

    begin = [
        {"participant_id": one, "method": "card", "amount": "25.00", "currency": "EUR"}
        for one in made["participants"]
    ]
    look, scan = f"/payments/status/{made['final']}", [{"event": slug, "code": text} for text in texts]
    return {
        "api.initiate_queries": [asked("POST", "/payments/initiate", body, 201) for body in begin][-1],
        "api.status_queries": [asked("GET", look, None, 200) for _ in range(2)][-1],
        "api.check_in_queries": [asked("POST", "/check-in", body, 200) for body in scan][-1],
    }
