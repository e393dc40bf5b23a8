"""Where a payer may be sent back to: addresses at origins that the operator has listed, and nowhere else.

An open redirect is a phisher's present, so an address is taken apart and compared by its parsed scheme, host
and port, and whatever a browser may read otherwise than we do is refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import unquote_plus, urlsplit

import config
from domain.errors import DomainError

LONGEST = 2000
PARAMETER = "payment_id"
_PORTS = {"https": 443, "http": 80}
# Printable ASCII, without the signs that no address has as they are and that parsers disagree about.
_PLAIN = re.compile(r"[!#-;=?-\[\]_a-z~]+", re.ASCII)
_SHAPE = re.compile(
    r"(?P<scheme>[A-Za-z]+)://(?P<host>[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<rest>[/?#].*)?",
    re.ASCII,
)


@dataclass(frozen=True)
class _Origin:
    scheme: str
    host: str
    port: int


def check(url: str) -> str:
    """`url` as it is, where it is at a listed origin. DomainError `return_url`, in words, for any other."""
    if not is_listed(url):
        raise DomainError(
            "return_url",
            "return_url must be an https address at a site that this shop's operator has listed "
            "(API_RETURN_ORIGINS), without a name or password in it.",
        )
    return url


def is_listed(url: str) -> bool:
    """Whether a payer may be sent there now: an origin may have been taken off the list since."""
    settings = config.get()
    return allowed(url, settings.api_return_origins, development=settings.development)


def allowed(url: str, origins: Collection[str], *, development: bool = False) -> bool:
    """Whether a payer may be sent to `url`: at one of `origins`, by https, or by http to this machine."""
    found = _origin(url)
    if found is None:
        return False
    if found.scheme != "https" and not (development and found.scheme == "http" and _is_loopback(found.host)):
        return False
    return any(found == _origin(listed) for listed in origins)


def with_payment(url: str, payment_id: str) -> str:
    """`url` with the payment's id in its query, in place of one that it may have; the rest stays as it is."""
    before, mark, fragment = url.partition("#")
    path, _, query = before.partition("?")
    kept = [part for part in query.split("&") if part and unquote_plus(part.partition("=")[0]) != PARAMETER]
    return f"{path}?{'&'.join((*kept, f'{PARAMETER}={payment_id}'))}{mark}{fragment}"


def _origin(url: str) -> _Origin | None:
    """Scheme, host and port of an address that every reader reads alike, or None."""
    if len(url) > LONGEST or not _PLAIN.fullmatch(url):
        return None
    shape = _SHAPE.fullmatch(url)
    if shape is None:
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    scheme = shape["scheme"].lower()
    host = shape["host"].lower().strip("[]")
    if (parts.scheme, parts.hostname) != (scheme, host) or "@" in parts.netloc:
        return None
    return _Origin(scheme, host, port if port is not None else _PORTS.get(scheme, 0))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
