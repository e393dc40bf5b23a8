"""What anybody may hear of how payments are: whether each provider answers, as far as that is known.

It is told from what our own calls have told within the last minute, and never makes one: who asks here pays
nothing, and could otherwise use up an account's rate. What is older is not told as if it were so now: then a
provider is `configured`, which means that it has its keys, and no more.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from domain import clock
from domain.office import health
from domain.providers import knowledge, registry


class Service(StrEnum):
    """A provider: its last call was answered, or was not; nothing is known of it; it has no keys."""

    CONNECTED = "connected"
    UNAVAILABLE = "unavailable"
    CONFIGURED = "configured"
    OFF = "off"


class Status(StrEnum):
    """All is well; a provider does not answer, so that payments wait; nothing goes without the database."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True)
class Health:
    """The whole. `services` by the providers' names, without those whose money is in our own ledger."""

    status: str
    services: dict[str, str]
    timestamp: datetime

    def as_dict(self) -> dict[str, Any]:
        """As the API tells it: the time in UTC to the second, such as 2026-11-29T14:00:00Z."""
        return {
            "status": self.status,
            "services": self.services,
            "timestamp": f"{self.timestamp:%Y-%m-%dT%H:%M:%SZ}",
        }


def told() -> Health:
    """What is known now. One small question to the database and one to Redis; none to a provider."""
    providers = {name: registry.get(name) for name in registry.names()}
    ready = {name: provider.ready for name, provider in providers.items() if not provider.immediate}
    words = knowledge.last(name for name, is_ready in ready.items() if is_ready)
    services = {name: _service(is_ready, words.get(name)).value for name, is_ready in ready.items()}
    return Health(_status(services).value, services, clock.now())


def _service(is_ready: bool, word: knowledge.Word | None) -> Service:
    if not is_ready:
        return Service.OFF
    if word is None:
        return Service.CONFIGURED
    return Service.CONNECTED if word.answered else Service.UNAVAILABLE


def _status(services: dict[str, str]) -> Status:
    if not health.alive():
        return Status.UNHEALTHY
    return Status.DEGRADED if Service.UNAVAILABLE in services.values() else Status.HEALTHY
