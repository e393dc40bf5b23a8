"""What buyers see: events, the order page, coming back from a provider, and the providers' rings."""

from __future__ import annotations

from flask import Flask

from blueprints.shop import events, order_page, pay_page, payments, waiting_line

# Its pages are the events': it is named here so that they are there.
__all__ = ["waiting_line"]


def register(app: Flask) -> None:
    """Add these pages to the application."""
    for pages in (events, order_page, pay_page, payments):
        app.register_blueprint(pages.bp)
