"""Programs that a member is logged in with: access tokens of ten minutes, and refresh tokens that turn.

A login is a session. Its access tokens are signed and name it, and it is looked up at each request, so that
a new password, a closed account or a revocation ends them at once. Its refresh tokens follow each other:
each is used once, and makes the next. Whoever comes with one that was used before has a copy, so the whole
session ends. Only a repeat within seconds is taken for an answer that got lost, and gets the newest token
again: the next token is made of the one before, so both who ask get the same one, and a thief's line never
parts from the member's unseen.
"""

from __future__ import annotations

import hashlib
import secrets
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import jwt
from sqlalchemy import Select, bindparam, delete, select, update

import config
from domain import clock, locks, names
from domain.errors import DomainError, NotFound
from domain.security import logins
from extensions import db
from models import ApiRefreshToken, ApiSession, User

ACCESS_LIVES = timedelta(minutes=10)
# A login as long as a browser's: after that the password is asked for again.
SESSION_LIVES = logins.LIVES
# So long a refresh token that was used may come again, as after an answer that got lost.
REPEAT_WITHIN = timedelta(seconds=10)
# The one way in which our tokens are signed, whatever a token says of itself.
ALGORITHM = "HS256"
TYPE = "at+jwt"
_MUST_HAVE = ["iss", "aud", "sub", "iat", "exp"]
_LABEL = 200
# How many tokens can be made one after the other within REPEAT_WITHIN, generously.
_FURTHEST = 200
# So long it is noticed that a refresh token is used again.
_REMEMBERED = timedelta(days=3)
_BATCH = 5000


class BadToken(DomainError):
    """A token or key that opens nothing (any more)."""


@dataclass(frozen=True)
class Pair:
    """What a program gets at a login: a token to work with, and one to get the next pair with, once."""

    access: str
    refresh: str
    # Of the session, whatever is refreshed.
    expires_at: datetime


# --- Sessions -------------------------------------------------------------------------------------------


def begin(user: User, label: str = "", *, proved_at: datetime | None = None) -> Pair:
    """Log a program in as this member. `label` is what it calls itself. Commits.

    `proved_at` is when the member's second factor was shown, if it was.
    """
    now = clock.now()
    session = ApiSession(
        user_id=user.id,
        login_epoch=user.login_epoch,
        label=names.plain(label)[:_LABEL],
        created_at=now,
        expires_at=now + SESSION_LIVES,
        proved_at=proved_at,
    )
    db.session.add(session)
    db.session.flush()
    first = f"refresh_{secrets.token_urlsafe(32)}"
    _keep(session, first)
    pair = Pair(_signed(session.public_id), first, session.expires_at)
    db.session.commit()
    return pair


def refresh(token: str) -> Pair:
    """The next pair for a refresh token. Commits.

    BadToken for one that is unknown, over or revoked, and `refresh_reused` for one that was used before: then
    everything that came of its login has ended.
    """
    pair = locks.in_one_transaction(lambda: _turn(token))
    if pair is None:
        raise BadToken(
            "refresh_reused",
            "This refresh token was used before: somebody may have a copy, so the login has ended.",
        )
    return pair


def revoke(token: str) -> None:
    """End the login that a refresh token is of, used or not. Nothing happens for an unknown one. Commits."""
    session_id = select(ApiRefreshToken.session_id).where(ApiRefreshToken.token_hash == hashed(token))
    _end(ApiSession.id.in_(session_id))


def end(public_id: str) -> None:
    """End the login that an access token names. Commits."""
    _end(ApiSession.public_id == public_id)


def proved_at(public_id: str) -> datetime | None:
    """When the second factor was shown for the login that an access token names."""
    return db.session.scalar(select(ApiSession.proved_at).where(ApiSession.public_id == public_id))


def end_one(user: User, public_id: str) -> ApiSession:
    """End one login of this member's programs. Commits. NotFound for others', and where it has ended."""
    found = next((session for session in of(user) if session.public_id == public_id), None)
    if found is None:
        raise NotFound("no_login", "This program is logged out already.")
    _end(ApiSession.id == found.id)
    return found


