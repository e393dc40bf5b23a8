"""A member's wallet: its balance, top-ups, and the agents that are paid from it."""

from __future__ import annotations

from flask import Flask

from blueprints.wallet import pages


def register(app: Flask) -> None:
    """Add these pages to the application."""
    app.register_blueprint(pages.bp)
