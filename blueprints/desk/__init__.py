"""What who answers the telephone sees: orders, to search, read, note on and resend; and nothing else."""

from __future__ import annotations

from flask import Flask

from blueprints.desk import pages


def register(app: Flask) -> None:
    """Add these pages to the application."""
    app.register_blueprint(pages.bp)
