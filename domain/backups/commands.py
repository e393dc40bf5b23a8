"""What `flask backup` and `flask restore` do and say, in words for whoever types them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import config
from domain.backups import forgotten, lives, programs, restoring
from domain.backups.restoring import Noted
from domain.errors import DomainError

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Wish:
    """What is to be restored: from where, opened by which key's text, and into which database."""

    source: str
    identity: str
    other_keys: bool
    # The text of a list of who was forgotten, beside those that are found.
    erasures: str = ""
    # The last life that is known of, where nothing else tells it.
    above: int = 1


def restore(
    wish: Wish, *, upgrade: Callable[[], None], forget: Callable[[list[str]], str], tell: Tell
) -> int:
    """Restore into the empty database that Kassa works with; the number of the epoch that begins.

    `forget` erases again whom the lists beside the backups name, and says whom.
    """
    database = programs.database()
    restoring.refuse_full(database)
    with restoring.opened(wish.source, wish.identity) as dump:
        told = _told(dump, wish, tell)
        restoring.load(dump, database)
        number = restoring.close(told, database, above=max(_highest(wish, tell), wish.above))
    _kept(number, wish, tell)
    _told_address(restoring.address(database), tell)
    tell("The rows are back. Bringing the tables to this program's form ...")
    upgrade()
    _forgotten(wish, forget, tell)
    return number


def _told_address(was: str, tell: Tell) -> None:
    """Say so where the shop had another address: payments of lost orders are known by it."""
    now = config.get().public_url
    if was not in ("", now):
        tell(
            f"The shop was at {was}, and PUBLIC_URL is {now} now. Payments that the backup has lost are "
            "found by the old address alone: set PUBLIC_URL back until the shop has been opened."
        )


def _highest(wish: Wish, tell: Tell) -> int:
    """The highest number that is known of the shop's lives. A place that does not answer stops nothing."""
    try:
        return lives.highest(wish.source)
    except DomainError as error:
        tell(f"How often this shop was restored before is not known: {error.message}")
        return 1


def _kept(number: int, wish: Wish, tell: Tell) -> None:
    try:
        lives.begun(number, wish.source)
    except DomainError as error:
        tell(f"Say --epoch {number} should this shop be restored once more: {error.message}")


def _forgotten(wish: Wish, forget: Callable[[list[str]], str], tell: Tell) -> None:
    """Forget again whoever was forgotten since. What is in the way of it does not undo the restore."""
    again = "Find the list of `flask users erasures`, and run `flask users erase-again FILE`."
    try:
        lines, found = forgotten.known(wish.source)
        lines += [line for line in wish.erasures.splitlines() if line.strip()]
        if lines:
            tell(f"Of who was forgotten{' (' + ', '.join(found) + ')' if found else ''}: {forget(lines)}")
        else:
            tell(f"No list of who was forgotten lies beside the backup. Where anybody was: {again}")
    except DomainError as error:
        tell(f"Nobody was forgotten again: {error.message} {again}")


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
