"""Where wallets' buttons may stand: our host, as the provider knows it, for the doctor and the command."""

from __future__ import annotations

from urllib.parse import urlsplit

import config
from domain.errors import DomainError
from domain.office.finding import OK, WARN, Finding
from domain.providers import registry
from domain.providers.contract import DomainStatus, HasClientSecret, KnowsDomains, Provider, ProviderError

_TITLE = "Wallet buttons"
_WITHOUT = "The provider's own page shows both wallets without it."


def look(provider: Provider) -> list[Finding]:
    """Whether a provider shows its button on our pay page; nothing where it has none."""
    if not isinstance(provider, HasClientSecret) or not isinstance(provider, KnowsDomains):
        return []
    code = f"{provider.name}_domain"
    if not provider.element.key:
        words = f"There are none on our own pay page: no publishable key is set. {_WITHOUT}"
        return [Finding(code, _TITLE, OK, words)]
    if not config.get().https:
        words = f"They need https, and {config.get().public_url} has none. {_WITHOUT}"
        return [Finding(code, _TITLE, OK if config.get().development else WARN, words)]
    return [_at(provider, code, host())]


def _at(provider: KnowsDomains, code: str, domain: str) -> Finding:
    fix = "Run `flask stripe register-domain`, once in test mode and once with the live keys."
    try:
        known = provider.domain_status(domain)
    except ProviderError as error:
        return Finding(code, _TITLE, WARN, f"Whether {domain} is registered could not be read: {error}", fix)
    if known is None:
        words = f"{domain} is not registered, so Apple Pay and Google Pay are not shown on our own pay page."
        return Finding(code, _TITLE, WARN, f"{words} {_WITHOUT}", fix)
    if known.problems:
        return Finding(code, _TITLE, WARN, f"{domain} is registered. {' '.join(known.problems)}", fix)
    return Finding(code, _TITLE, OK, f"{domain} is registered for Apple Pay and Google Pay.")


def host() -> str:
    """The host of our own pages."""
    return urlsplit(config.get().public_url).hostname or ""


def register(provider_name: str, domain: str = "") -> DomainStatus:
    """Register a host, ours if none is named, at a provider. Raises DomainError in its words."""
    provider, domain = registry.get(provider_name), domain.strip().lower() or host()
    if not isinstance(provider, KnowsDomains) or not provider.ready:
        raise DomainError("not_set_up", f"{registry.title(provider_name)} is not set up here.")
    if "." not in domain:
        words = f"{domain} is no host that others can reach. Set PUBLIC_URL, or name one."
        raise DomainError("no_host", words)
    try:
        return provider.register_domain(domain)
    except ProviderError as error:
        raise DomainError("not_registered", f"{domain} was not registered: {error}") from error
