"""Where wallets' buttons may stand: our host, as the provider knows it, for the doctor and the command.

What the provider said is kept for some minutes, for each view of the set-up page would ask again, and it is
not asked at all just after another call to it had no answer: that page never waits twice for a silent one.
"""

from __future__ import annotations

from time import monotonic
from urllib.parse import urlsplit

import config
from domain import audit
from domain.errors import DomainError
from domain.office.finding import OK, WARN, Finding
from domain.providers import knowledge, registry
from domain.providers.contract import DomainStatus, HasClientSecret, KnowsDomains, Provider, ProviderError
from extensions import db
from models import AuditArea, Deed

_TITLE = "Wallet buttons"
_WITHOUT = "The provider's own page shows both wallets without it."
# So long it is kept that all is well, and so long that something is not: that may be mended any minute.
_KEPT_SECONDS = {OK: 300.0, WARN: 60.0}
# Provider, host and mode -> until when, by the monotonic clock, and what was found.
_kept: dict[tuple[str, str, bool], tuple[float, Finding]] = {}


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
    return [_known(provider, provider, code, host())]


def _known(provider: Provider, its: KnowsDomains, code: str, domain: str) -> Finding:
    """What the provider says of a host, or said some minutes ago."""
    key = (provider.name, domain, provider.livemode)
    until, found = _kept.get(key, (0.0, None))
    if found is not None and monotonic() < until:
        return found
    if not knowledge.may_answer(provider.name):
        return _unread(code, domain, "the provider does not answer just now.")
    try:
        found = _told(code, domain, its.domain_status(domain))
    except ProviderError as error:
        found = _unread(code, domain, str(error))
    _kept[key] = (monotonic() + _KEPT_SECONDS[found.state], found)
    return found


_FIX = (
    "Register it at /admin/setup, or by `flask stripe register-domain`: once in test mode and once with the "
    "live keys."
)


def _unread(code: str, domain: str, why: str) -> Finding:
    return Finding(code, _TITLE, WARN, f"Whether {domain} is registered could not be read: {why}", _FIX)


def _told(code: str, domain: str, known: DomainStatus | None) -> Finding:
    if known is None:
        words = f"{domain} is not registered, so Apple Pay and Google Pay are not shown on our own pay page."
        return Finding(code, _TITLE, WARN, f"{words} {_WITHOUT}", _FIX)
    if known.problems:
        return Finding(code, _TITLE, WARN, f"{domain} is registered. {' '.join(known.problems)}", _FIX)
    return Finding(code, _TITLE, OK, f"{domain} is registered for Apple Pay and Google Pay.")


def host() -> str:
    """The host of our own pages."""
    return urlsplit(config.get().public_url).hostname or ""


def registering() -> list[str]:
    """The providers at which our host is to be registered; none where it has no https."""
    if not config.get().https:
        return []
    able = [name for name in registry.names() if isinstance(registry.get(name), KnowsDomains)]
    return [name for name in able if registry.get(name).ready]


def register_everywhere() -> str:
    """Register our host at all of them while somebody waits, and say so. DomainError where it is no use."""
    known = [register(name, patient=False) for name in registering()]
    if not known:
        raise DomainError("not_set_up", "There is no provider here that our host is to be registered at.")
    problems = " ".join(problem for one in known for problem in one.problems)
    if problems:
        raise DomainError("not_registered", f"{host()} is registered. {problems}")
    return f"{host()} is registered for Apple Pay and Google Pay."


def register(provider_name: str, domain: str = "", *, patient: bool = True) -> DomainStatus:
    """Register a host, ours if none is named, at a provider. Commits. Raises DomainError in its words."""
    provider, domain = registry.get(provider_name), domain.strip().lower() or host()
    if not isinstance(provider, KnowsDomains) or not provider.ready:
        raise DomainError("not_set_up", f"{registry.title(provider_name)} is not set up here.")
    if "." not in domain:
        words = f"{domain} is no host that others can reach. Set PUBLIC_URL, or name one."
        raise DomainError("no_host", words)
    try:
        known = provider.register_domain(domain, patient=patient)
    except ProviderError as error:
        raise DomainError("not_registered", f"{domain} was not registered: {error}") from error
    finally:
        _kept.clear()
    audit.note(AuditArea.SETTING, Deed.MADE, "wallets' domain", provider.name, label=domain)
    db.session.commit()
    return known
