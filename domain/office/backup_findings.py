"""What the doctor says of backups: whether PostgreSQL's programs fit the server, and where backups go."""

from __future__ import annotations

import config
from domain.backups import programs
from domain.errors import DomainError
from domain.office.finding import FAIL, OK, WARN, Finding


def programs_fit() -> Finding:
    """Whether `flask backup` finds a pg_dump that can read this server."""
    title, settings = "Backups", config.get()
    try:
        found = programs.find("pg_dump", programs.server_major())
    except DomainError as error:
        state = FAIL if settings.backup_to else WARN
        return Finding("backups", title, state, error.message, "Then try `flask backup`.")
    words = f"pg_dump {found.major} can read it."
    if not settings.backup_to:
        fix = "Set BACKUP_TO and BACKUP_KEY, or see that the host takes backups."
        state = OK if settings.development else WARN
        return Finding("backups", title, state, f"{words} None is taken by itself.", fix)
    return Finding("backups", title, OK, f"{words} They go to {settings.backup_to}.")
