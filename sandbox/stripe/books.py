"""What Stripe's books are made of: objects, the events that tell of them, and work for later."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from sandbox.clock import Clock
from sandbox.store import Store, Stored
from sandbox.stripe import objects
from sandbox.stripe.wire import missing

Body = dict[str, Any]

SESSION, INTENT, CHARGE, REFUND = "checkout.session", "payment_intent", "charge", "refund"
DISPUTE, METHOD, BALANCE, EVENT = "dispute", "payment_method", "balance_transaction", "event"
# The idempotency key of the request that is being worked on, for its events.
request_key: ContextVar[str | None] = ContextVar("request_key", default=None)
# An update of these events says what was there before.
_TELL_BEFORE = (".updated", ".refunded", ".closed")


class Impossible(Exception):
    """The provider refuses: wrong state, or more than there is. `code` is Stripe's word where it has one."""

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


class Books:
    """All of Stripe that belongs to our account. `ring` is told of every event, to send webhooks.

    But for `ready`, every method must be called inside `ready()` or the store's transaction.
    """

    def __init__(self, store: Store, clock: Clock, ring: Callable[[Body, str], None]) -> None:
        self.store = store
        self.clock = clock
        self._ring = ring
        # What to do with an object when scheduled work of a kind is due.
        self._when_due: dict[str, Callable[[Stored], object]] = {}

    @contextmanager
    def ready(self) -> Iterator[None]:
        """The store's transaction. Refunds that are due are done first; sessions expire as they are read."""
        with self.store.transaction():
            while self.run_due(but="expire"):
                pass
            yield

    def now(self) -> int:
        return int(self.clock.now())

    def get(self, kind: str, object_id: str, param: str = "id") -> Stored:
        """An object as of now: what is due for it has happened. Raises ApiError 404."""
        self.run_due(object_id=object_id)
        stored = self.store.find(kind, object_id)
        if stored is None:
            raise missing(kind, object_id, param)
        return stored

    def run_due(self, limit: int = 100, object_id: str | None = None, but: str = "") -> int:
        """Let happen what time has brought, oldest first; how many things that were."""
        due = self.store.take_due(self.clock.now(), limit, object_id, but)
        for action, due_id in due:
            stored = self.store.find(SESSION if action == "expire" else REFUND, due_id)
            if stored is not None:
                self._when_due[action](stored)
        return len(due)

    def _balance(self, source: str, kind: str, amount: int, fee: int, currency: str) -> str:
        body = objects.balance_transaction(source, kind, amount, fee, currency, self.now())
        self.store.add(BALANCE, body)
        return str(body["id"])

    def _set(self, stored: Stored, event: str, **values: Any) -> None:
        """Change fields, keep the object, and tell of it."""
        before = {name: stored.body.get(name) for name, new in values.items() if stored.body.get(name) != new}
        stored.body.update(values)
        self.store.save(stored)
        self._emit(event, stored.body, before if event.endswith(_TELL_BEFORE) else None)

    def _emit(self, kind: str, body: Body, before: Body | None = None) -> None:
        event = objects.event(kind, copy.deepcopy(body), before, request_key.get(), self.now())
        self.store.add(EVENT, event)
        self._ring(event, str(body.get("payment_intent") or body["id"]))
