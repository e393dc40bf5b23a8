"""What athletes and their guardians see: tournaments, entering one, and a member's athletes and entries."""

from __future__ import annotations

from flask import Flask

from blueprints.tournaments import athletes, entering


def register(app: Flask) -> None:
    """Add these pages to the application."""
    for pages in (entering, athletes):
        app.register_blueprint(pages.bp)
