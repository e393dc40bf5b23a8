"""A line in the log for each question that a provider was asked, and what it said.

In development each begins with the provider's name, as `[STRIPE DEBUG]`, so that it is found among the rest.
"""

from __future__ import annotations

import structlog

import config
from domain.providers import bulkhead, registry
from domain.providers.contract import ProviderError, Report
from models import Payment

_log = structlog.get_logger(__name__)
# What providers call the words of theirs that a state is made of, in the evidence of a report.
_STATUS = ("status", "payment_status", "payment_intent_status")


def answered(payment_id: int, report: Report, *, door: str, latency: float = 0.0) -> None:
    """The provider said something. What is in our own ledger, or was told, was not asked."""
    provider = registry.get(report.provider) if report.provider in registry.names() else None
    if provider is None or provider.immediate or not provider.can.ask:
        return
    told = "/".join(str(report.raw[name]) for name in _STATUS if report.raw.get(name))
    _log.info(
        _event(report.provider),
        payment_id=payment_id,
        payment=report.reference,
        provider_id=report.provider_id,
        status=told or report.state,
        state=report.state,
        amount_minor=report.amount_minor,
        currency=report.currency,
        door=door,
        ms=round(latency * 1000),
    )


def unanswered(payment: Payment, error: ProviderError, *, door: str) -> None:
    """The provider said nothing usable. Where there was no room, nobody asked."""
    if error.code == bulkhead.NO_ROOM:
        return
    _log.warning(
        _event(payment.provider),
        payment_id=payment.id,
        payment=payment.reference,
        provider_id=payment.provider_id,
        status="no answer",
        error=error.code,
        amount_minor=payment.amount_minor,
        currency=payment.currency,
        door=door,
    )


def listed(provider: str, account: str, found: int, *, door: str) -> None:
    """One page of the provider's list told of `found` payments that were due."""
    _log.info(_event(provider), account=account, status="list", payments=found, door=door)


def _event(provider: str) -> str:
    return f"[{provider.upper()} DEBUG] asked" if config.get().development else "asked"
