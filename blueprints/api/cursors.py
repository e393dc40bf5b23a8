"""Where a long list goes on, as a text that says nothing: no row number leaves, and none can be made up."""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

import config
from domain.errors import DomainError


def write(name: str, before: int | None) -> str | None:
    """The cursor of the page of the list `name` that ends before row `before`; None: there is none."""
    if before is None:
        return None
    row = before.to_bytes(8, "big")
    (cipher, key), *_ = _keys()
    sealed = cipher.encryptor().update(row + _proof(name, row, key))
    return urlsafe_b64encode(sealed).decode().rstrip("=")


def read(name: str, cursor: str | None) -> int | None:
    """The row that a cursor of this list stands for. DomainError `cursor` for any other text."""
    if cursor is None:
        return None
    try:
        block = urlsafe_b64decode(cursor.encode("ascii") + b"==")
    except ValueError as error:
        raise _refused() from error
    if len(block) != 16 or urlsafe_b64encode(block).decode().rstrip("=") != cursor:
        raise _refused()
    for cipher, key in _keys():
        opened = cipher.decryptor().update(block)
        if opened[8:] == _proof(name, opened[:8], key):
            return int.from_bytes(opened[:8], "big")
    raise _refused()


def _keys() -> list[tuple[Cipher[modes.ECB], bytes]]:
    """By which it is sealed and proven: today's, then those of the keys before that still hold."""
    settings = config.get()
    pairs = zip(settings.derived_keys("api-cursors"), settings.derived_keys("api-cursor-lists"), strict=True)
    # One block, in which half is proof: nothing repeats that a mode would have to hide.
    return [(Cipher(algorithms.AES(key), modes.ECB()), lists) for key, lists in pairs]


def _proof(name: str, row: bytes, key: bytes) -> bytes:
    return hashlib.blake2b(row, key=key, digest_size=8, person=name.encode()[:16]).digest()


def _refused() -> DomainError:
    return DomainError("cursor", "This cursor is not one of this list. Begin at the first page.")
