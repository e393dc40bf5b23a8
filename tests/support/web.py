"""A buyer without JavaScript, over HTTP: the forms as a browser sends them."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

from flask.testing import FlaskClient
from sqlalchemy import select
from stripe import WebhookSignature
from werkzeug.test import TestResponse

from extensions import db
from models import Event, Order, Payment
from tests.support.people import post


def buy(client: FlaskClient, event: Event, quantity: int = 1, **more: str) -> TestResponse:
    """Fill in and send the event page's form for its first ticket type."""
    path = f"/events/{event.slug}"
    token = re.search(r'name="form_token" value="([^"]+)"', client.get(path).text)
    fields = {
        "name": "Ada Buyer",
        "email": "ada@example.org",
        f"quantity-{event.ticket_types[0].id}": str(quantity),
    }
    fields |= {"form_token": token[1]} if token else {}
    return post(client, path, **(fields | more))


def newest_order() -> Order:
    """The order that was made last, fresh from the database."""
    db.session.rollback()
    return db.session.scalars(
        select(Order).order_by(Order.id.desc()).limit(1).execution_options(populate_existing=True)
    ).one()


def newest_payment() -> Payment:
    """The payment that was made last, fresh from the database."""
    db.session.rollback()
    return db.session.scalars(
        select(Payment).order_by(Payment.id.desc()).limit(1).execution_options(populate_existing=True)
    ).one()


def press(client: FlaskClient, shown: TestResponse, path: str) -> TestResponse:
    """Press the button of a page that says what will happen: its form's hidden fields, as they are there."""
    form = shown.text[shown.text.rindex("<form") :]
    hidden = re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', form[: form.index("</form>")])
    fields: dict[str, list[str]] = {}
    for name, value in hidden:
        fields.setdefault(name, []).append(unescape(value))
    return client.post(path, data=fields)


def path_of(url: str) -> str:
    """A link of ours without its host."""
    return url.removeprefix("http://localhost")


def ring(
    client: FlaskClient, body: str, secret: str = "whsec_kassa_sandbox", path: str = "/stripe/webhook/"
) -> TestResponse:
    """Send a webhook as Stripe does, signed with `secret`."""
    signature = WebhookSignature.generate_signature_header(body, secret)
    return client.post(path, data=body, headers={"Stripe-Signature": signature})


def status(client: FlaskClient, order: Order) -> dict[str, Any]:
    """The order as its JSON tells it."""
    answer: dict[str, Any] = client.get(f"/o/{order.code}/{order.secret}.json").get_json()
    return answer
