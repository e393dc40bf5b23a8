"""The list of who was forgotten, kept beside the backups: an older state of the data has them in it again.

A line names nobody (see `domain/office/erasures.py`). The list only grows: what a restored shop does not know
any more stays in it, and every restore reads the one that lies beside its backup.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import structlog
from sqlalchemy import select

import config
from domain.backups import places
from domain.errors import DomainError
from extensions import db
from models import Erasure

log = structlog.get_logger(__name__)

NAME = "kassa-erasures.txt"


def keep(address: str) -> None:
    """Write the list beside the backups of `address`, with what stands there already. DomainError."""
    ours = db.session.scalars(select(Erasure.line).where(Erasure.line != "").order_by(Erasure.id)).all()
    db.session.rollback()
    place = places.beside(address, NAME)
    if not ours or place is None:
        return
    there = _read(place)
    whole = list(dict.fromkeys([*there, *ours]))
    if whole == there:
        return
    with TemporaryDirectory(prefix="kassa-erasures-") as folder:
        file = Path(folder) / NAME
        file.write_text("".join(f"{line}\n" for line in whole))
        place.put(file)


def keep_if_it_can_be(address: str = "") -> None:
    """The same, to BACKUP_TO where no address is said. A place that does not answer gets it another time."""
    address = address or config.get().backup_to
    if not address:
        return
    try:
        keep(address)
    except DomainError as error:
        # With the next erasure, and with every backup, it is written again.
        log.error("erasures_not_kept", error=error.message)


def known(source: str) -> tuple[list[str], list[str]]:
    """The lines of the lists beside a backup and at BACKUP_TO, and where they were found."""
    lines: list[str] = []
    found: list[str] = []
    for address in dict.fromkeys(filter(None, (source, config.get().backup_to))):
        place = places.beside(address, NAME)
        there = _read(place) if place is not None else []
        if there and place is not None:
            lines += there
            found.append(place.shown)
    return list(dict.fromkeys(lines)), found


def _read(place: places.Place) -> list[str]:
    """What stands in a list; nothing where there is none. DomainError where its place does not answer."""
    with TemporaryDirectory(prefix="kassa-erasures-") as folder:
        file = Path(folder) / NAME
        if not place.fetch_if_there(file):
            return []
        return [line.strip() for line in file.read_text(errors="replace").splitlines() if line.strip()]
