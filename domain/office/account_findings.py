"""How well the accounts of those who may give money back are kept, and what a new PUBLIC_URL has ended."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

import config
from domain.office import backfill
from domain.office.finding import FAIL, OK, WARN, Finding
from domain.security import passkeys
from extensions import db
from models import Role, User


def look() -> list[Finding]:
    """Who is an admin, accounts of one address, second factors that are missing, passkeys of another host."""
    known = [_admin(), _twins()]
    try:
        return [*known, _missing(), _ended()]
    except SQLAlchemyError as error:
        words = f"They cannot be read: {type(error).__name__}."
        return [*known, Finding("second_factors", "Second factors", WARN, words, "Run `flask db upgrade`.")]
    finally:
        db.session.rollback()


def _admin() -> Finding:
    title = "Administrator"
    try:
        count = db.session.scalar(
            select(func.count()).where(
                User.role == Role.ADMIN, User.confirmed_at.is_not(None), User.disabled_at.is_(None)
            )
        )
    except SQLAlchemyError:
        return Finding("admin", title, FAIL, "The accounts cannot be read.", "Run `flask db upgrade`.")
    finally:
        db.session.rollback()
    if count:
        return Finding("admin", title, OK, f"{count} may log in at /admin/.")
    fix = "Run `flask users admin EMAIL` and open the link that it prints."
    return Finding("admin", title, WARN, "Nobody can log in as an administrator yet.", fix)


def _twins() -> Finding:
    """Accounts of one address from before there was one form of it: a person may want to close one."""
    title = "Accounts of one address"
    try:
        found = backfill.twins()
        words = "; ".join(" and ".join(f"{user.email} (no. {user.id})" for user in users) for users in found)
    except SQLAlchemyError:
        return Finding("twins", title, FAIL, "The accounts cannot be read.", "Run `flask db upgrade`.")
    finally:
        db.session.rollback()
    if not found:
        return Finding("twins", title, OK, "There are none.")
    fix = "Both work. Ask their owner which is used, and close the other at /admin/records/users/."
    return Finding("twins", title, WARN, f"Spelled differently, mailed to one place: {words}.", fix)


def _missing() -> Finding:
    title = "Second factors"
    query = select(func.count()).where(
        User.role == Role.ADMIN,
        User.confirmed_at.is_not(None),
        User.disabled_at.is_(None),
        User.second_factor_at.is_(None),
    )
    count = db.session.scalar(query) or 0
    if config.get().development or not count:
        return Finding(
            "second_factors", title, OK, "Every admin has one." if not count else "Not asked for here."
        )
    words = (
        f"{count} of the admins {'has' if count == 1 else 'have'} none, so a password alone opens the shop."
    )
    fix = "Set one up at /account/second-factor/. It is asked for at the next login, with 14 days' time."
    return Finding("second_factors", title, WARN, words, fix)


def _ended() -> Finding:
    title, count = "Passkeys", passkeys.ended()
    if not count:
        return Finding(
            "passkeys", title, OK, f"They are bound to {passkeys.host()}: another PUBLIC_URL ends them."
        )
    words = f"PUBLIC_URL was changed, which ended {count}: passkeys work at the host they were made at alone."
    fix = "Their owners log in by the app's codes, and add new ones; or set PUBLIC_URL back."
    return Finding("passkeys", title, WARN, words, fix)
