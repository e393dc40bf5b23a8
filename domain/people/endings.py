"""What ends with somebody's power: the ways in that they were given, or gave to others, by their role.

A suspended organiser, a demoted member and a closed account lose all of them for good; who is let in again
makes new ones. Whoever makes such a way in locks the member's row first and looks at the role again, so that
none is made at the moment at which all of them end.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, or_, select, update

from domain import clock
from domain.security import api_keys, devices, scopes
from extensions import db
from models import ApiSession, DoorPass, Event, Role, User

# Who may do more than whom. A door and a desk are each what the other is not.
_RANK = {Role.BUYER: 0, Role.DOOR: 1, Role.DESK: 1, Role.ORGANISER: 2, Role.ADMIN: 3}


def lowers(before: Role, after: Role) -> bool:
    """Whether a change of roles takes something away."""
    return after is not before and _RANK[after] <= _RANK[before]


def of_power(user: User, after: Role | None = None) -> None:
    """End what this member's role gave: door passes, programs, logins, and keys for what `after` may not do.

    Without `after` the account is closed, and every key ends. The row is locked. No commit.
    """
    of_passes(user)
    of_keys(user, after)
    of_logins(user)


def of_logins(user: User) -> None:
    """End every login, in browsers and programs; no browser is known any more. Locked; no commit."""
    db.session.execute(
        update(ApiSession)
        .where(ApiSession.user_id == user.id, ApiSession.revoked_at.is_(None))
        .values(revoked_at=clock.now())
        .execution_options(synchronize_session=False)
    )
    user.login_epoch += 1
    devices.forget(user)


def of_keys(user: User, after: Role | None) -> None:
    """End the keys for what `after` may not do, or may give no key for. The row is locked. No commit."""
    left = frozenset(scope.value for scope in scopes.of_keys_of(after)) if after is not None else frozenset()
    for key in api_keys.living(user):
        if after is None or set(key.scopes) - left:
            api_keys.end(key)


def of_passes(user: User) -> None:
    """End the passes for the doors of this member's events, and those that they made. No commit."""
    theirs: ColumnElement[bool] = DoorPass.event_id.in_(select(Event.id).where(Event.organiser_id == user.id))
    passes = select(DoorPass).where(
        or_(theirs, DoorPass.created_by_id == user.id), DoorPass.revoked_at.is_(None)
    )
    # Through the session, where the audit log sees it.
    for door_pass in db.session.scalars(passes.with_for_update(key_share=True)):
        door_pass.revoked_at = clock.now()
    db.session.flush()
