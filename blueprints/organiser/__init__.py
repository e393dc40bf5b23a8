"""What organisers see: their profile, events, sales, accounts at providers, and publishing.

The first three are on the one blueprint of blueprint.py, which lets only organisers in.
"""

from __future__ import annotations

from flask import Flask

from blueprints.organiser import (
    blueprint,
    connections,
    desk,
    events,
    profile,
    publishing,
    sales,
    tournaments,
)

# Importing the others puts their views on the one blueprint.
__all__ = ["desk", "events", "profile", "register", "sales", "tournaments"]


def register(app: Flask) -> None:
    """Add these pages to the application."""
    app.register_blueprint(blueprint.bp)
    for own in (connections, publishing):
        app.register_blueprint(own.bp)
