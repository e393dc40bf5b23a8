"""What `flask backup` and `flask restore` do and say, in words for whoever types them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from domain.backups import programs, restoring
from domain.backups.restoring import Noted

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Wish:
    """What is to be restored: from where, opened by which key's text, and into which database."""

    source: str
    identity: str
    other_keys: bool


def restore(wish: Wish, *, upgrade: Callable[[], None], tell: Tell) -> int:
    """Restore into the empty database that Kassa works with; the number of the epoch that begins."""
    database = programs.database()
    restoring.refuse_full(database)
    with restoring.opened(wish.source, wish.identity) as dump:
        told = _told(dump, wish, tell)
        restoring.load(dump, database)
        number = restoring.close(told, database)
    tell("The rows are back. Bringing the tables to this program's form ...")
    upgrade()
    return number


def check(wish: Wish, into: str, *, judge: Callable[[str], bool], tell: Tell) -> bool:
    """Restore into another database, an empty one or one of its own, and let `judge` say if all is well."""
    with restoring.opened(wish.source, wish.identity) as dump:
        _told(dump, wish, tell)
        if into:
            restoring.refuse_full(into)
            restoring.load(dump, into)
            return judge(into)
        with restoring.scratch(programs.database()) as made:
            restoring.load(dump, made)
            return judge(made)


def _told(dump: Path, wish: Wish, tell: Tell) -> Noted:
    told = restoring.noted(dump)
    tell(f"A backup of {told.began_at:%Y-%m-%d %H:%M} UTC.")
    for name in restoring.check_keys(told, others=wish.other_keys):
        tell(f"It was made with another {name}, and goes on without it.")
    return told
