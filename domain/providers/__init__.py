"""The contract between Kassa and a payment provider.

An adapter turns a provider's API into `Report`s: what the provider says about a payment, in Kassa's words.
It holds no state of ours, imports neither models nor the database, and decides nothing. The rules that
apply a report are in `domain/payments.py` and are the same for every provider.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib import import_module
from threading import Lock
from time import monotonic, sleep
from typing import Any, Protocol, runtime_checkable

import config
from domain.errors import DomainError


class ProviderError(Exception):
    """A call that gave no usable answer. Unknown is not unpaid: it never changes a payment's state.

    `permanent` means that repeating the same call cannot help (refused parameters, an unknown id).
    `code` is the provider's own word for it, for the log and the timeline.
    """

    def __init__(self, message: str, *, permanent: bool, code: str = "") -> None:
        super().__init__(message)
        self.permanent = permanent
        self.code = code


class Missing(ProviderError):
    """The provider answered that it has no such object."""

    def __init__(self, message: str) -> None:
        super().__init__(message, permanent=True, code="not_found")


@dataclass(frozen=True)
class LineItem:
    """A line as the provider's page shows it. `unit_minor` in the payment's currency."""

    name: str
    quantity: int
    unit_minor: int


@dataclass(frozen=True)
class Purchase:
    """What a provider needs to know in order to take a payment."""

    reference: str
    order_code: str
    amount_minor: int
    currency: str
    lines: tuple[LineItem, ...]
    email: str
    success_url: str
    cancel_url: str
    closes_at: datetime
    account: str


@dataclass(frozen=True)
class RefundReport:
    """What a provider says about one refund. `state`: pending, succeeded, failed or cancelled."""

    provider_id: str
    amount_minor: int
    currency: str
    state: str
    reason: str = ""
    # Our own id of the refund, where the provider keeps one for us; else "".
    our_key: str = ""


@dataclass(frozen=True)
class DisputeReport:
    """What a provider says about one dispute. `state`: open, won or lost."""

    provider_id: str
    amount_minor: int
    currency: str
    state: str
    status: str
    reason: str = ""


@dataclass(frozen=True)
class Report:
    """What a provider says about one payment, read from its API.

    `state` is one of open, processing, paid, failed, cancelled, expired. `amount_minor` and `currency` (upper
    case) are what is asked for or was paid; `reference` is ours as the provider kept it.
    """

    provider: str
    provider_id: str
    state: str
    amount_minor: int
    currency: str
    reference: str
    account: str
    livemode: bool
    created_at: datetime | None = None
    expires_at: datetime | None = None
    url: str | None = None
    charge_id: str | None = None
    reason: str = ""
    refunds: tuple[RefundReport, ...] = ()
    disputes: tuple[DisputeReport, ...] = ()
    # There are refunds or disputes that this report leaves out: read the payment by its id to have them.
    incomplete: bool = False
    raw: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Provider(Protocol):
    """What every adapter can do. Each method makes provider calls; none touches the database.

    `patient` tells whether the caller may wait: False in a web request (one attempt of 5 seconds), True in
    the worker (bounded retries). Every method raises ProviderError when it gets no usable answer.
    """

    name: str
    label: str
    # True where the money is in our own ledger, so that starting a payment also settles it.
    immediate: bool

    @property
    def ready(self) -> bool:
        """Whether it is configured, so that a payment may be offered through it."""

    @property
    def account(self) -> str:
        """The account that receives the money, as it is written into payments and the ledger."""

    @property
    def livemode(self) -> bool:
        """Whether this adapter moves real money."""

    def supports(self, currency: str) -> bool:
        """Whether a payment in `currency` can be taken."""

    def minimum_minor(self, currency: str) -> int:
        """The smallest amount that can be taken, in minor units."""

    def params(self, purchase: Purchase) -> dict[str, Any]:
        """The exact parameters of the create call, JSON-serialisable, to be stored before it is made."""

    def create(self, params: dict[str, Any], key: str, *, patient: bool = False) -> Report:
        """Open a payment at the provider with stored parameters under an idempotency key."""

    def find(self, reference: str, since: datetime, *, patient: bool = True) -> Report | None:
        """Look for a payment by our reference in the provider's list; None when it is certainly absent.

        Where a person waits (`patient` is False), a long list is not read through: that is a ProviderError.
        """

    def fetch(self, provider_id: str, *, patient: bool = False, thorough: bool = False) -> Report:
        """Read one payment. `thorough` also asks for its refunds and disputes when nothing hints at any.

        Raises Missing when the provider has no such payment.
        """

    def pages(self, since: datetime, until: datetime) -> Iterator[list[Report]] | None:
        """Reports of the payments created between two times, a page a provider call; None: cannot list."""

    def close(self, provider_id: str, key: str, *, patient: bool = False) -> None:
        """Ask that the payment can no longer be paid. Harmless when it is final already."""

    def refund(self, provider_id: str, amount_minor: int, key: str, *, patient: bool = False) -> RefundReport:
        """Send `amount_minor` back for a paid payment under our key; the same key is the same refund."""

    def find_refund(self, provider_id: str, key: str) -> RefundReport | None:
        """The refund that was made under our key; None when it is certainly absent."""

    def health(self) -> Mapping[str, Any]:
        """A cheap call that proves the connection: account, mode, API version. Never a key."""


@runtime_checkable
class Doorbell(Protocol):
    """A provider that rings: turns a signed request into the thing to look at."""

    @property
    def rings(self) -> bool:
        """Whether the doorbell is configured. Without it everything else works."""

    def ring(self, body: bytes, signature: str) -> Ring:
        """Check the signature and read the event. BadSignature when it is not genuine."""


@dataclass(frozen=True)
class Ring:
    """An event that came to the door: which payment to look at, by any of the ids it may carry."""

    event_id: str
    type: str
    object_id: str
    provider_id: str | None = None
    charge_id: str | None = None
    reference: str | None = None
    # The PUBLIC_URL of the Kassa that opened the payment: another may use the same account.
    site: str | None = None
    # The event can tell nothing but that the payment was made, or is being made.
    only_of_paying: bool = False


class BadSignature(Exception):
    """A doorbell request that is not genuine, or not readable."""


class Calls:
    """Counts provider calls in this process, for the sweep's record and for tests."""

    def __init__(self) -> None:
        self.total = 0
        self._lock = Lock()

    def add(self) -> None:
        with self._lock:
            self.total += 1


