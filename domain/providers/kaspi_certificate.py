"""The client certificate that Kaspi's r2 and r3 ask for, made into a TLS context.

Kaspi gives it as a PFX file with a password. Hosts without a disk keep it in the settings in base64. Python's
TLS reads keys from files only, so the key is written for a moment, encrypted by a password that nobody else
has ever seen, to a file that only we may read.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import ssl
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    pkcs12,
)

from config import Settings
from domain.providers.contract import ProviderError
from variables import ConfigError

# No path is longer, and no certificate in base64 is so short.
_LONGEST_PATH = 500


@dataclass(frozen=True)
class Identity:
    """What a connection to Kaspi proves itself by. `ends_at` is None where no certificate is needed."""

    context: ssl.SSLContext
    ends_at: datetime | None = None


def identity(pfx: str, password: str, ca: str) -> Identity:
    """The TLS context with the certificate in `pfx`, if any, that trusts `ca`, or else the system's list.

    Both are paths, or a file's bytes in base64; `ca` may be PEM as it is. Raises a passing ProviderError
    `certificate`, as somebody mends that; its words quote neither the certificate nor its password.
    """
    context = _trusting(ca)
    if not pfx:
        return Identity(context)
    try:
        bag = pkcs12.load_pkcs12(_bytes(pfx, "KASPI_PFX"), password.encode() or None)
    except ValueError as error:
        raise _broken("KASPI_PFX cannot be opened. Is KASPI_PFX_PASSWORD the password of it?") from error
    if bag.key is None or bag.cert is None:
        raise _broken("KASPI_PFX has no certificate with its key in it.")
    once = secrets.token_bytes(32).hex().encode()
    key = bag.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(once))
    chain = [bag.cert, *bag.additional_certs]
    _load(context, key + b"".join(each.certificate.public_bytes(Encoding.PEM) for each in chain), once)
    return Identity(context, bag.cert.certificate.not_valid_after_utc)


def check_settings(settings: Settings) -> None:
    """Raise ConfigError where a form that needs the certificate could not show it: it would take nothing."""
    if settings.kaspi_mode not in ("r2", "r3"):
        return
    try:
        identity(settings.kaspi_pfx, settings.kaspi_pfx_password, settings.kaspi_ca)
    except ProviderError as error:
        raise ConfigError(str(error)) from error


def _trusting(ca: str) -> ssl.SSLContext:
    if not ca:
        return ssl.create_default_context()
    found = _bytes(ca, "KASPI_CA")
    try:
        text = found.decode("ascii") if found.lstrip().startswith(b"-----BEGIN") else found
        return ssl.create_default_context(cadata=text)
    except (ssl.SSLError, ValueError) as error:
        raise _broken("KASPI_CA is no certificate.") from error


def _load(context: ssl.SSLContext, pem: bytes, password: bytes) -> None:
    """Give the context the key and its chain."""
    handle, name = tempfile.mkstemp(prefix="kassa-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(pem)
        context.load_cert_chain(name, password=password)
    except (ssl.SSLError, OSError) as error:
        raise _broken("The certificate in KASPI_PFX and its key cannot be used.") from error
    finally:
        os.unlink(name)


def _bytes(value: str, name: str) -> bytes:
    """A file's bytes: of the file that is named, or in base64."""
    try:
        if value.startswith("-----BEGIN "):
            return value.encode()
        # os.path's answer is no, where pathlib's is an error: of a name that is too long to be one.
        if len(value) <= _LONGEST_PATH and os.path.isfile(value):
            return Path(value).read_bytes()
        return base64.b64decode("".join(value.split()), validate=True)
    except (OSError, ValueError, binascii.Error) as error:
        raise _broken(f"{name} is neither a file that can be read, nor one in base64.") from error


def _broken(words: str) -> ProviderError:
    return ProviderError(words, permanent=False, code="certificate", undone=True)
