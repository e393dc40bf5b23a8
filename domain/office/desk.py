"""What a desk reads: the orders of its events, and one of them with all that was observed about it."""

from __future__ import annotations

from domain import paging
from domain.office import overview
from domain.office.overview import OrderFile
from domain.people.desks import Desk
from models import Order, OrderState


def orders(
    desk: Desk, words: str = "", state: OrderState | None = None, before: int | None = None
) -> paging.Rows[Order]:
    """As `overview.orders`, as far as this desk sees."""
    return overview.orders(words, state, before, organisers=desk.organisers)


def order_file(desk: Desk, code: str) -> OrderFile:
    """As `overview.order_file`. NotFound alike for another organiser's, and for none."""
    return overview.order_file(code, organisers=desk.organisers)
