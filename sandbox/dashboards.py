"""The seam between /control and the providers: what each of them can show and do there."""

from __future__ import annotations

from typing import Any, Protocol

Body = dict[str, Any]


class BadRequest(Exception):
    """The request makes no sense; its text says what would (400)."""


class NotFound(Exception):
    """There is no such thing (404)."""


class Conflict(Exception):
    """It cannot happen in the state that things are in; the text says why (409)."""


class Dashboard(Protocol):
    """One provider's payments, as /control sees them."""

    name: str

    def has(self, payment_id: str) -> bool:
        """Whether an id has the form of this provider's."""

    def payments(self, limit: int) -> list[Body]:
        """The newest `limit` payments, newest first."""

    def payment(self, payment_id: str) -> Body:
        """One payment. Raises NotFound."""

    def act(self, payment_id: str, request: Body) -> Body:
        """Do what `request["do"]` says; the payment as it is then. Raises the three above."""
