"""What the keys look like that a database needs: enough to tell others, too little to guess them."""

from __future__ import annotations

import hashlib

import config

_SALT = b"kassa-backup-keys"


def fingerprints() -> dict[str, list[str]]:
    """By the name of each setting, the newest key first."""
    settings = config.get()
    return {
        "SECRET_KEY": [_of(key) for key in (settings.secret_key, *settings.secret_keys_rotated)],
        "TOKEN_KEYS": [_of(key) for key in settings.token_keys],
    }


def missing(noted: dict[str, list[str]]) -> list[str]:
    """The settings that lack a key which the backup's shop had."""
    here = fingerprints()
    known = {one for ours in here.values() for one in ours}
    return [name for name, theirs in noted.items() if any(one not in known for one in theirs)]


def _of(key: str) -> str:
    # Slow on purpose: a short key must not be found by trying.
    return hashlib.scrypt(key.encode(), salt=_SALT, n=2**14, r=8, p=1, dklen=8).hex()
