"""Athletes: whom a member enters in tournaments, and a guardian's consent for those who are minors.

A birth date, a weight and a guardian are seen by the member themself, by the organiser of a tournament they
are entered in, and by admins; nobody else's page, list or log has them.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Mapping
from datetime import date
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import joinedload

import config
from domain import clock, names, site_texts
from domain.catalogue import grades, tournaments
from domain.catalogue.tournaments import Entrant
from domain.errors import DomainError, NotFound
from extensions import db
from models import Athlete, Consent, Event, Order, OrderLine, Participant, Ticket, User

FIELDS = frozenset(("name", "birth_date", "sex", "club", "weight_g", "grade"))
_LONGEST_CLUB = 200
_OLDEST_YEARS = 120
MOST = 200


# --- Reading --------------------------------------------------------------------------------------------


def of(user: User) -> list[Athlete]:
    """The athletes that a member keeps, by name."""
    query = select(Athlete).where(Athlete.user_id == user.id, Athlete.removed_at.is_(None))
    return list(db.session.scalars(query.order_by(Athlete.name, Athlete.id).limit(MOST)))


def find(user: User, public_id: str) -> Athlete:
    """One of the member's own. NotFound alike for another's and for one that there is not."""
    found = db.session.scalar(
        select(Athlete).where(
            Athlete.public_id == public_id, Athlete.user_id == user.id, Athlete.removed_at.is_(None)
        )
    )
    if found is None:
        raise NotFound("no_athlete", "There is no such athlete.")
    return found


def entrant(athlete: Athlete) -> Entrant:
    """The athlete as categories ask for one."""
    return Entrant(athlete.birth_date, athlete.sex, athlete.weight_g, athlete.grade)


def is_minor(athlete: Athlete, event: Event) -> bool:
    """Whether they are under age on the tournament's first day."""
    age = tournaments.age_on(athlete.birth_date, tournaments.first_day(event))
    return age < config.get().age_of_majority


# --- Writing --------------------------------------------------------------------------------------------


def add(user: User, values: Mapping[str, Any]) -> Athlete:
    """A new athlete of this member. Commits; DomainError in words."""
    if len(of(user)) >= MOST:
        raise DomainError("too_many", f"An account keeps at most {MOST} athletes. Remove one first.")
    made = Athlete(
        public_id=f"athlete_{secrets.token_urlsafe(15)}", user_id=user.id, club="", created_at=clock.now()
    )
    _write(made, values)
    db.session.add(made)
    db.session.commit()
    return made


def change(athlete: Athlete, values: Mapping[str, Any]) -> Athlete:
    """Change an athlete. Entries keep what they were made with, but for the name. Commits; DomainError."""
    before = athlete.name
    with db.session.no_autoflush:
        try:
            _write(athlete, values)
        except DomainError:
            db.session.rollback()
            raise
    if athlete.name != before:
        _rename(athlete)
    db.session.commit()
    return athlete


def _rename(athlete: Athlete) -> None:
    """Have the door and the mails say the name that the lists say, for what is still ahead. No commit."""
    ahead = (
        select(Participant.order_id)
        .join(Order, Order.id == Participant.order_id)
        .join(Event, Event.id == Order.event_id)
        .where(Participant.athlete_id == athlete.id, Event.ends_at > clock.now())
    )
    for kind in (OrderLine, Ticket):
        change = update(kind).where(kind.order_id.in_(ahead)).values(holder=athlete.name)
        db.session.execute(change.execution_options(synchronize_session="fetch"))


def remove(athlete: Athlete) -> None:
    """Forget an athlete who was never entered; one who was is kept for those entries alone. Commits."""
    entered = db.session.scalar(select(Participant.id).filter_by(athlete_id=athlete.id).limit(1))
    if entered is None:
        db.session.execute(delete(Consent).filter_by(athlete_id=athlete.id))
        db.session.delete(athlete)
    else:
        athlete.removed_at = clock.now()
        athlete.weight_g = athlete.weight_at = None
    db.session.commit()


def _write(athlete: Athlete, values: Mapping[str, Any]) -> None:
    unknown = sorted(values.keys() - FIELDS)
    if unknown:
        raise TypeError(f"Athlete has no changeable {', '.join(unknown)}")
    now = clock.now()
    kept = dict(values)
    if "name" in kept:
        kept["name"] = names.clean(str(kept["name"]), why=": it is on the start list")
    if "club" in kept:
        kept["club"] = " ".join(names.plain(str(kept["club"])).split())
        if len(kept["club"]) > _LONGEST_CLUB:
            raise DomainError("club", f"The club is too long: at most {_LONGEST_CLUB} characters.")
    if "birth_date" in kept:
        _check_born(kept["birth_date"], now.date())
    if "grade" in kept:
        grades.check(kept["grade"])
    # A form that is saved anew with the same weight does not make it younger.
    if "weight_g" in kept and kept["weight_g"] != athlete.weight_g:
        athlete.weight_at = now if kept["weight_g"] is not None else None
    for name, value in kept.items():
        setattr(athlete, name, value)


def _check_born(born: date | None, today: date) -> None:
    if born is None or not date(today.year - _OLDEST_YEARS, 1, 1) <= born <= today:
        raise DomainError("birth_date", "Type the date of birth, such as 2012-05-31.")


# --- Consent --------------------------------------------------------------------------------------------


def consent_text() -> str:
    """What a guardian agrees to, as the operator has it now."""
    return site_texts.read("consent").body


def unagreed(order: Order) -> Athlete | None:
    """The minor whom an order enters, where no guardian has agreed to the consent as it is now."""
    if order.event is None or not order.is_entry:
        return None
    entered = select(Participant).where(Participant.order_id == order.id)
    found = db.session.scalar(entered.options(joinedload(Participant.athlete)))
    if found is None or not is_minor(found.athlete, order.event) or consented([found.athlete_id]):
        return None
    return found.athlete


def consent_hash() -> str:
    """Which text that is: a form carries it, so that nobody agrees to another one than they read."""
    return hashlib.sha256(consent_text().encode()).hexdigest()


def consented(athlete_ids: Collection[int]) -> set[int]:
    """Those of the athletes whose guardians have agreed to the text as it is now."""
    query = select(Consent.athlete_id).where(Consent.athlete_id.in_(athlete_ids))
    return set(db.session.scalars(query.where(Consent.text_hash == consent_hash())))


def give_consent(athlete: Athlete, user: User, read: str) -> None:
    """Keep who agreed, when, and to which text; once for each text. No commit.

    `read` is the text's hash as the form carried it. DomainError `consent_changed` where it is another one.
    """
    if read != consent_hash():
        raise DomainError(
            "consent_changed", "The text of the consent has changed. Read it, and tick it again."
        )
    if consented([athlete.id]):
        return
    db.session.add(
        Consent(
            athlete_id=athlete.id,
            user_id=user.id,
            text=consent_text(),
            text_hash=read,
            given_at=clock.now(),
        )
    )


def agree(athlete: Athlete, user: User, read: str) -> Athlete:
    """A guardian agrees apart from any entry: see `give_consent`. Commits."""
    give_consent(athlete, user, read)
    db.session.commit()
    return athlete
