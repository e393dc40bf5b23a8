"""The API of /api/v1: what a program can do for a member, without a page.

A file has one area's endpoints, each declared with who may, what comes in and out, and what may be wrong
(`endpoint.py`); from the same lines the document is made (`document.py`) that /api/v1/docs shows. `areas.py`
lists them. `errors.py` answers everything that is wrong below /api/v1, for `app.py` and `front.py` too.
"""

from __future__ import annotations

from flask import Flask


def register(app: Flask) -> None:
    """Add the API to the application."""
    # Loaded now: whoever wants the errors' shape alone need not load every endpoint.
    from blueprints.api import areas

    areas.register(app)
