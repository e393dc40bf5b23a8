"""Second factors of accounts: what becomes of them is told to their owner by mail, and written down.

A factor that is lost is taken away by `flask users admin EMAIL` for an admin, and by an admin for everybody
else; every admin is told of it, for it is what a thief would ask for.
"""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import Any

from sqlalchemy import select

import config
from domain import addresses, clock
from domain.errors import DomainError
from domain.people import desks, security_log
from domain.post import outbox
from domain.security import devices, one_time_links, passkeys, second_factors
from domain.security.guesses import Place
from extensions import db, network, queue
from models import Role, SecondFactor, User

# Whoever should have one has so long, from the next login on, to set it up.
GRACE = timedelta(days=14)
_ON_THE_SERVER = "“flask users admin” on the server"


# --- Who needs one --------------------------------------------------------------------------------------


def asked_of(user: User) -> bool:
    """Whether this member should have one: they give money back, or change what others may do.

    Desks are asked where the operator lets them send something back: the house's, and those that organisers
    have given to an address.
    """
    settings = config.get()
    if settings.development:
        return False
    if user.role in (Role.ADMIN, Role.ORGANISER):
        return True
    pays = min(settings.desk_refund_per_order, settings.desk_refund_per_day) > 0
    return pays and desks.of(user) is not None


def may_have(user: User) -> bool:
    """Whether this member may set one up: of whom it is asked, also where nobody is made to."""
    return (
        user.role in (Role.ADMIN, Role.ORGANISER, Role.DESK)
        or second_factors.counts_for(user)
        or desks.of(user) is not None
    )


def begin_grace(user: User) -> None:
    """From now on they have GRACE to set one up, if they should. Commits.

    Once: who loses the role and gets it again has what was left.
    """
    if user.second_factor_due is None and wanted_of(user):
        user.second_factor_due = clock.now() + GRACE
        db.session.commit()


def wanted_of(user: User) -> bool:
    """Whether they should set one up, now or within their grace."""
    return not second_factors.counts_for(user) and asked_of(user)


def overdue(user: User) -> bool:
    """Whether their grace is over."""
    due = user.second_factor_due
    return due is not None and due <= clock.now() and wanted_of(user)


# --- Setting up, changing, showing ----------------------------------------------------------------------


def finish(user: User, typed: str) -> None:
    """A code of the printed sheet: it counts, and so does an app that was tried. Commits, and mails them."""
    was = second_factors.counts_for(user)
    if second_factors.finish(user, typed):
        what = "Another app shows the codes." if was else "It is asked for at each login from now on."
        _tell(user, what)
    else:
        _tell(user, "New recovery codes were printed, and the old ones are void.")
    _commit()


def add_passkey(user: User, kept: dict[str, Any] | None, answer: str, name: str) -> SecondFactor:
    """Keep a passkey that a browser made. Commits; mails its owner."""
    made = passkeys.add(user, kept, answer, name)
    _tell(user, f"The passkey “{made.name}” was added.")
    _commit()
    return made


def remove_passkey(user: User, passkey_id: int) -> None:
    """Take a passkey away. Commits; mails its owner."""
    passkeys.remove(user, passkey_id)
    _tell(user, "A passkey was removed.")
    _commit()


def prove(user: User, typed: str, *, client_address: str = "", device: str = "") -> None:
    """Take a code of the app, or one of the sheet, of which its owner is told. Commits. DomainError."""
    known = devices.known(user, device)
    place = Place(network(client_address), str(known.id) if known is not None else "")
    if second_factors.prove(user, typed, place):
        left = second_factors.codes_left(user)
        _tell(user, f"A code from your printed sheet was used: {left} {'is' if left == 1 else 'are'} left.")
        _commit()


def lose(user: User, *, by: User | None = None) -> bool:
    """Take every factor away from who has lost them. The row is locked. No commit. Whether any counted.

    `by` is the admin who does it; without, it was done on the server.
    """
    if not second_factors.reset(user):
        return False
    who = addresses.shown(by.email) if by is not None else _ON_THE_SERVER
    # By whom, the entry says by itself; their address is theirs, and not this member's.
    security_log.note("taken away", user)
    key = secrets.token_hex(8)
    context = {"whose": addresses.shown(user.email), "who": who}
    for admin in db.session.scalars(
        select(User)
        .where(User.role == Role.ADMIN, User.confirmed_at.is_not(None), User.disabled_at.is_(None))
        .order_by(User.id)
    ):
        stem = f"user:{admin.id}:second_factor_reset:{user.id}:{key}"
        outbox.stage("second_factor_reset", key=stem, to=admin.email, user=admin, context=context)
    if user.role is not Role.ADMIN or user.confirmed_at is None:
        _tell(user, "It was taken away", by=f" by {who}.")
    return True


def lose_by(user_id: int, by: User) -> None:
    """An admin takes the factors away from a member who has lost them; their logins end. Commits.

    DomainError `own_factor` for one's own, `no_factor` where there is none.
    """
    if user_id == by.id:
        raise DomainError("own_factor", "Your own is changed on your account's page, or on the server.")
    user = one_time_links.lock(user_id)
    if not lose(user, by=by):
        raise DomainError("no_factor", "There is no second factor to take away.")
    user.login_epoch += 1
    _commit()


def _tell(user: User, what: str, *, by: str = "") -> None:
    security_log.note(what, user)
    key = f"user:{user.id}:second_factor:{secrets.token_hex(8)}"
    context = {"what": what + by, "link": f"{config.get().public_url}/account/second-factor/"}
    outbox.stage("second_factor_changed", key=key, to=user.email, user=user, context=context)


def _commit() -> None:
    db.session.commit()
    queue.soon("deliver_mail")
