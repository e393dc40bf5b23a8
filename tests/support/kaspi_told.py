"""Kaspi where it cannot be asked: by hand, and by its calls."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

import config
from domain.payments import starting
from models import Event, Order, Payment, PaymentState
from tests.support.shop import make_event, place

PATH = "kassa-biller-path-for-tests"
KASPI = "194.187.247.152"
PRICE = 500_000


def use_manual(**changes: Any) -> None:
    """Let Kaspi be paid by hand, above 100 000 ₸ by two people's word."""
    told = {"kaspi_mode": "manual", "kaspi_manual_text": "Kaspi Gold +7 701 000 00 00, Aigerim S."}
    config.use(replace(config.get(), **{**told, "kaspi_test": True, **changes}))


def use_biller(**changes: Any) -> None:
    """Let Kaspi call us, believed up to 100 000 ₸."""
    told: dict[str, Any] = {
        "kaspi_mode": "biller",
        "kaspi_biller_path": PATH,
        "kaspi_biller_ips": (KASPI,),
        "kaspi_biller_service": "KassaTickets",
        "kaspi_test": True,
    }
    config.use(replace(config.get(), **{**told, **changes}))


def event_in_tenge(price_minor: int = PRICE, **more: Any) -> Event:
    """An event that is paid for through Kaspi."""
    return make_event(price_minor=price_minor, currency="KZT", providers=["kaspi"], **more)


def ordered(event: Event | None = None, quantity: int = 1) -> tuple[Order, Payment]:
    """An order with its open payment."""
    order = place(event or event_in_tenge(), quantity)
    payment = starting.open_at_provider(order)
    assert payment is not None and payment.state is PaymentState.OPEN, payment
    return payment.order, payment


def call(
    client: FlaskClient, command: str, account: str, *, path: str = PATH, address: str = KASPI, **more: str
) -> TestResponse:
    """What Kaspi's server sends; `address` is where the front says that it came from."""
    query = {"command": command, "account": account, "txn_id": "100200300", "sum": "200.00", **more}
    headers = {"X-Forwarded-For": address}
    return client.get(f"/kaspi/biller/{path}", query_string=query, headers=headers)
