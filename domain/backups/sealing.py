"""A backup is encrypted by age to a public key: whoever has only this machine cannot read what it wrote."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

from domain.errors import DomainError

_MARK = b"age-encryption.org/"


def seal(plain: IO[bytes], sealed: IO[bytes], keys: tuple[str, ...]) -> None:
    """Encrypt to each of the public keys, as it is read. DomainError `backup_key` where one is none."""
    from pyrage import EncryptError, RecipientError, encrypt_io, x25519

    try:
        readers: list[Any] = [x25519.Recipient.from_str(key) for key in keys]
    except RecipientError as error:
        raise _no_key(error) from error
    try:
        encrypt_io(plain, sealed, readers)
    except EncryptError as error:
        raise DomainError("backup_failed", f"The backup could not be encrypted: {error}.") from error


def is_sealed(backup: Path) -> bool:
    with backup.open("rb") as file:
        return file.read(len(_MARK)) == _MARK


def open_(sealed: Path, plain: Path, identity: str) -> None:
    """Decrypt with a secret key (AGE-SECRET-KEY-...), or a file's text with such lines. DomainError."""
    from pyrage import DecryptError, IdentityError, decrypt_file, x25519

    lines = [line.strip() for line in identity.splitlines() if line.strip().startswith("AGE-SECRET-KEY-")]
    try:
        keys: list[Any] = [x25519.Identity.from_str(line) for line in lines]
    except IdentityError as error:
        raise _no_key(error) from error
    if not keys:
        raise DomainError(
            "backup_sealed",
            "This backup is encrypted. Say --identity FILE: the file with the line AGE-SECRET-KEY-1... that "
            "belongs to BACKUP_KEY.",
        )
    try:
        decrypt_file(str(sealed), str(plain), keys)
    except (DecryptError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise DomainError("backup_failed", f"It cannot be decrypted: {error.strerror}.") from error
        if "No matching keys" in str(error):
            raise DomainError(
                "backup_sealed", "That key does not open this backup: it was encrypted to another one."
            ) from error
        raise DomainError(
            "backup_damaged",
            "This backup is damaged: it was cut short, or changed. Compare its size and SHA-256 with those "
            "that were noted, fetch it once more, or take the one before it.",
        ) from error


def _no_key(error: Exception) -> DomainError:
    return DomainError("backup_key", f"That is no key of age's ({' '.join(str(error).split())[:100]}).")
