"""Who may stand at an event's door: staff with a link and a PIN made for the night, and some members."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import timedelta
from functools import cache

from limits import RateLimitItemPerMinute
from sqlalchemy import Select, bindparam, select, update
from sqlalchemy.orm import joinedload

import config
from domain import addresses, audit, clock
from domain.errors import DomainError, NotFound
from domain.security import fronts, one_time_links, passwords, rate_limits
from extensions import db, network
from models import AuditArea, Deed, DoorPass, Event, EventState, OrganiserState, Role, User

PIN_DIGITS = 6
# A pass is good for the night: until this long after the event's end.
GOOD_AFTER_END = timedelta(hours=6)
# Wrong PINs for one pass, from one place and from everywhere. Its link is a secret already, so this stops
# whoever found the link; and nobody who did keeps the staff out for longer than it takes to make another.
_PIN_TRIES = RateLimitItemPerMinute(10, 15, namespace="kassa_door_pin")
_PIN_EVERYWHERE = RateLimitItemPerMinute(100, 60, namespace="kassa_door_pin_everywhere")
_LONGEST_BY = 100


@dataclass(frozen=True)
class Doorkeeper:
    """Somebody who scans for one event. `key` names the pass or the member, `by` is what others read.

    The event's id and time zone are beside it, so that a scan that has to look again reads no event again.
    """

    event: Event
    event_id: int
    timezone: str
    key: str
    by: str


def doorkeeper(event: Event, key: str, by: str) -> Doorkeeper:
    """Somebody at this event's door."""
    return Doorkeeper(event, event.id, event.timezone, key, by[:_LONGEST_BY])


# --- Passes ---------------------------------------------------------------------------------------------


def make_pass(event: Event, label: str, created_by: User | None) -> tuple[DoorPass, str]:
    """A new pass for an event's door, and its PIN, which is told this once. Commits.

    Their row is locked and read again: of who is suspended at this moment all passes end, or none is made.
    """
    label = " ".join(label.split())[:60] or "Door"
    now = clock.now()
    expires_at = event.ends_at + GOOD_AFTER_END
    if expires_at <= now:
        raise DomainError("event_over", "This event is over, so its door needs no more staff.")
    if created_by is not None and not may_manage(one_time_links.lock(created_by.id), event):
        raise DomainError("not_your_door", "This door is not for this account.")
    pin = f"{secrets.randbelow(10**PIN_DIGITS):0{PIN_DIGITS}d}"
    made = DoorPass(
        event_id=event.id,
        label=label,
        token=secrets.token_urlsafe(24),
        pin_hash=passwords.hashed(pin),
        created_by_id=created_by.id if created_by is not None else None,
        created_at=now,
        expires_at=expires_at,
    )
    db.session.add(made)
    db.session.commit()
    return made, pin


def url(door_pass: DoorPass) -> str:
    """The link to hand to the staff, together with the PIN."""
    return f"{config.get().public_url}/door/{door_pass.token}/"


def passes(event: Event) -> list[DoorPass]:
    """The event's passes, newest first."""
    query = select(DoorPass).filter_by(event_id=event.id).order_by(DoorPass.id.desc())
    return list(db.session.scalars(query))


def revoke(event: Event, pass_id: int) -> None:
    """End a pass at once, for every phone that entered with it. Commits."""
    now = clock.now()
    label = db.session.scalar(
        update(DoorPass)
        .where(DoorPass.id == pass_id, DoorPass.event_id == event.id, DoorPass.revoked_at.is_(None))
        .values(revoked_at=now)
        .returning(DoorPass.label)
    )
    if label is not None:
        told = f"{label}, {event.title}"
        changes = [("revoked_at", None, now)]
        audit.note(AuditArea.KEY, Deed.CHANGED, "door pass", pass_id, label=told, changes=changes)
    db.session.commit()


