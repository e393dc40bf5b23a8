"""Webhooks: a ring tells which payment to look at, and is never evidence of anything itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from time import perf_counter
from typing import Any, Protocol

from limits import RateLimitItemPerMinute
from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert

import config
from domain import clock
from domain.errors import NotFound
from domain.payments import adopting, event_log, lookup, poll_schedule, reconciling, settling
from domain.providers import contract, registry
from domain.providers.contract import ProviderError
from domain.security import rate_limits
from extensions import db, network
from models import Payment, PaymentState, WebhookEvent

# What is not signed can come from anybody: so often it is listened to from one network, and of one payment.
UNSIGNED_NETWORK = RateLimitItemPerMinute(600, namespace="kassa_ring_network")
UNSIGNED_PAYMENT = RateLimitItemPerMinute(20, namespace="kassa_ring_payment")


class Rings(contract.Provider, contract.Doorbell, Protocol):
    """A provider that answers its door."""


def ring(provider_name: str, body: bytes, headers: Mapping[str, str], *, address: str = "") -> int:
    """A webhook: look at the payment it speaks of. Returns the HTTP status to answer with.

    `headers` by names in lower case; `address` is where it comes from. A signed event is marked done in the
    transaction that settled it; 503 and 429 make the provider ring again.
    """
    provider = doorbell(provider_name)
    if provider is None:
        return 404
    began, rung, status = perf_counter(), None, 500
    try:
        rung = provider.ring(body, headers)
        status = _heard(provider_name, provider, rung, address)
    except contract.BadSignature:
        status = 400
    finally:
        # Also where it ended in an error of ours, which is in the log beside it.
        event_log.webhook_processed(provider_name, rung, status, round((perf_counter() - began) * 1000))
    return status


def doorbell(provider_name: str) -> Rings | None:
    """The adapter that answers the door for a provider; None where nobody does."""
    provider = registry.get(provider_name) if provider_name in registry.names() else None
    return provider if isinstance(provider, contract.Doorbell) and provider.rings else None


def _heard(provider_name: str, provider: Rings, rung: contract.Ring, address: str) -> int:
    if not rung.event_id:
        return _unsigned(provider_name, rung, address)
    return _signed(provider_name, provider, rung)


def _unsigned(provider_name: str, rung: contract.Ring, address: str) -> int:
    """A ring that anybody may have made: at most it makes us ask, and seldom. It is not remembered."""
    if not rate_limits.count(UNSIGNED_NETWORK, network(address)):
        return 429
    payment = behind(provider_name, rung)
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


def _signed(provider_name: str, provider: Rings, rung: contract.Ring) -> int:
    payment = behind(provider_name, rung)
    if payment is not None and rung.only_of_paying and payment.state is PaymentState.PAID:
        # Settled already: the provider need not be asked what it says of a payment that it was paid.
        _note_done(provider_name, rung, "paid before")
        db.session.commit()
        return 200
    payment_id = payment.id if payment is not None else None
    event = _remember(provider_name, rung)
    if event.done_at is not None:
        return 200
    return 503 if _act_on(event.id, payment_id, provider, rung, door="webhook") is not None else 200


def look_again(event_id: int, *, actor_id: int) -> ProviderError | None:
    """A person has a ring looked at again that was remembered and not acted on. Commits.

    What is still in the way, or None where it is done. An answer that asking again cannot change is the
    ring's end, too: the payment itself is told of elsewhere. Raises NotFound.
    """
    event = db.session.get(WebhookEvent, event_id, populate_existing=True)
    if event is None:
        raise NotFound("no_ring", "There is no such ring.")
    if event.done_at is not None:
        return None
    provider, rung = doorbell(event.provider), remembered(event)
    if provider is None:
        return ProviderError("This provider's doorbell is off.", permanent=False, code="not_configured")
    payment = behind(event.provider, rung)
    payment_id = payment.id if payment is not None else None
    error = _act_on(event_id, payment_id, provider, rung, door="recheck", actor_id=actor_id)
    if error is None or not error.permanent:
        return error
    settling.mark_done(event_id, _words(error))
    db.session.commit()
    return None


def _act_on(
    event_id: int,
    payment_id: int | None,
    provider: Rings,
    rung: contract.Ring,
    *,
    door: str,
    actor_id: int | None = None,
) -> ProviderError | None:
    """Look at what a remembered ring speaks of, and mark it done. What was in the way, if anything."""
    if payment_id is None:
        error = _unknown(provider, rung, event_id)
    else:
        told = rung.event_id if rung.of_a_decline else ""
        outcome = reconciling.reconcile(payment_id, door=door, actor_id=actor_id, ring_id=event_id, rung=told)
        error = outcome.error
        if error is None:
            settling.mark_done(event_id, outcome.state.value)
            db.session.commit()
    if error is not None:
        _failed(event_id, error)
    return error


def _unknown(provider: Rings, rung: contract.Ring, event_id: int) -> ProviderError | None:
    """An event about nothing we know. Money that this Kassa asked for and lost the record of is told."""
    outcome = "no payment of ours"
    if rung.provider_id is not None and rung.site == config.get().public_url:
        db.session.rollback()
        try:
            report = provider.fetch(rung.provider_id)
        except ProviderError as error:
            return error
        if lookup.on_record(report):
            # It was written down meanwhile, or the answer is about another payment: the next ring finds it.
            return ProviderError("It was written down meanwhile.", permanent=False, code="written_down")
        if report.state == "paid":
            adopting.take_in(report, door="webhook")
            outcome = "paid, but not in the database"
    settling.mark_done(event_id, outcome)
    db.session.commit()
    return None


def _failed(event_id: int, error: ProviderError) -> None:
    """Remember why a ring was not acted on, for whoever looks for it. One that is done stays so."""
    row = WebhookEvent.__table__.c
    db.session.execute(
        update(WebhookEvent)
        .where(row.id == event_id, row.done_at.is_(None))
        .values(outcome=_words(error), tried_at=clock.now(), tries=row.tries + 1)
        .execution_options(synchronize_session=False)
    )
    db.session.commit()


def _words(error: ProviderError) -> str:
    return f"{error.code or 'no answer'}: {error}"[:200]


# Made once: making a statement costs more than PostgreSQL's part of it.
_ADD = insert(WebhookEvent.__table__)  # type: ignore[arg-type]
_ADD_IF_NEW = _ADD.on_conflict_do_nothing()
_ADD_DONE = _ADD.on_conflict_do_update(
    index_elements=["provider", "event_id"],
    set_={
        "done_at": _ADD.excluded.done_at,
        "outcome": _ADD.excluded.outcome,
        "names": _ADD.excluded.names,
    },
    where=WebhookEvent.__table__.c.done_at.is_(None),
)


def _row(
    provider_name: str, rung: contract.Ring, names: dict[str, str | bool] | None = None
) -> dict[str, Any]:
    return {
        "provider": provider_name,
        "event_id": rung.event_id,
        "type": rung.type,
        "object_id": rung.object_id,
        "received_at": clock.now(),
        "done_at": None,
        "outcome": "",
        "names": names,
    }


# What a ring tells beside its columns: names of what it is about, and nothing of whoever paid.
_BESIDE = tuple(
    field.name for field in fields(contract.Ring) if field.name not in ("event_id", "type", "object_id")
)


def _names(rung: contract.Ring) -> dict[str, str | bool]:
    return {name: value for name in _BESIDE if (value := getattr(rung, name))}


def remembered(event: WebhookEvent) -> contract.Ring:
    """The ring as it came. Of one that an earlier version remembered, its object may be any of the names."""
    known = {name: value for name, value in (event.names or {}).items() if name in _BESIDE}
    if event.names is None and event.object_id:
        known = dict.fromkeys(("provider_id", "charge_id", "reference"), event.object_id)
    return contract.Ring(event.event_id, event.type, event.object_id, **known)


def _remember(provider_name: str, rung: contract.Ring) -> WebhookEvent:
    """The row of an event, made and committed at its first ring."""
    query = select(WebhookEvent).filter_by(provider=provider_name, event_id=rung.event_id)
    found = db.session.scalar(query)
    if found is None:
        db.session.execute(_ADD_IF_NEW, _row(provider_name, rung, _names(rung)))
        db.session.commit()
        found = db.session.scalars(query).one()
    return found


def _note_done(provider_name: str, rung: contract.Ring, outcome: str) -> None:
    """The row of an event that needs nothing, in one statement; one that was marked done stays as it is."""
    db.session.execute(_ADD_DONE, _row(provider_name, rung) | {"done_at": clock.now(), "outcome": outcome})


def behind(provider_name: str, rung: contract.Ring) -> Payment | None:
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
