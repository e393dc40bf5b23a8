"""What each of Kaspi's modes asks of the settings, and what is refused; see docs/kaspi.md.

Apart from config.py, which reads them, so that each fits in a head.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Protocol
from urllib.parse import urlsplit

from variables import ConfigError, Reader

# The three forms of the QR API, and the two ways without it.
QR_API = ("r1", "r2", "r3")
MODES = ("manual", *QR_API, "biller")
# What a word of Kaspi's may be said to mean.
STATES = ("open", "processing", "paid", "failed", "cancelled", "expired")


# A sum in tiyn that no payment comes to.
_MOST = 99_999_999


class Read(Protocol):
    """What is looked at of the settings as they were read: see `config.Settings`."""

    @property
    def kaspi_mode(self) -> str: ...
    @property
    def kaspi_api_base(self) -> str: ...
    @property
    def kaspi_api_key(self) -> str: ...
    @property
    def kaspi_pfx(self) -> str: ...
    @property
    def kaspi_bin(self) -> str: ...
    @property
    def kaspi_manual_text(self) -> str: ...
    @property
    def kaspi_biller_path(self) -> str: ...
    @property
    def kaspi_biller_service(self) -> str: ...


def told(read: Reader) -> dict[str, Any]:
    """The settings of the two modes in which Kaspi cannot be asked. Sums in tiyn, 100 to the tenge."""
    networks = read.text("KASPI_BILLER_IPS", "194.187.247.152").replace(",", " ").split()
    for network in networks:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise ConfigError(
                f"KASPI_BILLER_IPS must be addresses or networks such as 194.187.247.152 or 194.187.247.0/24 "
                f"(it has {network[:50]!r})."
            ) from error
    path = read.text("KASPI_BILLER_PATH", most=200)
    if path and not re.fullmatch(r"[A-Za-z0-9_-]{16,}", path):
        raise ConfigError(
            "KASPI_BILLER_PATH must be 16 or more letters, digits, - or _, drawn at random: it is the only "
            "secret in Kaspi's calls."
        )
    return {
        "kaspi_manual_text": read.text("KASPI_MANUAL_TEXT", most=1000),
        "kaspi_manual_minutes": read.number("KASPI_MANUAL_MINUTES", 24 * 60, least=15, most=7 * 24 * 60),
        "kaspi_two_people_above_minor": read.number("KASPI_TWO_PEOPLE_ABOVE", 10_000_000, most=_MOST),
        "kaspi_biller_path": path,
        "kaspi_biller_ips": tuple(networks),
        "kaspi_biller_service": read.text("KASPI_BILLER_SERVICE", most=100),
        "kaspi_biller_url": read.url("KASPI_BILLER_URL", "https://kaspi.kz/online"),
        "kaspi_biller_minutes": read.number("KASPI_BILLER_MINUTES", 30, least=5, most=24 * 60),
        "kaspi_biller_believed_minor": read.number("KASPI_BILLER_BELIEVED_UP_TO", 10_000_000, most=_MOST),
    }


def refuse_half(settings: Read) -> None:
    """Refuse a mode that lacks what it cannot work without. Raises ConfigError.

    A device's token is no such thing: `flask kaspi register-device` gives it, once the rest is there.
    """
    mode = settings.kaspi_mode
    if mode == "r1" and not settings.kaspi_api_key:
        raise ConfigError("KASPI_MODE=r1 needs KASPI_API_KEY, the key that Kaspi gave you for the QR API.")
    if mode in ("r2", "r3") and not settings.kaspi_pfx:
        raise ConfigError(
            f"KASPI_MODE={mode} needs KASPI_PFX: the path of the certificate, or its file in base64."
        )
    if mode == "r3" and not settings.kaspi_bin:
        raise ConfigError("KASPI_MODE=r3 needs KASPI_BIN, the number of the organisation that is paid.")
    if mode == "manual" and not settings.kaspi_manual_text:
        raise ConfigError(
            "KASPI_MODE=manual needs KASPI_MANUAL_TEXT: it tells buyers to whom they send the money, such as "
            "Kaspi Gold +7 701 000 00 00, Aigerim S."
        )
    if mode == "biller" and not (settings.kaspi_biller_path and settings.kaspi_biller_service):
        raise ConfigError(
            "KASPI_MODE=biller needs KASPI_BILLER_PATH, the secret end of the address that Kaspi calls, and "
            "KASPI_BILLER_SERVICE, the name that Kaspi gave your service."
        )
    if settings.kaspi_bin and not re.fullmatch(r"[0-9]{12}", settings.kaspi_bin):
        raise ConfigError("KASPI_BIN must be the twelve digits of a BIN or an IIN.")


def refuse_this_machine(settings: Read) -> None:
    """Refuse a sandbox's address. Kaspi has hosts for trying out, which only its contract names."""
    base = settings.kaspi_api_base
    if base and (not base.startswith("https://") or is_here(base)):
        raise ConfigError("KASPI_API_BASE must begin with https:// and name a host of Kaspi's; or remove it.")


def is_here(url: str) -> bool:
    """Whether an address is of this machine, or of a neighbour of it; "" is of neither."""
    host = urlsplit(url).hostname or ""
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
