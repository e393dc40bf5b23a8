"""Where backups are put and found: a folder or a file of this machine, or a bucket of an S3-like store."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import config
from domain.errors import DomainError

S3 = "s3://"
# Standard input or output.
PIPE = "-"
_ENDINGS = (".age", ".dump")


class Place(Protocol):
    """One place for one backup. DomainError `backup_place` in words where it cannot be reached."""

    @property
    def shown(self) -> str:
        """Where it is, without what lets one in."""
        ...

    def put(self, backup: Path) -> None: ...

    def fetch(self, into: Path) -> None: ...

    def fetch_if_there(self, into: Path) -> bool:
        """The same; False where there is none."""
        ...


def of(address: str, name: str) -> Place:
    """What `address` names: s3://bucket/prefix, a folder, or a file. In a folder it has this name."""
    if address.startswith(S3):
        parts = urlsplit(address)
        path = parts.path.lstrip("/")
        key = path if path.endswith(_ENDINGS) else "/".join(filter(None, (path.rstrip("/"), name)))
        return _Bucket(parts.netloc, key)
    path_here = Path(address).expanduser()
    # A folder that is not there yet is one all the same: as a file the next backup would overwrite it.
    is_folder = path_here.is_dir() or address.endswith("/") or not path_here.suffix
    return _File(path_here / name if is_folder and not path_here.is_file() else path_here)


def of_setting(address: str, name: str) -> Place:
    """What BACKUP_TO names, where one backup after the other is put: a folder, whatever it is called."""
    is_file = address.startswith(S3) or address.endswith((".age", ".dump"))
    return of(address if is_file else f"{address.rstrip('/')}/", name)


def beside(address: str, name: str) -> Place | None:
    """The place of another file beside the backups of an address, or beside one backup; None for a pipe."""
    if address == PIPE:
        return None
    if address.startswith(S3) and address.endswith(_ENDINGS):
        return of(f"{address.rpartition('/')[0]}/", name)
    if address.startswith(S3):
        return of(address, name)
    path = Path(address).expanduser()
    is_folder = path.is_dir() or address.endswith("/") or not (path.suffix or path.is_file())
    folder = path if is_folder else path.parent
    return _File(folder / name)


@dataclass(frozen=True)
class _File:
    path: Path

    @property
    def shown(self) -> str:
        return str(self.path)

    def put(self, backup: Path) -> None:
        """Under its own name only when it is whole: a half one is never taken for a backup."""
        # Two may write at once: each a file of its own.
        unfinished = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}.unfinished")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(backup, unfinished)
            unfinished.chmod(0o600)
            with unfinished.open("rb") as written:
                os.fsync(written.fileno())
            unfinished.replace(self.path)
        except OSError as error:
            raise DomainError(
                "backup_place", f"{self.path} cannot be written: {error.strerror or error}."
            ) from error
        finally:
            unfinished.unlink(missing_ok=True)

    def fetch(self, into: Path) -> None:
        try:
            shutil.copyfile(self.path, into)
        except OSError as error:
            raise DomainError(
                "backup_place", f"{self.path} cannot be read: {error.strerror or error}."
            ) from error

    def fetch_if_there(self, into: Path) -> bool:
        if not self.path.exists():
            return False
        self.fetch(into)
        return True


@dataclass(frozen=True)
class _Bucket:
    bucket: str
    key: str

    @property
    def shown(self) -> str:
        return f"{S3}{self.bucket}/{self.key}"

    def put(self, backup: Path) -> None:
        self._do(lambda store: store.fput_object(self.bucket, self.key, str(backup)))

    def fetch(self, into: Path) -> None:
        self._do(lambda store: store.fget_object(self.bucket, self.key, str(into)))

    def fetch_if_there(self, into: Path) -> bool:
        from minio.error import S3Error

        found = True

        def work(store: Any) -> None:
            nonlocal found
            try:
                store.fget_object(self.bucket, self.key, str(into))
            except S3Error as error:
                if error.code not in ("NoSuchKey", "NoSuchObject"):
                    raise
                found = False

        self._do(work)
        return found

    def _do(self, work: Callable[[Any], object]) -> None:
        # Imported where it is used: no web process needs it.
        import urllib3
        from minio import Minio
        from minio.error import MinioException

        settings = config.get()
        parts = urlsplit(settings.backup_s3_endpoint)
        if not (parts.netloc and settings.backup_s3_key_id and settings.backup_s3_secret):
            raise DomainError(
                "backup_place",
                f"{self.shown} needs BACKUP_S3_ENDPOINT, BACKUP_S3_KEY_ID and BACKUP_S3_SECRET.",
            )
        try:
            store = Minio(
                parts.netloc,
                access_key=settings.backup_s3_key_id,
                secret_key=settings.backup_s3_secret,
                region=settings.backup_s3_region or None,
                secure=parts.scheme == "https",
            )
            work(store)
        except (MinioException, urllib3.exceptions.HTTPError, ValueError, OSError) as error:
            said = " ".join(str(error).split())[:200]
            raise DomainError("backup_place", f"{self.shown} did not take part: {said}.") from error
