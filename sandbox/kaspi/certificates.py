"""An authority of the sandbox's own, with the server's certificate and the client's, kept in $KASSA_HOME.

They are made when they are first needed, and stay: a Kassa that was given the client's certificate goes on
working when the sandbox is started again.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIVES = timedelta(days=3650)
Key = ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class Certificates:
    """Where the authority and the server's key lie, and the client's certificate as Kaspi hands it out."""

    ca: Path
    server: Path
    pfx: Path

    def context(self) -> ssl.SSLContext:
        """For the second door: who shows a certificate must have it of this authority; who shows none enters,
        and is told by the API that it is missing.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server)
        context.load_verify_locations(self.ca)
        context.verify_mode = ssl.CERT_OPTIONAL
        return context


def ensure(home: Path, password: str) -> Certificates:
    """The certificates under `home`, made where they are missing."""
    home.mkdir(parents=True, exist_ok=True)
    found = Certificates(home / "ca.pem", home / "server.pem", home / "client.pfx")
    if not all(path.exists() for path in (found.ca, found.server, found.pfx)):
        _make(found, password)
    return found


def _make(where: Certificates, password: str) -> None:
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = _sign(ca_key, ca_key, None, "Kassa Sandbox CA", _authority())
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("localhost")])
    server = _sign(key, ca_key, ca, "127.0.0.1", [(names, False), _use(ExtendedKeyUsageOID.SERVER_AUTH)])
    client_key = ec.generate_private_key(ec.SECP256R1())
    client = _sign(client_key, ca_key, ca, "Kassa", [_use(ExtendedKeyUsageOID.CLIENT_AUTH)])
    plain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    where.server.touch(0o600)
    where.server.write_bytes(plain + server.public_bytes(Encoding.PEM))
    where.pfx.touch(0o600)
    where.pfx.write_bytes(
        pkcs12.serialize_key_and_certificates(
            b"kassa", client_key, client, [ca], BestAvailableEncryption(password.encode())
        )
    )
    # The last one, as a start that was broken off begins anew.
    where.ca.write_bytes(ca.public_bytes(Encoding.PEM))


Extension = tuple[x509.ExtensionType, bool]


def _authority() -> list[Extension]:
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    return [(x509.BasicConstraints(ca=True, path_length=0), True), (usage, True)]


def _use(purpose: x509.ObjectIdentifier) -> Extension:
    return x509.ExtendedKeyUsage([purpose]), False


def _sign(
    key: Key, by: Key, issuer: x509.Certificate | None, name: str, extensions: list[Extension]
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + _LIVES)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(by, hashes.SHA256())
