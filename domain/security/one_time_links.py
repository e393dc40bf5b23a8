"""One-time links: mailed or printed, used once, gone after their time. Only a hash of the token is kept.

Whoever makes, voids or uses a link locks its user first, so that these never wait for each other crosswise.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection
from datetime import timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import joinedload

import config
from domain import clock
from domain.errors import DomainError, NotFound
from extensions import db
from models import LinkPurpose, OneTimeLink, User

LIVES = {
    LinkPurpose.CONFIRM: timedelta(days=3),
    LinkPurpose.RESET: timedelta(hours=1),
    LinkPurpose.FIRST_ADMIN: timedelta(days=7),
    # Not mailed but handed to the browser: it goes to a provider and comes back.
    LinkPurpose.CONNECT: timedelta(minutes=30),
}
_PAGES = {
    LinkPurpose.CONFIRM: "/account/confirm/",
    LinkPurpose.RESET: "/account/reset/",
    LinkPurpose.FIRST_ADMIN: "/account/reset/",
}
TO_CONFIRM = frozenset({LinkPurpose.CONFIRM})
# Whoever reads an address's mail may choose its password, also before anybody confirmed it.
TO_CHOOSE_A_PASSWORD = frozenset({LinkPurpose.RESET, LinkPurpose.FIRST_ADMIN, LinkPurpose.CONFIRM})


def make(user: User, purpose: LinkPurpose) -> str:
    """A new link for `user`, as the whole address to open. Does not commit."""
    return f"{config.get().public_url}{_PAGES[purpose]}{token(user, purpose)}"


def token(user: User, purpose: LinkPurpose) -> str:
    """The secret of a new link, for what is no page of ours. Does not commit."""
    secret = secrets.token_urlsafe(32)
    now = clock.now()
    db.session.add(
        OneTimeLink(
            user_id=user.id,
            purpose=purpose,
            token_hash=_hashed(secret),
            created_at=now,
            expires_at=now + LIVES[purpose],
        )
    )
    return secret


def look(token: str, purposes: Collection[LinkPurpose]) -> OneTimeLink:
    """The link behind a token, with its user, left unused: what a GET may do, for mail scanners open links.

    Raises NotFound for a token that never was, DomainError `link_used` and `link_expired`.
    """
    link = db.session.scalar(
        select(OneTimeLink)
        .where(OneTimeLink.token_hash == _hashed(token), OneTimeLink.purpose.in_(purposes))
        .options(joinedload(OneTimeLink.user))
        .execution_options(populate_existing=True)
    )
    if link is None:
        raise NotFound("link_unknown", "This link is not complete. Copy all of it from the mail.")
    if link.used_at is not None:
        raise DomainError("link_used", "This link was used already, or a newer one has taken its place.")
    if link.expires_at <= clock.now():
        raise DomainError("link_expired", "This link is too old.")
    return link


def use(token: str, purposes: Collection[LinkPurpose]) -> User:
    """Use the link up and give its user, locked. Of two at one moment one gets `link_used`. No commit."""
    found = look(token, purposes)
    user = lock(found.user_id)
    now = clock.now()
    used = db.session.execute(
        update(OneTimeLink)
        .where(OneTimeLink.id == found.id, OneTimeLink.used_at.is_(None), OneTimeLink.expires_at > now)
        .values(used_at=now)
        .returning(OneTimeLink.id)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if used is None:
        raise DomainError("link_used", "This link was used already, or a newer one has taken its place.")
    return user


def begin_again(link: str) -> bool:
    """Let the time of a link that was not mailed when it was made begin now. No commit.

    False where it was used, or another has taken its place; True for what is no such link.
    """
    found = db.session.scalar(
        select(OneTimeLink)
        .where(OneTimeLink.token_hash == _hashed(link.rpartition("/")[2]))
        .with_for_update()
    )
    if found is None:
        return True
    if found.used_at is None:
        found.expires_at = max(found.expires_at, clock.now() + LIVES[found.purpose])
    return found.used_at is None


def void(user: User, purposes: Collection[LinkPurpose]) -> None:
    """Make the user's unused links of these purposes useless. No commit."""
    db.session.execute(
        update(OneTimeLink)
        .where(
            OneTimeLink.user_id == user.id,
            OneTimeLink.purpose.in_(purposes),
            OneTimeLink.used_at.is_(None),
        )
        .values(used_at=clock.now())
        .execution_options(synchronize_session=False)
    )


def waiting(user: User, purpose: LinkPurpose) -> bool:
    """Whether the user has a link of this purpose that would still work."""
    query = select(OneTimeLink.id).where(
        OneTimeLink.user_id == user.id,
        OneTimeLink.purpose == purpose,
        OneTimeLink.used_at.is_(None),
        OneTimeLink.expires_at > clock.now(),
    )
    return db.session.scalar(query.limit(1)) is not None


def lock(user_id: int) -> User:
    """The user's row, locked and fresh from the database."""
    return db.session.scalars(
        select(User)
        .where(User.id == user_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    ).one()


def fingerprint(link: str) -> str:
    """A name for a link that gives nothing away: for keys and logs."""
    return _hashed(link)[:24]


def _hashed(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
