"""Organisers: members who sell events of their own. They apply, and an admin approves, rejects or suspends.

The role is what lets a member in; the profile is what buyers see. Whether a suspended organiser's events
sell is asked of the profile by `catalogue/availability.py`, so that nothing has to be put back afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import joinedload

import config
from domain import addresses, audit, clock, paging
from domain.errors import DomainError, NotFound
from domain.people import endings
from domain.post import outbox
from domain.security import one_time_links
from extensions import db, queue
from models import AuditArea, Deed, Event, Organiser, OrganiserState, Role, User

# The profile's fields and how long each may be; the first and the last must be there.
FIELDS = {"name": 200, "description": 5000, "website": 300, "phone": 40, "contact_email": 254}
_MAY_APPLY = (OrganiserState.REJECTED,)


# --- Reading --------------------------------------------------------------------------------------------


def of(user: User) -> Organiser | None:
    """The member's profile or application, if there is one."""
    return db.session.scalar(select(Organiser).filter_by(user_id=user.id))


def find(organiser_id: int) -> Organiser:
    """One organiser. NotFound when there is none."""
    found = db.session.get(Organiser, organiser_id, populate_existing=True)
    if found is None:
        raise NotFound("no_organiser", "There is no such organiser.")
    return found


def listed(state: OrganiserState | None = None, before: int | None = None) -> paging.Rows[Organiser]:
    """Organisers and applicants, the newest first; of one state where asked."""
    query = select(Organiser).options(joinedload(Organiser.user), joinedload(Organiser.decided_by))
    if state is not None:
        query = query.where(Organiser.state == state)
    return paging.page(query, Organiser.id, before)


def waiting() -> int:
    """How many applications wait for an admin's word."""
    query = select(func.count()).select_from(Organiser).where(Organiser.state == OrganiserState.PENDING)
    return db.session.scalar(query) or 0


def may_manage(user: User, event: Event) -> bool:
    """Whether a member may run this event: its own organiser, and every admin."""
    return user.role is Role.ADMIN or (user.role is Role.ORGANISER and event.organiser_id == user.id)


def event_for(user: User, slug: str) -> Event:
    """An event in any state that the member may run. NotFound alike for others' events and for none."""
    query = select(Event).filter_by(slug=slug).options(joinedload(Event.organiser))
    found = db.session.scalar(query)
    if found is None or not may_manage(user, found):
        raise NotFound("no_event", "You have no event at this address.")
    return found


def events_of(user: User) -> list[Event]:
    """The member's events, the latest first; an admin's are the house's and their own. At most 200."""
    own = Event.organiser_id == user.id
    if user.role is Role.ADMIN:
        own = own | Event.organiser_id.is_(None)
    query = select(Event).where(own).order_by(Event.starts_at.desc()).limit(200)
    return list(db.session.scalars(query.options(joinedload(Event.organiser))))


# --- Applying, and the profile --------------------------------------------------------------------------


def apply(user: User, values: Mapping[str, str]) -> Organiser:
    """Ask to become an organiser, with a profile of FIELDS. Commits; mails the member and the admins.

    Raises DomainError for an unconfirmed address, a field that is wrong (its name is the code), and for
    whoever has applied already. After a rejection a member may apply again.
    """
    if user.confirmed_at is None:
        raise DomainError("unconfirmed", "Confirm your e-mail address first: we have mailed you a link.")
    profile = _clean(values)
    now = clock.now()
    statement = insert(Organiser).values(
        user_id=user.id,
        state=OrganiserState.PENDING,
        state_reason="",
        created_at=now,
        updated_at=now,
        **profile,
    )
    # Two forms sent at once are one application.
    db.session.execute(statement.on_conflict_do_nothing(index_elements=["user_id"]))
    organiser = _lock(Organiser.user_id == user.id)
    if organiser.created_at == now:
        _note_made(organiser)
    else:
        _apply_again(organiser, profile)
    site = config.get().public_url
    outbox.stage("organiser_applied", key=_key(organiser, "applied"), to=user.email, user=user)
    outbox.alert(
        f"Organiser Applied - {organiser.name}",
        f"{addresses.shown(user.email)} has applied as “{organiser.name}”. "
        f"Decide at {site}/admin/organisers/{organiser.id}",
        key=_key(organiser, "alert"),
    )
    _commit()
    return organiser