def end_all(user: User) -> None:
    """End every login of this member's programs. Commits."""
    _end(ApiSession.user_id == user.id)


def of(user: User) -> list[ApiSession]:
    """The programs that this member is logged in with, the newest first."""
    query = select(ApiSession).where(
        ApiSession.user_id == user.id,
        ApiSession.login_epoch == user.login_epoch,
        ApiSession.revoked_at.is_(None),
        ApiSession.expires_at > clock.now(),
    )
    return list(db.session.scalars(query.order_by(ApiSession.id.desc()).limit(100)))


def forget() -> int:
    """Delete logins that are over, and refresh tokens that were used long ago, some at a time. Commits.

    A token that is forgotten opens nothing; only that somebody came with it again is not noticed any more.
    """
    now, gone = clock.now(), 0
    for table, old in (
        (ApiSession, ApiSession.expires_at <= now),
        (ApiRefreshToken, ApiRefreshToken.used_at <= now - _REMEMBERED),
    ):
        some = select(table.id).where(old).limit(_BATCH)
        gone += len(
            db.session.execute(
                delete(table)
                .where(table.id.in_(some))
                .returning(table.id)
                .execution_options(synchronize_session=False)
            ).all()
        )
        db.session.commit()
    return gone


def _end(which: Any) -> None:
    db.session.execute(
        update(ApiSession)
        .where(which, ApiSession.revoked_at.is_(None))
        .values(revoked_at=clock.now())
        .execution_options(synchronize_session=False)
    )
    db.session.commit()


# --- Refresh tokens -------------------------------------------------------------------------------------


def _turn(token: str) -> Pair | None:
    """The next pair, or None where the token was used before and the session ends for it. No commit."""
    session = db.session.scalar(_LOCKED, {"token_hash": hashed(token)})
    if session is None:
        raise BadToken(
            "refresh_unknown", "This refresh token is not one of ours, or is too old. Log in again."
        )
    now = clock.now()
    if not _is_alive(session, session.user, now):
        raise BadToken("refresh_over", "This login has ended. Log in again.")
    # Read only now that the session is locked: somebody may have used it while we waited.
    given = db.session.scalars(_GIVEN, {"token_hash": hashed(token)}).one()
    if given.used_at is None:
        given.used_at = now
        following = _following(token)
        _keep(session, following)
    elif now - given.used_at <= REPEAT_WITHIN:
        following = _newest(token)
    else:
        session.revoked_at = now
        return None
    return Pair(_signed(session.public_id), following, session.expires_at)


_LOCKED = (
    select(ApiSession)
    .join(ApiRefreshToken, ApiRefreshToken.session_id == ApiSession.id)
    .where(ApiRefreshToken.token_hash == bindparam("token_hash"))
    .with_for_update(key_share=True, of=ApiSession)
    .execution_options(populate_existing=True)
)
_GIVEN = (
    select(ApiRefreshToken)
    .where(ApiRefreshToken.token_hash == bindparam("token_hash"))
    .execution_options(populate_existing=True)
)


def _keep(session: ApiSession, token: str) -> None:
    db.session.add(
        ApiRefreshToken(session_id=session.id, token_hash=hashed(token), created_at=clock.now(), used_at=None)
    )


def _following(token: str, key: bytes | None = None) -> str:
    """The refresh token that comes after this one: only who has SECRET_KEY can make it."""
    key = key or config.get().derived_key("api-refresh")
    made = hashlib.blake2b(token.encode("utf-8", "replace"), key=key, digest_size=32).digest()
    return f"refresh_{urlsafe_b64encode(made).decode().rstrip('=')}"


