"""Settings of the environment, as they were at the last start: what differs now goes into the audit log.

Whoever may set them does so at the host, which tells nobody; the clock, of which there is one, compares when
it starts. Of a secret only a few digits of a keyed hash are kept: enough to see that it is another one, and
too few to find it by.
"""

from __future__ import annotations

import hashlib
from dataclasses import fields

import config
from domain import audit, clock
from extensions import db
from models import AuditArea, Deed, SettingSeen

_DIGITS = 4
_OWN_KEY = "secret_key"


def compare() -> int:
    """Note each setting that is another one than at the last start; how many. Commits.

    At the very first start there is nothing to compare with. Where SECRET_KEY itself is another one, what is
    kept of the other secrets says nothing, so that it alone is noted of them.
    """
    now = _now()
    rows = {row.name: row for row in db.session.query(SettingSeen).with_for_update()}
    rekeyed = bool(rows) and rows[_OWN_KEY].value != now[_OWN_KEY] if _OWN_KEY in rows else False
    secret = {one.name for one in fields(config.Settings) if not one.repr}
    number = 0
    for name, value in now.items():
        row = rows.get(name)
        if row is None:
            db.session.add(SettingSeen(name=name, value=value, seen_at=clock.now()))
            continue
        changed = row.value != value and not (rekeyed and name in secret and name != _OWN_KEY)
        if changed:
            shown = (audit.HIDDEN, audit.HIDDEN) if name in secret else (row.value, value)
            label = name.upper()
            audit.note(
                AuditArea.SETTING, Deed.CHANGED, "setting", name, label=label, changes=[(name, *shown)]
            )
            number += 1
        row.value, row.seen_at = value, clock.now()
    db.session.commit()
    return number


def _now() -> dict[str, str]:
    settings = config.get()
    told = {}
    for one in fields(settings):
        value = str(getattr(settings, one.name))
        told[one.name] = value[:2000] if one.repr else _mark(settings, one.name, value)
    return told


def _mark(settings: config.Settings, name: str, value: str) -> str:
    """What is kept of a secret; "" where it is not set."""
    if value in ("", "()"):
        return ""
    key = b"" if name == _OWN_KEY else settings.derived_key("settings seen")
    return hashlib.blake2b(value.encode(), key=key, digest_size=_DIGITS).hexdigest()