def _apply_again(organiser: Organiser, profile: dict[str, str]) -> None:
    if organiser.state not in _MAY_APPLY:
        db.session.rollback()
        raise DomainError("applied_already", "You have applied already. We will mail you when it is decided.")
    for name, value in profile.items():
        setattr(organiser, name, value)
    organiser.state, organiser.state_reason = OrganiserState.PENDING, ""
    organiser.updated_at = clock.now()


def edit(user: User, values: Mapping[str, str]) -> Organiser:
    """Change the profile that buyers see. Commits. DomainError with the field's name as its code.

    An organiser by an admin's own word, who never applied, has none yet: it is made here.
    """
    profile = _clean(values)
    now = clock.now()
    if user.role in (Role.ORGANISER, Role.ADMIN):
        first = {"state": OrganiserState.APPROVED, "state_reason": "", "created_at": now, "updated_at": now}
        statement = insert(Organiser).values(user_id=user.id, **first, **profile)
        new = statement.on_conflict_do_nothing(index_elements=["user_id"]).returning(Organiser.id)
        if db.session.scalar(new) is not None:
            _note_made(_lock(Organiser.user_id == user.id))
    organiser = _lock(Organiser.user_id == user.id)
    for name, value in profile.items():
        setattr(organiser, name, value)
    organiser.updated_at = now
    db.session.commit()
    return organiser


def _note_made(organiser: Organiser) -> None:
    changes = [(name, None, getattr(organiser, name)) for name in ("name", "state")]
    area, of = AuditArea.ROLE, organiser.user_id
    audit.note(area, Deed.MADE, "organiser", organiser.id, label=organiser.name, about_id=of, changes=changes)


def _clean(values: Mapping[str, str]) -> dict[str, str]:
    """The profile as it is kept. DomainError in words, with the field's name as its code."""
    profile = {name: (values.get(name) or "").replace("\r\n", "\n").strip() for name in FIELDS}
    for name, limit in FIELDS.items():
        if len(profile[name]) > limit:
            raise DomainError(name, f"That is too long: at most {limit} characters.")
        if "\x00" in profile[name]:
            raise DomainError(name, "That has a character in it that cannot be kept.")
    profile["name"] = " ".join(profile["name"].split())
    if not profile["name"]:
        raise DomainError("name", "Type the name that buyers know you by.")
    profile["website"] = _web_address(profile["website"])
    try:
        profile["contact_email"] = addresses.normal(profile["contact_email"])
    except DomainError as error:
        raise DomainError("contact_email", error.message) from error
    return profile


def _web_address(typed: str) -> str:
    """A web address as it may be linked to; `example.org` is read as `https://example.org`."""
    if not typed:
        return ""
    address = typed if "://" in typed else f"https://{typed}"
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
    except ValueError:
        host, parts = "", urlsplit("")
    if parts.scheme not in ("http", "https") or "." not in host or any(c.isspace() for c in address):
        raise DomainError("website", "That is not a web address. One looks like https://example.org.")
    if len(address) > FIELDS["website"]:
        raise DomainError("website", f"That is too long: at most {FIELDS['website']} characters.")
    return address


# --- Deciding -------------------------------------------------------------------------------------------


def approve(organiser_id: int, *, actor_id: int) -> Organiser:
    """Let an applicant, or somebody who was rejected or suspended, sell events. Commits, and mails them."""
    organiser = _decide(organiser_id, OrganiserState.APPROVED, "", actor_id)
    if organiser.user.role is not Role.ADMIN:
        organiser.user.role = Role.ORGANISER
    _tell(organiser, "organiser_approved")
    return organiser


