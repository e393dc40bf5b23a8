"""A member's account: registering, logging in, passwords, orders."""

from __future__ import annotations

from flask import Flask

from blueprints import access
from blueprints.people import account


def register(app: Flask) -> None:
    """Add these pages to the application."""
    app.register_blueprint(account.bp)
    access.register(app)
