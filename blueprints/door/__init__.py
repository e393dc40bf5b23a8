"""At an event's door: entering with a link and PIN, scanning, looking people up."""

from __future__ import annotations

from flask import Flask

from blueprints.door import scanning


def register(app: Flask) -> None:
    """Add these pages to the application."""
    app.register_blueprint(scanning.bp)