def open_pass(token: str) -> DoorPass:
    """The pass behind a link, with its event. NotFound when there is none, or it is no longer good."""
    found = db.session.scalar(_pass_by_token(), {"token": token})
    ask = "Ask whoever gave you the link for a new one."
    if found is None:
        raise NotFound("no_pass", f"There is no door at this address. {ask}")
    organiser = found.event.organiser
    suspended = organiser is not None and organiser.state is OrganiserState.SUSPENDED
    # Of one who was suspended by an earlier version, passes are still there. The house's own are made since.
    if suspended and found.created_by_id == found.event.organiser_id:
        raise NotFound("pass_revoked", f"This link to the door was withdrawn. {ask}")
    if found.revoked_at is not None:
        raise NotFound("pass_revoked", f"This link to the door was withdrawn. {ask}")
    if found.expires_at <= clock.now():
        raise NotFound("pass_expired", f"This link to the door was good until after the event. {ask}")
    return found


@cache
def _pass_by_token() -> Select[DoorPass]:
    """Made once: every scan asks it."""
    wanted = DoorPass.token == bindparam("token")
    return select(DoorPass).where(wanted).options(joinedload(DoorPass.event).joinedload(Event.organiser))


def enter(token: str, pin: str, name: str, *, client_address: str = "") -> Doorkeeper:
    """Check the PIN of a pass. DomainError `wrong_pin`, or `too_many_pins` after ten within 15 minutes from
    one place, and a hundred an hour from everywhere."""
    found = open_pass(token)
    who = str(found.id)
    here = f"{who}@{fronts.counted(network(client_address))}"
    if not rate_limits.count(_PIN_TRIES, here):
        raise DomainError("too_many_pins", "Too many wrong PINs. Wait a quarter of an hour, then try again.")
    if not rate_limits.count(_PIN_EVERYWHERE, who):
        raise DomainError(
            "too_many_pins",
            "Somebody is guessing at this link's PIN. Phones that are in stay in; ask for a new link.",
        )
    if not passwords.right(found.pin_hash, "".join(pin.split())):
        raise DomainError("wrong_pin", f"That PIN is not right. It has {PIN_DIGITS} digits.")
    rate_limits.forget(_PIN_TRIES, here)
    rate_limits.give_back(_PIN_EVERYWHERE, who)
    return by_pass(found, name)


def by_pass(door_pass: DoorPass, name: str) -> Doorkeeper:
    """Whoever entered with this pass under this name."""
    name = " ".join(name.split())[:40]
    by = f"{name}, {door_pass.label}" if name else door_pass.label
    return doorkeeper(door_pass.event, f"pass:{door_pass.id}", by)


# --- Members --------------------------------------------------------------------------------------------


def may_scan(user: User, event: Event) -> bool:
    """Whether a member may stand at this event's door without a pass."""
    return user.role in (Role.ADMIN, Role.DOOR) or may_manage(user, event)


def may_manage(user: User, event: Event) -> bool:
    """Whether a member may make and revoke passes for this event's door."""
    return user.role is Role.ADMIN or (user.role is Role.ORGANISER and event.organiser_id == user.id)


def by_user(user: User, slug: str, *, by: str = "") -> Doorkeeper:
    """A member at an event's door, in whatever state it is; `by` is what others read in place of their name.

    NotFound for no such event, and for another organiser's; `not_your_door` for whoever has no door at all.
    """
    if user.role is Role.BUYER:
        raise DomainError("not_your_door", "This door is not for this account.")
    event = db.session.scalar(select(Event).filter_by(slug=slug))
    if event is None or not may_scan(user, event):
        raise NotFound("no_event", "There is no such event.")
    return doorkeeper(event, f"user:{user.id}", by or user.name or addresses.shown(user.email))


def events_for(user: User) -> list[Event]:
    """The events whose door this member may open: those that are not over, soonest first."""
    query = select(Event).where(Event.ends_at > clock.now() - GOOD_AFTER_END, Event.state != EventState.DRAFT)
    if user.role not in (Role.ADMIN, Role.DOOR):
        query = query.where(Event.organiser_id == user.id)
    return list(db.session.scalars(query.order_by(Event.starts_at, Event.id).limit(100)))
