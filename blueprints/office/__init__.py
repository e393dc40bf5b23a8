"""The back office: orders, the money inbox, organisers, records, what runs, set-up and health.

Most pages are on the one blueprint of blueprint.py, which lets only admins in; the page of the provider
under /stripe/debug/ is for whoever develops.
"""

from __future__ import annotations

from flask import Flask

from blueprints.office import (
    audit,
    blueprint,
    connections,
    doors,
    health,
    inbox,
    listings,
    orders,
    organisers,
    persons,
    records,
    rings,
    running,
    setup,
    statistics,
    told,
    wallets,
)

# Importing the others puts their views on the one blueprint.
__all__ = [
    "audit",
    "doors",
    "inbox",
    "orders",
    "organisers",
    "persons",
    "register",
    "rings",
    "running",
    "statistics",
    "told",
]


def register(app: Flask) -> None:
    """Add these pages to the application."""
    setup.register(app)
    app.register_blueprint(blueprint.bp)
    app.register_blueprint(blueprint.debug_bp)
    records.register(app)
    for own in (connections, listings, wallets):
        app.register_blueprint(own.bp)
    health.register(app)