def reject(organiser_id: int, *, reason: str, actor_id: int) -> Organiser:
    """Turn an application down, with a reason that the applicant reads. Commits, and mails them."""
    organiser = _decide(organiser_id, OrganiserState.REJECTED, reason, actor_id)
    _tell(organiser, "organiser_rejected")
    return organiser


def suspend(organiser_id: int, *, reason: str, actor_id: int) -> Organiser:
    """Take an organiser's pages and sales away until they are approved again. Commits, and mails them.

    Tickets that were sold stay valid, and payments that are under way are still honoured. Door passes
    end with them; the house makes others where people come to an event tonight.
    """
    organiser = _decide(organiser_id, OrganiserState.SUSPENDED, reason, actor_id)
    user = one_time_links.lock(organiser.user_id)
    if user.role is Role.ORGANISER:
        user.role = Role.BUYER
        endings.of_power(user, Role.BUYER)
    else:
        endings.of_passes(user)
    _tell(organiser, "organiser_suspended")
    return organiser


def decide(organiser_id: int, what: str, *, reason: str, actor_id: int) -> Organiser:
    """`approve`, `reject` or `suspend`. Commits. DomainError for anything else."""
    if what == "approve":
        return approve(organiser_id, actor_id=actor_id)
    if what == "reject":
        return reject(organiser_id, reason=reason, actor_id=actor_id)
    if what == "suspend":
        return suspend(organiser_id, reason=reason, actor_id=actor_id)
    raise DomainError("no_such_decision", "Choose what becomes of it.")


# From which states each decision may be made.
DECISIONS = {
    OrganiserState.APPROVED: (OrganiserState.PENDING, OrganiserState.REJECTED, OrganiserState.SUSPENDED),
    OrganiserState.REJECTED: (OrganiserState.PENDING,),
    OrganiserState.SUSPENDED: (OrganiserState.APPROVED,),
}


def _decide(organiser_id: int, state: OrganiserState, reason: str, actor_id: int) -> Organiser:
    """The organiser's row, locked and in its new state. No commit."""
    reason = " ".join(reason.split())
    if state is not OrganiserState.APPROVED and not reason:
        raise DomainError("reason_needed", "Say why: the reason is mailed to the organiser.")
    if len(reason) > 300:
        raise DomainError("reason_too_long", "That reason is too long: at most 300 characters.")
    organiser = _lock(Organiser.id == organiser_id)
    before = organiser.state
    if before not in DECISIONS[state]:
        db.session.rollback()
        raise DomainError("decided_already", f"Somebody was faster: {organiser.name} is {before} now.")
    organiser.state, organiser.state_reason = state, reason
    organiser.decided_by_id, organiser.decided_at = actor_id, clock.now()
    organiser.updated_at = organiser.decided_at
    return organiser


def _tell(organiser: Organiser, kind: str) -> None:
    """Owe the organiser the mail about a decision, and commit it with the decision."""
    link = f"{config.get().public_url}/organiser/"
    context = {"link": link, "reason": organiser.state_reason}
    key = _key(organiser, kind)
    outbox.stage(kind, key=key, to=organiser.user.email, user=organiser.user, context=context)
    _commit()


def _key(organiser: Organiser, what: str) -> str:
    """One mail for each application and each decision."""
    return f"organiser:{organiser.id}:{what}:{organiser.updated_at.timestamp():.6f}"


def _lock(which: ColumnElement[bool]) -> Organiser:
    query = select(Organiser).where(which).with_for_update()
    found = db.session.scalar(query.execution_options(populate_existing=True))
    if found is None:
        raise NotFound("no_organiser", "There is no such organiser.")
    return found


def _commit() -> None:
    db.session.commit()
    queue.soon("deliver_mail")
