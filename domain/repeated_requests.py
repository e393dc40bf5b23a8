"""Requests that their sender named: sent again, they are answered again and not done again.

A name belongs to a caller, a method and a path. Whoever comes first claims it in a transaction of its own,
does what is asked, and keeps the answer for a day. Nobody waits for anybody: who comes meanwhile is told to
come back. A claim whose owner died is free after a minute.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import and_, delete, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from domain import clock
from domain.errors import DomainError
from extensions import db
from models import ApiRequest

KEPT = timedelta(hours=24)
# No request works for so long: a claim that is older is a dead one's.
FREE_AFTER = timedelta(seconds=60)
LONGEST_KEY = 255
_LONGEST_PATH = 300
# What may be different in a moment; with everything above it.
_PASSING = frozenset({401, 403, 429})
_BATCH = 5000


class InProgress(DomainError):
    """The first request of this name is still at work."""


class Reused(DomainError):
    """The name was given to another request before."""


@dataclass(frozen=True)
class Claim:
    """The right to do what was asked, for now."""

    id: int
    attempt: str


@dataclass(frozen=True)
class Answer:
    """What the first request was answered."""

    status: int
    text: str


def claim(caller: str, method: str, path: str, key: str, body: bytes) -> Claim | Answer:
    """Take this name, or tell what was answered under it. Commits.

    DomainError `idempotency_key` for a key that is none; InProgress; Reused.
    """
    _check(key)
    now, attempt, said = clock.now(), secrets.token_hex(16), hashlib.sha256(body).hexdigest()
    values = {"body_hash": said, "attempt": attempt, "started_at": now}
    name = {"caller": caller, "method": method, "path": path[:_LONGEST_PATH], "key": key}
    free = or_(
        and_(ApiRequest.finished_at.is_(None), ApiRequest.started_at <= now - FREE_AFTER),
        ApiRequest.started_at <= now - KEPT,
    )
    made = db.session.scalar(
        insert(ApiRequest)
        .values(**name, **values)
        .on_conflict_do_update(
            constraint="api_requests_key",
            set_={**values, "finished_at": None, "status": None, "answer": None},
            where=free,
        )
        .returning(ApiRequest.id)
    )
    db.session.commit()
    if made is not None:
        return Claim(made, attempt)
    columns = (ApiRequest.body_hash, ApiRequest.status, ApiRequest.answer)
    found = db.session.execute(select(*columns).filter_by(**name)).one_or_none()
    db.session.rollback()
    if found is not None and found.body_hash != said:
        raise Reused(
            "idempotency_key_reused",
            "This Idempotency-Key was sent with another body before. Use a new key for a new request.",
        )
    if found is None or found.status is None:
        raise InProgress(
            "idempotency_in_progress", "The first request with this Idempotency-Key is still at work."
        )
    return Answer(found.status, found.answer or "")


def is_kept(status: int) -> bool:
    """Whether such an answer would be the same tomorrow, as far as its status tells."""
    return status < 500 and status not in _PASSING


def finish(claim: Claim, status: int, text: str) -> None:
    """Keep the answer, unless somebody else has the name by now. Commits that alone."""
    db.session.rollback()
    db.session.execute(
        update(ApiRequest)
        .where(ApiRequest.id == claim.id, ApiRequest.attempt == claim.attempt)
        .values(finished_at=clock.now(), status=status, answer=text)
        .execution_options(synchronize_session=False)
    )
    db.session.commit()


def give_back(claim: Claim) -> None:
    """Free the name, for the answer is not one to keep. Commits that alone."""
    db.session.rollback()
    db.session.execute(
        delete(ApiRequest)
        .where(ApiRequest.id == claim.id, ApiRequest.attempt == claim.attempt)
        .execution_options(synchronize_session=False)
    )
    db.session.commit()


def forget() -> int:
    """Delete what was kept long enough, some at a time; how many. Commits."""
    old = select(ApiRequest.id).where(ApiRequest.started_at <= clock.now() - KEPT).limit(_BATCH)
    gone = db.session.execute(
        delete(ApiRequest)
        .where(ApiRequest.id.in_(old))
        .returning(ApiRequest.id)
        .execution_options(synchronize_session=False)
    ).all()
    db.session.commit()
    return len(gone)


def _check(key: str) -> None:
    if not 1 <= len(key) <= LONGEST_KEY or not key.isascii() or not key.isprintable():
        raise DomainError(
            "idempotency_key", f"An Idempotency-Key has 1 to {LONGEST_KEY} printable ASCII characters."
        )
