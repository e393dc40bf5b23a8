"""Taking a backup: pg_dump's own format, encrypted to BACKUP_KEY, put where it was told, and written down."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import structlog
from sqlalchemy import select

import config
from domain import clock
from domain.backups import forgotten, keys, places, programs, sealing
from domain.errors import DomainError
from domain.post import alerts, outbox
from extensions import db
from models import Backup

log = structlog.get_logger(__name__)

STDOUT = places.PIPE
# Without a good one for so long, somebody is told.
OLD = timedelta(days=2)
# A failed one is tried again after so long, not at each look; one that was begun may take so long. After that
# it is dead: whoever took it was stopped.
_AGAIN = timedelta(minutes=55)
_LONGEST = timedelta(hours=3)


def take(address: str = "", *, plain: bool = False) -> Backup:
    """Back up the whole database to `address`, or to BACKUP_TO; "-" is standard output. Commits.

    DomainError in words: nothing to encrypt to (`backup_key`), no fitting pg_dump (`backup_program`), a place
    that cannot be reached (`backup_place`), or what pg_dump said (`backup_failed`). Each is written down.
    """
    settings = config.get()
    if not (address or settings.backup_to):
        raise DomainError("backup_place", "Say where to: flask backup --to FOLDER, or set BACKUP_TO.")
    if not settings.backup_keys and not plain:
        raise DomainError(
            "backup_key",
            "A backup has every buyer's name and address in it, so it is encrypted: set BACKUP_KEY to the "
            "public key that age-keygen printed (age1...). To write it unencrypted all the same say --plain.",
        )
    dump = programs.find("pg_dump", programs.server_major())
    began_at = clock.now()
    row = Backup(began_at=began_at, place="", keys=keys.fingerprints())
    db.session.add(row)
    db.session.flush()
    # Two that begin in one second are two.
    name = f"kassa-{began_at:%Y%m%d-%H%M%S}-{row.id}.dump" + ("" if plain else ".age")
    place = None if address == STDOUT else _place(address, name)
    row.place = shown = "standard output" if place is None else place.shown[:500]
    # Before pg_dump looks: so the row is in the backup, and no transaction of ours is open meanwhile.
    db.session.commit()
    try:
        with _folder() as folder:
            made = _made(folder, dump, plain)
            size, sha256 = made.stat().st_size, _sha256(made)
            if place is None:
                _print(made)
            else:
                place.put(made)
                forgotten.keep_if_it_can_be(address)
    except Exception as error:
        _end(
            row, error=error.message if isinstance(error, DomainError) else f"{type(error).__name__}: {error}"
        )
        if isinstance(error, OSError):
            raise DomainError(
                "backup_failed", f"The backup was not written: {error.strerror or error}."
            ) from error
        raise
    _end(row, size=size, sha256=sha256)
    log.info("backup_taken", place=shown, size=size, seconds=(clock.now() - began_at).seconds)
    return row


def _place(address: str, name: str) -> places.Place:
    return places.of(address, name) if address else places.of_setting(config.get().backup_to, name)


def _end(row: Backup, *, error: str = "", size: int | None = None, sha256: str = "") -> None:
    db.session.rollback()
    row.error, row.size, row.sha256, row.ended_at = error, size, sha256, clock.now()
    db.session.commit()


def take_if_due() -> Backup | None:
    """What the clock does every hour: a backup where the last good one is BACKUP_EVERY_HOURS old. Commits.

    An alert tells of a shop that has had none for two days.
    """
    settings = config.get()
    if not settings.backup_to:
        return None
    good, tried = last_good(), _last()
    now = clock.now()
    # A minute less, so that it does not come later each day.
    every = timedelta(hours=settings.backup_every_hours, minutes=-1)
    due = good is None or now - _ended(good) >= every
    made = None
    if due and not _waits(tried):
        try:
            made = take()
        except DomainError as error:
            log.error("backup_failed", error=error.message)
    _tell_if_old(last_good())
    return made


def _waits(tried: Backup | None) -> bool:
    """Whether another is at it, or has just failed."""
    if tried is None:
        return False
    longest = _AGAIN if tried.ended_at is not None else _LONGEST
    return clock.now() - tried.began_at < longest and (tried.ended_at is None or bool(tried.error))


def last_good() -> Backup | None:
    """The newest backup that was put where it belongs."""
    query = select(Backup).where(Backup.error == "", Backup.ended_at.is_not(None))
    return db.session.scalar(query.order_by(Backup.ended_at.desc()).limit(1))


def _last() -> Backup | None:
    return db.session.scalar(select(Backup).order_by(Backup.id.desc()).limit(1))


def _ended(backup: Backup) -> datetime:
    return backup.ended_at or backup.began_at


def _tell_if_old(good: Backup | None) -> None:
    first = db.session.scalar(select(Backup.began_at).order_by(Backup.id).limit(1))
    since = _ended(good) if good is not None else first
    if since is None or clock.now() - since < OLD:
        return
    tried = _last()
    subject, text = alerts.no_backup(
        _ended(good) if good is not None else None, tried.error if tried is not None else ""
    )
    outbox.alert(subject, text, key=f"backup:{clock.now():%Y-%m-%d}", critical=True)
    db.session.commit()


# --- Making one -----------------------------------------------------------------------------------------


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder that nobody else can look into, and that is gone afterwards."""
    path = Path(tempfile.mkdtemp(prefix="kassa-backup-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _made(folder: Path, dump: programs.Found, plain: bool) -> Path:
    """The backup, encrypted as it is read: nothing unencrypted is ever on a disk, unless it was asked for."""
    made = folder / "backup"
    arguments = ["--format=custom", "--no-owner", "--no-privileges"]
    with (
        made.open("wb") as file,
        programs.running(dump, arguments, database=programs.database()) as printed,
    ):
        if plain:
            shutil.copyfileobj(printed, file)
        else:
            sealing.seal(printed, file, config.get().backup_keys)
    return made


def _print(made: Path) -> None:
    with made.open("rb") as file, os.fdopen(os.dup(1), "wb") as out:
        shutil.copyfileobj(file, out)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
