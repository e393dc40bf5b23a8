"""The house's own account at a provider, and whether organisers' sales may be paid into it.

That is the operator's choice, because the house then holds money that is not its own: for everybody, by the
setting HOUSE_ACCOUNT_FOR_ORGANISERS, or for one organiser, on that organiser's page. The ledger keeps what is
held so apart, as `owed:<organiser>`.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select

import config
from domain import clock
from domain.errors import NotFound
from domain.providers import registry
from extensions import db
from models import Event, Organiser, Payment


def serves(event: Event) -> bool:
    """Whether the tickets of `event` may be paid into the house's account; its own events always are."""
    if event.organiser_id is None or config.get().house_account_for_organisers:
        return True
    return event.organiser is not None and event.organiser.house_account


def serves_organiser(organiser_id: int | None) -> bool:
    """The same for whoever has no event at hand. `organiser_id` is a user's id; None is the house."""
    if organiser_id is None or config.get().house_account_for_organisers:
        return True
    query = select(Organiser.house_account).filter_by(user_id=organiser_id)
    return bool(db.session.scalar(query))


def holds(payment: Payment) -> bool:
    """Whether a payment's money is at the house's own account, so that the house can give it to a wallet."""
    return is_own(payment.provider, payment.account)


def is_own(provider: str, account: str) -> bool:
    """Whether an account at a provider is the house's, and no organiser's."""
    own = registry.get(provider)
    return not own.connects or account in ("", own.account)


def allow(profile_id: int, allowed: bool) -> Organiser:
    """Let one organiser sell through the house's account, or not any more. Commits.

    What is on the way already is still paid where it was begun.
    """
    found = db.session.get(Organiser, profile_id, with_for_update={"key_share": True}, populate_existing=True)
    if found is None:
        raise NotFound("no_organiser", "There is no such organiser.")
    found.house_account, found.updated_at = allowed, clock.now()
    db.session.commit()
    return found


def served() -> Sequence[str]:
    """The names of the organisers who may sell through the house's account by a choice about them."""
    query = select(Organiser.name).where(Organiser.house_account).order_by(Organiser.name).limit(50)
    return db.session.scalars(query).all()
