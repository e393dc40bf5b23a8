"""Keys and programs of a member's account: whoever opens a new way in is told of it by mail."""

from __future__ import annotations

from collections.abc import Iterable

import config
from domain.post import outbox
from domain.security import api_keys
from extensions import db, queue
from models import ApiKey, User


def make_key(user: User, name: str, scopes: Iterable[str], days: int) -> tuple[ApiKey, str]:
    """A new key and its text, as `api_keys.make` has it; its owner is told by mail. Commits."""
    key, text = api_keys.make(user, name, scopes, days)
    outbox.stage(
        "api_key_made",
        key=f"user:{user.id}:api_key:{key.public_id}",
        to=user.email,
        user=user,
        context={"prefix": key.prefix, "link": f"{config.get().public_url}/account/api/"},
    )
    db.session.commit()
    queue.soon("deliver_mail")
    return key, text
