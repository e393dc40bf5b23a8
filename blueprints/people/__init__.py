"""A member's account: registering, logging in, passwords, orders, devices, keys."""

from __future__ import annotations

from flask import Flask

from blueprints import access, proofs
from blueprints.people import account, api_access, data, devices, factors, login_steps

# Importing it puts its views on the account's blueprint.
__all__ = ["data", "register"]


def register(app: Flask) -> None:
    """Add these pages to the application."""
    app.register_blueprint(account.bp)
    app.register_blueprint(login_steps.bp)
    app.register_blueprint(devices.bp)
    app.register_blueprint(factors.bp)
    app.register_blueprint(api_access.bp)
    access.register(app)
    proofs.register(app)
