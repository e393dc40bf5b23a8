"""Webhooks: a ring tells which payment to look at, and is never evidence of anything itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from limits import RateLimitItemPerMinute
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

import config
from domain import clock
from domain.payments import incidents, lookup, poll_schedule, reconciling, settling
from domain.providers import contract, registry
from domain.providers.contract import ProviderError
from domain.security import rate_limits
from extensions import db, network
from models import Payment, PaymentState, WebhookEvent

# What is not signed can come from anybody: so often it is listened to from one network, and of one payment.
UNSIGNED_NETWORK = RateLimitItemPerMinute(600, namespace="kassa_ring_network")
UNSIGNED_PAYMENT = RateLimitItemPerMinute(20, namespace="kassa_ring_payment")


def ring(provider_name: str, body: bytes, headers: Mapping[str, str], *, address: str = "") -> int:
    """A webhook: look at the payment it speaks of. Returns the HTTP status to answer with.

    `headers` by names in lower case; `address` is where it comes from. A signed event is marked done in the
    transaction that settled it; 503 and 429 make the provider ring again.
    """
    provider = registry.get(provider_name) if provider_name in registry.names() else None
    if not isinstance(provider, contract.Doorbell) or not provider.rings:
        return 404
    try:
        rung = provider.ring(body, headers)
    except contract.BadSignature:
        return 400
    if not rung.event_id:
        return _unsigned(provider_name, rung, address)
    return _signed(provider_name, provider, rung)


def _unsigned(provider_name: str, rung: contract.Ring, address: str) -> int:
    """A ring that anybody may have made: at most it makes us ask, and seldom. It is not remembered."""
    if not rate_limits.count(UNSIGNED_NETWORK, network(address)):
        return 429
    payment = _behind(provider_name, rung)
    if payment is None:
        return 200
    # Counted only for payments that exist, so that nobody can fill the counters with invented ones.
    if not rate_limits.count(UNSIGNED_PAYMENT, payment.reference):
        return 429
    payment_id, active = payment.id, payment.is_active
    if not poll_schedule.may_ask(payment):
        # Somebody asked just now. What this ring tells may be newer, so it is to come again.
        return 429 if active else 200
    outcome = reconciling.reconcile(payment_id, door="webhook")
    return 503 if outcome.error is not None else 200


def _signed(provider_name: str, provider: contract.Provider, rung: contract.Ring) -> int:
    payment = _behind(provider_name, rung)
    if payment is not None and rung.only_of_paying and payment.state is PaymentState.PAID:
        # Settled already: the provider need not be asked what it says of a payment that it was paid.
        _note_done(provider_name, rung, "paid before")
        db.session.commit()
        return 200
    payment_id = payment.id if payment is not None else None
    event = _remember(provider_name, rung)
    if event.done_at is not None:
        return 200
    event_id = event.id
    if payment_id is None:
        return _unknown(provider, rung, event_id)
    told = rung.event_id if rung.of_a_decline else ""
    outcome = reconciling.reconcile(payment_id, door="webhook", ring_id=event_id, rung=told)
    if outcome.error is not None:
        return 503
    settling.mark_done(event_id, outcome.state.value)
    db.session.commit()
    return 200


def _unknown(provider: contract.Provider, rung: contract.Ring, event_id: int) -> int:
    """An event about nothing we know. Money that this Kassa asked for and lost the record of is told."""
    outcome = "no payment of ours"
    if rung.provider_id is not None and rung.site == config.get().public_url:
        db.session.rollback()
        try:
            report = provider.fetch(rung.provider_id)
        except ProviderError:
            return 503
        if lookup.on_record(report):
            # It was written down meanwhile, or the answer is about another payment: the next ring finds it.
            return 503
        if report.state == "paid":
            incidents.open_unknown(report)
            outcome = "paid, but not in the database"
    settling.mark_done(event_id, outcome)
    db.session.commit()
    return 200


# Made once: making a statement costs more than PostgreSQL's part of it.
_ADD = insert(WebhookEvent.__table__)  # type: ignore[arg-type]
_ADD_IF_NEW = _ADD.on_conflict_do_nothing()
_ADD_DONE = _ADD.on_conflict_do_update(
    index_elements=["provider", "event_id"],
    set_={"done_at": _ADD.excluded.done_at, "outcome": _ADD.excluded.outcome},
    where=WebhookEvent.__table__.c.done_at.is_(None),
)


def _row(provider_name: str, rung: contract.Ring) -> dict[str, Any]:
    return {
        "provider": provider_name,
        "event_id": rung.event_id,
        "type": rung.type,
        "object_id": rung.object_id,
        "received_at": clock.now(),
        "done_at": None,
        "outcome": "",
    }


def _remember(provider_name: str, rung: contract.Ring) -> WebhookEvent:
    """The row of an event, made and committed at its first ring."""
    query = select(WebhookEvent).filter_by(provider=provider_name, event_id=rung.event_id)
    found = db.session.scalar(query)
    if found is None:
        db.session.execute(_ADD_IF_NEW, _row(provider_name, rung))
        db.session.commit()
        found = db.session.scalars(query).one()
    return found


def _note_done(provider_name: str, rung: contract.Ring, outcome: str) -> None:
    """The row of an event that needs nothing, in one statement; one that was marked done stays as it is."""
    db.session.execute(_ADD_DONE, _row(provider_name, rung) | {"done_at": clock.now(), "outcome": outcome})


def _behind(provider_name: str, rung: contract.Ring) -> Payment | None:
    """The payment an event speaks of, by whichever of its names we know."""
    names = (
        (Payment.provider_id, rung.provider_id),
        (Payment.charge_id, rung.charge_id),
        (Payment.reference, rung.reference),
    )
    for column, value in names:
        if value is not None:
            found = db.session.scalar(
                select(Payment).where(Payment.provider == provider_name, column == value)
            )
            if found is not None:
                return found
    return None
