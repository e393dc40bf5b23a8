"""The contract between Kassa and a provider whose accounts organisers connect: OAuth, in Kassa's words.

A provider that `connects` has a module `<name>_oauth` with `build(settings)`. It only speaks HTTP: who may
connect, how tokens are kept and when they are renewed is told by the wing `domain/connections/`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from importlib import import_module
from typing import Protocol

import config
from domain.errors import NotFound
from domain.providers.contract import ProviderError


class Refused(ProviderError):
    """The provider has given its word that a code or a refresh token is worth nothing: `invalid_grant`.

    Only the account's owner can mend that, by connecting again.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, permanent=True, code="invalid_grant")


@dataclass(frozen=True)
class Tokens:
    """What a provider gives for a code or a refresh token. `refresh` is "" where the old one stays good."""

    access: str = field(repr=False)
    refresh: str = field(repr=False)
    # How long `access` is good for, from the answer on.
    lives: timedelta
    scope: str = ""


@dataclass(frozen=True)
class Owner:
    """The account that an access token speaks for: the provider's name of it, as payments have it.

    `name` is what a person knows the account by, `currency` (ISO 4217) the only one that it takes; "" where
    the provider does not say, or the account takes several.
    """

    account: str
    name: str = ""
    currency: str = ""


class Connector(Protocol):
    """What every such module can do. One attempt a call, of five seconds; ProviderError without an answer."""

    label: str

    @property
    def ready(self) -> bool:
        """Whether this Kassa is known to the provider as an app, so that accounts can be connected."""

    @property
    def house_account(self) -> bool:
        """Whether the platform's own account serves organisers who have connected none."""

    def authorize_url(self, state: str, redirect_uri: str) -> str:
        """Where to send somebody who is to let us speak for their account."""

    def exchange(self, code: str, redirect_uri: str) -> Tokens:
        """The tokens for a code, which is good for one call. Refused when it was used, or is too old."""

    def refresh(self, refresh_token: str) -> Tokens:
        """New tokens. Refused when the refresh token is worth nothing any more."""

    def owner(self, access_token: str) -> Owner:
        """Whose account the token is for."""


_MODULES = {"sumup": "domain.providers.sumup_oauth"}


def names() -> tuple[str, ...]:
    """Every provider whose accounts can be connected, whether it is configured or not."""
    return tuple(_MODULES)


def get(name: str) -> Connector:
    """The connector of provider `name`, by the settings in force. NotFound where there is none."""
    if name not in _MODULES:
        raise NotFound("connects_not", "Accounts of that kind cannot be connected here.")
    connector: Connector = import_module(_MODULES[name]).build(config.get())
    return connector
