"""The one source of time.

In development the sandbox can move time: `$KASSA_HOME/clock` holds an offset in seconds that is added to
the real time. Production never reads it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import config


def now() -> datetime:
    """The current time, aware, in UTC."""
    settings = config.get()
    real = datetime.now(UTC)
    return real + _offset(settings.home / "clock") if settings.development else real


def _offset(path: Path) -> timedelta:
    try:
        return timedelta(seconds=float(path.read_text() or 0))
    except FileNotFoundError:
        return timedelta()