calls = Calls()


class Throttle:
    """At most `rate` calls a second for one account in this process; waits, but not for ever."""

    def __init__(self, rate: int) -> None:
        self.spacing = 1 / rate
        self._next = 0.0
        self._lock = Lock()

    def wait(self, longest: float) -> None:
        """Take the next place in the line. Raises a passing ProviderError when it is too far off."""
        with self._lock:
            now = monotonic()
            place = max(now, self._next)
            if place - now > longest:
                raise ProviderError(
                    "Too many calls are waiting for this account.", permanent=False, code="throttled"
                )
            self._next = place + self.spacing
        sleep(place - now)


_BUILDERS: dict[str, str] = {"stripe": "domain.providers.stripe", "wallet": "domain.providers.wallet"}
_cache: dict[str, tuple[config.Settings, Provider]] = {}


def get(name: str) -> Provider:
    """The adapter for `name`, built from the settings in force and kept. DomainError for an unknown one."""
    if name not in _BUILDERS:
        raise DomainError("unknown_provider", f"There is no way to pay called “{name}”.")
    settings = config.get()
    cached = _cache.get(name)
    if cached is None or cached[0] is not settings:
        cached = (settings, import_module(_BUILDERS[name]).build(settings))
        _cache[name] = cached
    return cached[1]


def names() -> Iterable[str]:
    """Every provider Kassa knows, whether it is configured or not."""
    return tuple(_BUILDERS)
