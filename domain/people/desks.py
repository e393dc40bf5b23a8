"""Desks: who answers buyers at the telephone, and whose orders they see.

An admin gives the role, for every order there is. An organiser gives it to an address, for their own events;
whoever has confirmed that address has it, also with an account that is made later, and nobody learns from it
who has one. A desk searches, reads, notes and resends. It changes no event, text, price, role, key or
setting, and exports nothing; what it may send back is in `payments/desk_refunds.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

import config
from domain import addresses, audit, clock
from domain.errors import DomainError, NotFound
from domain.post import outbox
from extensions import db, queue
from models import AuditArea, Deed, DeskGrant, Organiser, OrganiserState, Role, User

MOST = 50


@dataclass(frozen=True)
class Desk:
    """Whose orders somebody sees: all of them (`organisers` None), or those of some organisers' events."""

    organisers: frozenset[int] | None

    @property
    def is_house(self) -> bool:
        return self.organisers is None

    @property
    def door(self) -> str:
        """As a timeline has it. What the house's desk says is between staff; an organiser's is theirs."""
        return "desk" if self.is_house else "organiser_desk"


def of(user: User) -> Desk | None:
    """The desk of a member; None for whoever has none. A suspended organiser's desk is closed."""
    if user.role in (Role.ADMIN, Role.DESK):
        return Desk(None)
    if user.confirmed_at is None or addresses.went_elsewhere(user.email):
        return None
    given = (
        select(DeskGrant.organiser_id)
        .join(User, User.id == DeskGrant.organiser_id)
        .outerjoin(Organiser, Organiser.user_id == DeskGrant.organiser_id)
        .where(
            func.lower(DeskGrant.email).in_(addresses.spellings(user.email)),
            DeskGrant.revoked_at.is_(None),
            User.role.in_((Role.ORGANISER, Role.ADMIN)),
            User.disabled_at.is_(None),
            # Organisers by an admin's own word have no profile.
            func.coalesce(Organiser.state, OrganiserState.APPROVED) == OrganiserState.APPROVED,
        )
    )
    found = frozenset(db.session.scalars(given))
    return Desk(found) if found else None


def people(organiser: User) -> list[DeskGrant]:
    """Who answers for an organiser now, by their address."""
    query = select(DeskGrant).where(DeskGrant.organiser_id == organiser.id, DeskGrant.revoked_at.is_(None))
    return list(db.session.scalars(query.order_by(func.lower(DeskGrant.email)).limit(MOST)))


def give(organiser: User, email: str) -> DeskGrant:
    """Let who reads an address answer for this organiser. Commits, and mails them; once for each address.

    DomainError for what is no address, for the organiser's own, and where there are MOST already.
    """
    address = addresses.normal(email)
    if address == addresses.settled(organiser.email):
        raise DomainError("own_address", "That is your own address: you see your orders already.")
    if len(people(organiser)) >= MOST:
        raise DomainError("too_many", f"You have {MOST} people at your desk already. Remove one first.")
    made = db.session.scalar(
        insert(DeskGrant)
        .values(organiser_id=organiser.id, email=address, created_at=clock.now())
        .on_conflict_do_nothing()
        .returning(DeskGrant.id)
    )
    if made is not None:
        _note(made, organiser, Deed.MADE, ("email", None, address))
        _mail(made, organiser, address)
    db.session.commit()
    queue.soon("deliver_mail")
    query = select(DeskGrant).where(
        DeskGrant.organiser_id == organiser.id,
        func.lower(DeskGrant.email) == address.lower(),
        DeskGrant.revoked_at.is_(None),
    )
    return db.session.scalars(query).one()


def _note(grant_id: int, organiser: User, deed: Deed, *changes: audit.Change) -> None:
    audit.note(AuditArea.ROLE, deed, "desk", grant_id, about_id=organiser.id, changes=changes)


def _mail(grant_id: int, organiser: User, address: str) -> None:
    name = db.session.scalar(select(Organiser.name).filter_by(user_id=organiser.id)) or organiser.name
    site = config.get().public_url
    context = {"organiser": name, "link": f"{site}/desk/", "address": addresses.shown(address)}
    # Whoever reads that address has not asked for it.
    outbox.stage("desk_given", key=f"desk:{grant_id}", to=address, context=context, unproven=True)


def take(organiser: User, grant_id: int) -> str:
    """End it at once; whose address it was. Commits. NotFound for another organiser's."""
    grant = db.session.get(DeskGrant, grant_id, with_for_update=True, populate_existing=True)
    if grant is None or grant.organiser_id != organiser.id:
        raise NotFound("no_desk", "There is nobody of that number at your desk.")
    grant.revoked_at = grant.revoked_at or clock.now()
    db.session.commit()
    return grant.email
