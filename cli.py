"""The operator's edge: `flask payments sweep --verbose`, `flask doctor`, and the rest."""

from __future__ import annotations

from flask import Flask


def register(app: Flask) -> None:
    """Add every command to the application."""
