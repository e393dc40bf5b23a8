"""Which providers there are, and the adapters of their accounts, built when they are first asked for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from importlib import import_module
from threading import RLock

import config
from domain.errors import DomainError
from domain.providers.contract import Credentials, Provider, ProviderError

# Each module has `build(settings)`, the adapter of the provider's own account; where it connects, also
# `build(settings, account, credentials)` for the account of an organiser.
_BUILDERS: dict[str, str] = {
    "stripe": "domain.providers.stripe",
    "sumup": "domain.providers.sumup",
    "kaspi": "domain.providers.kaspi",
    "wallet": "domain.providers.wallet",
}
# Adapters hold sockets and their account's place in line, so they are kept; the longest unused one goes.
_MOST_KEPT = 500
_kept: OrderedDict[tuple[str, str], Provider] = OrderedDict()
_kept_for: config.Settings | None = None
_keeping = RLock()


class _Nobody:
    """The credentials of an account of which nobody has told us any."""

    def __init__(self, name: str, account: str) -> None:
        self._words = f"Account {account} is not connected to {name}."

    def token(self) -> str:
        raise ProviderError(self._words, permanent=False, code="not_connected")

    def renewed(self, rejected: str) -> str:
        return self.token()


_credentials: Callable[[str, str], Credentials] = _Nobody


def credentials_by(factory: Callable[[str, str], Credentials]) -> None:
    """Register who knows the credentials of connected accounts: called with provider and account.

    The factory makes no call and no query, and returns something for accounts that it does not know, too.
    """
    global _credentials
    with _keeping:
        _credentials = factory
        _kept.clear()


def get(name: str, account: str = "") -> Provider:
    """The adapter for an account at provider `name`, built from the settings in force and kept.

    "" is the provider's own account; so is every account of a provider that does not connect others.
    Raises DomainError for an unknown provider.
    """
    global _kept_for
    if name not in _BUILDERS:
        raise DomainError("unknown_provider", f"There is no way to pay called “{name}”.")
    settings = config.get()
    with _keeping:
        if _kept_for is not settings:
            _kept.clear()
            _kept_for = settings
        own = _keep(name, "", settings)
        if account in ("", own.account) or not own.connects:
            return own
        return _keep(name, account, settings)


def _keep(name: str, account: str, settings: config.Settings) -> Provider:
    """The adapter that is kept for an account, or a new one."""
    kept = _kept.get((name, account))
    if kept is None:
        build = import_module(_BUILDERS[name]).build
        kept = build(settings, account, _credentials(name, account)) if account else build(settings)
        _kept[(name, account)] = kept
        if len(_kept) > _MOST_KEPT:
            _kept.popitem(last=False)
    _kept.move_to_end((name, account))
    return kept


def of_method(method: str) -> str:
    """The provider that a way to pay leads to, in the words of the API. DomainError where there is none."""
    for name in names():
        if method in get(name).methods:
            return name
    raise DomainError("unknown_method", f"There is no way to pay called “{method}”.")


def methods() -> tuple[str, ...]:
    """Every way to pay that Kassa knows, whether its provider is configured or not."""
    return tuple(method for name in names() for method in get(name).methods)


def title(name: str) -> str:
    """What operators call a provider; buyers read its label."""
    return {"sumup": "SumUp"}.get(name, name.capitalize())


def names() -> Iterable[str]:
    """Every provider Kassa knows, whether it is configured or not."""
    return tuple(_BUILDERS)