def _newest(token: str) -> str:
    """The last token in the line that this one began, not used yet."""
    keys = config.get().derived_keys("api-refresh")
    for _ in range(_FURTHEST):
        # After a change of SECRET_KEY the next one was made under the one before, as long as that holds.
        made = {hashed(following): following for following in (_following(token, key) for key in keys)}
        rows = (db.session.scalars(_GIVEN, {"token_hash": kept}).one_or_none() for kept in made)
        row = next((row for row in rows if row is not None), None)
        if row is None:
            break
        token = made[row.token_hash]
        if row.used_at is None:
            return token
    raise BadToken("refresh_over", "This refresh token was used already. Log in again.")


def hashed(secret: str) -> str:
    """What the database keeps of a token or a key: they are long and random, so one hash is enough."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


# --- Access tokens --------------------------------------------------------------------------------------


def session_of(token: str) -> str:
    """The session that an access token names. No query: what became of the session, `whose` tells.

    BadToken `token_expired`, or `token_invalid` for anything that we have not signed as our own access token.
    """
    try:
        header = jwt.get_unverified_header(token)
        key = _ring().get(str(header.get("kid")))
        if key is None or header.get("typ") != TYPE:
            raise _invalid()
        # The time is compared by our own clock, below.
        claims = jwt.decode(
            token,
            key,
            algorithms=[ALGORITHM],
            audience=_audience(),
            issuer=config.get().public_url,
            options={"require": _MUST_HAVE, "verify_exp": False, "verify_iat": False, "verify_nbf": False},
        )
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        raise _invalid() from error
    if type(claims["exp"]) is not int or type(claims["sub"]) is not str:
        raise _invalid()
    if claims["exp"] <= clock.now().timestamp():
        raise BadToken("token_expired", "This access token is older than ten minutes. Refresh it.")
    return str(claims["sub"])


def whose(public_id: str) -> User:
    """The member whose session this is. BadToken where it has ended, by whatever way."""
    found = db.session.execute(_by_public_id(), {"public_id": public_id}).one_or_none()
    if found is None or not _is_alive(found[0], found[1], clock.now()):
        raise BadToken("token_revoked", "This login has ended. Log in again.")
    user: User = found[1]
    return user


@cache
def _by_public_id() -> Select[*tuple[Any, ...]]:
    """Made once: every request with a token asks it."""
    named = ApiSession.public_id == bindparam("public_id")
    return select(ApiSession, User).join(User, User.id == ApiSession.user_id).where(named)


def _is_alive(session: ApiSession, user: User, now: datetime) -> bool:
    """A later password, a closed account, a revocation and time each end it."""
    return (
        session.revoked_at is None
        and session.expires_at > now
        and user.is_active
        and user.login_epoch == session.login_epoch
    )


def _signed(public_id: str) -> str:
    now = clock.now()
    kid, key = next(iter(_ring().items()))
    claims = {
        "iss": config.get().public_url,
        "aud": _audience(),
        "sub": public_id,
        "iat": int(now.timestamp()),
        "exp": int((now + ACCESS_LIVES).timestamp()),
    }
    return jwt.encode(claims, key, algorithm=ALGORITHM, headers={"kid": kid, "typ": TYPE})


def _audience() -> str:
    return f"{config.get().public_url}/api/v1"


def _ring() -> dict[str, bytes]:
    """Keys by their names, the one that signs first: made of TOKEN_KEYS, newest first, then of SECRET_KEY.

    As in keyring.py, so that both are changed together, and what was signed before stays good.
    """
    settings = config.get()
    return _named((*settings.token_keys,), settings.derived_keys("api-tokens"))


@cache
def _named(texts: tuple[str, ...], last: tuple[bytes, ...]) -> dict[str, bytes]:
    made = (hashlib.blake2b(text.encode(), digest_size=32, person=b"kassa-api").digest() for text in texts)
    return {hashlib.blake2b(key, digest_size=6).hexdigest(): key for key in (*made, *last)}


def _invalid() -> BadToken:
    return BadToken("token_invalid", "This is no access token of ours. Get one at /api/v1/auth/token.")
