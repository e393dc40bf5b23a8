"""Keys that members give to servers: what each may do, until when, and when it was last used.

A key is shown once; its hash is kept, and how it begins, to know it by. It may do what it was given, as far
as its owner may do that themselves at that moment.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from datetime import timedelta
from functools import cache

from sqlalchemy import Select, bindparam, or_, select, update
from sqlalchemy.orm import joinedload

from domain import clock, names
from domain.errors import DomainError, NotFound
from domain.security import one_time_links, scopes
from domain.security.api_tokens import BadToken, hashed
from domain.security.scopes import Scope
from extensions import db
from models import ApiKey, User

LEADS = "kassa_"
MOST_DAYS = 366
MOST_KEYS = 25
LONGEST_NAME = 100
# Use is noted so often at most: a server may ask a hundred times a second.
_NOTED = timedelta(minutes=1)
_PREFIX_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"
_PREFIX_LENGTH = 8


def make(user: User, name: str, wanted: Iterable[str], days: int) -> tuple[ApiKey, str]:
    """A new key of this member, and its text, which is told this once. No commit: its mail is the caller's.

    DomainError in words, with the codes `name_missing`, `name_too_long`, `scopes_missing`, `scope_unknown`,
    `days` and `too_many_keys`.
    """
    name = _name(name)
    if not 1 <= days <= MOST_DAYS:
        raise DomainError("days", f"A key is good for 1 to {MOST_DAYS} days.")
    # Two keys that are made at once count each other, and who loses a role now gives nothing of it away.
    epoch = user.login_epoch
    user = one_time_links.lock(user.id)
    given = _scopes(user, wanted)
    if user.login_epoch != epoch or not user.is_active:
        raise DomainError("login_over", "You were logged out meanwhile. Log in again.")
    if len(living(user)) >= MOST_KEYS:
        raise DomainError("too_many_keys", f"You have {MOST_KEYS} keys already. Revoke one first.")
    prefix = "".join(secrets.choice(_PREFIX_LETTERS) for _ in range(_PREFIX_LENGTH))
    text = f"{LEADS}{prefix}_{secrets.token_urlsafe(32)}"
    now = clock.now()
    key = ApiKey(
        user_id=user.id,
        name=name,
        prefix=f"{LEADS}{prefix}",
        key_hash=hashed(text),
        scopes=[scope.value for scope in given],
        created_at=now,
        expires_at=now + timedelta(days=days),
    )
    db.session.add(key)
    db.session.flush()
    return key, text


def _name(typed: str) -> str:
    name = names.plain(typed)
    if not name:
        raise DomainError("name_missing", "Give the key a name that says which server has it.")
    if len(name) > LONGEST_NAME:
        raise DomainError("name_too_long", f"That name is too long. Use at most {LONGEST_NAME} characters.")
    return name


def _scopes(user: User, wanted: Iterable[str]) -> list[Scope]:
    try:
        chosen = {Scope(name) for name in wanted}
    except ValueError as error:
        raise DomainError("scope_unknown", "There is no such permission. Choose from the list.") from error
    if not chosen:
        raise DomainError("scopes_missing", "Choose at least one thing that the key may do.")
    if chosen - scopes.of_keys_of(user.role):
        raise DomainError(
            "scope_unknown", "Your account may not do all of that itself. Choose from the list."
        )
    return sorted(chosen)


def whose(text: str) -> ApiKey:
    """The key behind its text, with its owner. BadToken, in words, for one that opens nothing any more."""
    key = db.session.scalar(_by_hash(), {"key_hash": hashed(text)})
    if key is None:
        raise BadToken("key_unknown", "This is no API key of ours. Copy all of it, or make a new one.")
    if key.revoked_at is not None:
        raise BadToken("key_revoked", "This API key was revoked.")
    if key.expires_at <= clock.now():
        raise BadToken("key_expired", "This API key is past its end date. Make a new one.")
    if not key.user.is_active:
        raise BadToken("key_revoked", "The account that this API key is of is closed.")
    return key


@cache
def _by_hash() -> Select[ApiKey]:
    """Made once: every request with a key asks it."""
    return select(ApiKey).where(ApiKey.key_hash == bindparam("key_hash")).options(joinedload(ApiKey.user))


def allows(key: ApiKey, scope: Scope) -> bool:
    """Whether the key was given this, and its owner may do it now."""
    return scope.value in key.scopes and scope in scopes.of_keys_of(key.user.role)


def note_use(key: ApiKey) -> None:
    """Remember that the key was used, to the minute. Commits where it does."""
    now = clock.now()
    due = key.last_used_at is None or key.last_used_at <= now - _NOTED
    if not due:
        return
    db.session.execute(
        update(ApiKey)
        .where(ApiKey.id == key.id, or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at <= now - _NOTED))
        .values(last_used_at=now)
        .execution_options(synchronize_session=False)
    )
    db.session.commit()


def of(user: User) -> list[ApiKey]:
    """A member's keys, the newest first, those that are over too."""
    query = select(ApiKey).where(ApiKey.user_id == user.id).order_by(ApiKey.id.desc()).limit(100)
    return list(db.session.scalars(query))


def living(user: User) -> list[ApiKey]:
    """The keys of a member that still open something."""
    now = clock.now()
    return [key for key in of(user) if key.revoked_at is None and key.expires_at > now]


def revoke(user: User, public_id: str) -> ApiKey:
    """End a key at once. Commits. NotFound where this member has none of that name."""
    query = select(ApiKey).where(ApiKey.user_id == user.id, ApiKey.public_id == public_id)
    key = db.session.scalar(query.with_for_update(key_share=True).execution_options(populate_existing=True))
    if key is None:
        raise NotFound("no_key", "There is no such API key.")
    end(key)
    db.session.commit()
    return key


def end(key: ApiKey) -> None:
    """End a key, whoever wants it. Through the session, where the audit log sees it. No commit."""
    key.revoked_at = key.revoked_at or clock.now()
