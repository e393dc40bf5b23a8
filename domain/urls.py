"""Addresses of our own pages, as they stand in mails and files. Templates of pages say `order.path`."""

from __future__ import annotations

import config
from models import Event, Order


def order(order: Order) -> str:
    """An order's own page: whoever has this address has the order."""
    return f"{config.get().public_url}{order.path}"


def event(event: Event) -> str:
    """The page on which an event is sold."""
    return f"{config.get().public_url}{event.path}"
