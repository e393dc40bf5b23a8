"""Where backups go by themselves, who can read them, and an S3-like store's door.

Apart from config.py, whose settings these are, so that each fits in a head.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from variables import ConfigError, Reader


@dataclass(frozen=True)
class Backups:
    """The settings about them. `backup_keys` are age's public keys, which a backup is encrypted to."""

    backup_to: str
    backup_keys: tuple[str, ...]
    backup_every_hours: int
    backup_s3_endpoint: str
    backup_s3_region: str
    backup_s3_key_id: str = field(repr=False)
    backup_s3_secret: str = field(repr=False)


def told(read: Reader) -> dict[str, Any]:
    """The settings as they are told. ConfigError in words."""
    given = read.text("BACKUP_KEY").replace(",", " ").split()
    if any(not re.fullmatch(r"age1[a-z0-9]{58}", key) for key in given):
        raise ConfigError(
            "BACKUP_KEY must be the public key that age-keygen printed: age1 and 58 characters more."
        )
    place = read.text("BACKUP_TO", most=500)
    if place and not given:
        raise ConfigError(
            "BACKUP_TO needs BACKUP_KEY, the public key of age that backups are encrypted to: they hold "
            "every buyer's name and address."
        )
    return {
        "backup_to": place,
        "backup_keys": tuple(given),
        "backup_every_hours": read.number("BACKUP_EVERY_HOURS", 24, least=1, most=24 * 7),
        "backup_s3_endpoint": read.url("BACKUP_S3_ENDPOINT"),
        "backup_s3_region": read.text("BACKUP_S3_REGION", most=100),
        "backup_s3_key_id": read.text("BACKUP_S3_KEY_ID", most=200),
        "backup_s3_secret": read.text("BACKUP_S3_SECRET", most=500),
    }
