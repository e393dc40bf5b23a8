"""A front that speaks TLS, as a host has before web, and the authority that makes its certificate."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ipaddress
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_PEM, _NO_PASSWORD = serialization.Encoding.PEM, serialization.NoEncryption()
# What a client says of itself is thrown away: the front alone knows.
_OURS = (b"x-forwarded-", b"connection:", b"keep-alive:", b"forwarded:")
_HEAD_BYTES = 64 * 1024


# --- The certificate ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Certificate:
    """Files for a server of `host`: its chain and its key. `pin` names the authority as Chromium wants it."""

    host: str
    chain: Path
    key: Path
    authority: Path
    pin: str


def certificate(host: str, folder: Path) -> Certificate:
    """An authority made now and thrown away, and a certificate for `host` that it has signed."""
    folder.mkdir(parents=True, exist_ok=True)
    root_key, leaf_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Kassa's tests")])
    root = _draft(root_name, root_name, root_key.public_key())
    root = root.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    signed_root = root.sign(root_key, hashes.SHA256())
    leaf = _draft(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)]), root_name, leaf_key.public_key()
    )
    leaf = leaf.add_extension(x509.SubjectAlternativeName([_name(host)]), critical=False)
    leaf = leaf.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    chain = leaf.sign(root_key, hashes.SHA256()).public_bytes(_PEM) + signed_root.public_bytes(_PEM)
    made = Certificate(
        host, folder / "chain.pem", folder / "key.pem", folder / "authority.pem", _pin(root_key.public_key())
    )
    made.chain.write_bytes(chain)
    made.authority.write_bytes(signed_root.public_bytes(_PEM))
    made.key.write_bytes(leaf_key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, _NO_PASSWORD))
    return made


def _draft(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    draft = x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number())
    return draft.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=30))


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pin(key: ec.EllipticCurvePublicKey) -> str:
    told = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(told).digest()).decode()


# --- The front ------------------------------------------------------------------------------------------


@dataclass
class Front:
    """Two ports of loopback before one web process: by https, and in clear.

    `losing`: the end of a path whose next answer arrives here and goes no further. `asked`: the first lines
    and headers that browsers have sent, in order.
    """

    behind: int
    https: int = 0
    http: int = 0
    losing: str | None = None
    asked: list[bytes] = field(default_factory=list)


@contextmanager
def front(shown: Certificate, behind: int) -> Iterator[Front]:
    """Pass what comes on to the port `behind`, and say who asked, and how: nothing else is added or taken."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, name="tls-front", daemon=True)
    thread.start()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shown.chain, shown.key)
    context.set_alpn_protocols(["http/1.1"])
    made = Front(behind)
    servers = [
        asyncio.run_coroutine_threadsafe(_listen(made, tls), loop).result(10) for tls in (context, None)
    ]
    made.https, made.http = (server.sockets[0].getsockname()[1] for server in servers)
    try:
        yield made
    finally:
        asyncio.run_coroutine_threadsafe(_end(servers), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _listen(made: Front, tls: ssl.SSLContext | None) -> asyncio.Server:
    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A browser goes away whenever it likes.
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await _pass_on(made, reader, writer, b"https" if tls else b"http")
        writer.close()

    return await asyncio.start_server(one, "127.0.0.1", 0, ssl=tls, limit=_HEAD_BYTES)


async def _end(servers: list[asyncio.Server]) -> None:
    for server in servers:
        server.close()
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def _pass_on(
    made: Front, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, scheme: bytes
) -> None:
    """One request of one connection; the next has a connection of its own."""
    head = await reader.readuntil(b"\r\n\r\n")
    made.asked.append(head)
    asked, *fields = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    fields = [field for field in fields if not field.lower().startswith(_OURS)]
    client = str(writer.get_extra_info("peername")[0]).encode()
    fields += [b"X-Forwarded-For: " + client, b"X-Forwarded-Proto: " + scheme, b"Connection: close"]
    answer, request = await asyncio.open_connection("127.0.0.1", made.behind)
    request.write(b"\r\n".join((asked, *fields, b"", b"")))
    sending = asyncio.ensure_future(_copy(reader, request))
    try:
        if made.losing is not None and asked.split(b" ")[1].endswith(made.losing.encode()):
            made.losing = None
            await answer.read()
            return
        await _copy(answer, writer)
    finally:
        sending.cancel()
        request.close()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(_HEAD_BYTES):
            target.write(data)
            await target.drain()
