"""Rows of earlier versions, brought into today's forms a batch at a time: addresses, and what is searched.

Runs beside everything else, on any number of machines, and is soon done: each batch is a short transaction of
rows that nobody else holds. Until it has come by, older rows are found by both spellings of their address.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import structlog
from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError

from domain import addresses, folding, search_words
from extensions import db
from models import Order, Organiser, User

log = structlog.get_logger(__name__)

BATCH = 500
# Letters beyond ASCII: what the addresses of earlier versions may have, and none of today's has.
_LETTERS = "[^ -~]"


@dataclass
class Done:
    """What a run did: rows by their table, and whether there may be more."""

    rows: Counter[str] = field(default_factory=Counter)
    more: bool = False


def run(*, budget_seconds: float = 60) -> Done:
    """Work until nothing is left or the budget has passed. Commits for each batch."""
    done, ends = Done(), monotonic() + budget_seconds
    for model in folding.SEARCHED:
        last = 0
        while not done.more and (ids := _batch(model, last)):
            last = ids[-1]
            done.rows[model.__tablename__] += len(ids)
            done.more = monotonic() > ends
    while not done.more and (number := _words()):
        done.rows["order_words"] += number
        done.more = monotonic() > ends
    done.rows["organisers"] += _contact_addresses()
    if done.rows.total():
        log.info("backfilled", more=done.more, **done.rows)
    return done


def _batch(model: type[Any], last: int) -> list[int]:
    """Renew up to BATCH rows after the id `last`; their ids. Commits."""
    rows = db.session.scalars(
        select(model)
        .where(model.folded.is_(None), model.id > last)
        .order_by(model.id)
        .limit(BATCH)
        .with_for_update(skip_locked=True, key_share=True)
        .execution_options(populate_existing=True)
    ).all()
    ids = [row.id for row in rows]
    for row in rows:
        if isinstance(row, Order):
            row.email = addresses.settled(row.email)
        elif isinstance(row, User):
            _account(row)
        row.folded = folding.folded(row)
    db.session.commit()
    return ids


def _words() -> int:
    """Write the words of up to BATCH orders that have none, the newest first; how many orders. Commits."""
    ids = db.session.scalars(
        select(Order.id)
        .where(~Order.worded)
        .order_by(Order.id.desc())
        .limit(BATCH)
        .with_for_update(skip_locked=True, key_share=True)
    ).all()
    if ids:
        connection = db.session.connection()
        search_words.add(connection, search_words.of_orders(connection, ids))
        db.session.execute(
            update(Order)
            .where(Order.id.in_(ids))
            .values(worded=True)
            .execution_options(synchronize_session=False)
        )
    db.session.commit()
    return len(ids)


def _account(user: User) -> None:
    """Give an account its address's one form, unless another account has it: then both stay as they are.

    By IDNA 2003, as mail was sent before, some domains were somebody else's: who proved that they read the
    mail of straße.de read that of strasse.de. Such an address is confirmed anew, whatever becomes of it.
    """
    address = addresses.settled(user.email)
    if address == user.email:
        return
    if user.confirmed_at is not None and addresses.went_elsewhere(user.email):
        user.confirmed_at = None
        user.login_epoch += 1
        log.warning("address_unproven", user_id=user.id)
    if _taken(address, user):
        return
    try:
        with db.session.begin_nested():
            user.email = address
            db.session.flush()
    except IntegrityError:
        # Somebody has registered it at this moment.
        db.session.refresh(user)


def _taken(address: str, user: User) -> bool:
    another = select(User.id).where(func.lower(User.email) == address, User.id != user.id)
    return db.session.scalar(another) is not None


def _contact_addresses() -> int:
    """The addresses that organisers give their buyers; how many were changed. Commits."""
    changed = 0
    for row in db.session.scalars(select(Organiser).where(Organiser.contact_email.op("~")(_LETTERS))):
        address = addresses.settled(row.contact_email)
        changed += address != row.contact_email
        row.contact_email = address
    db.session.commit()
    return changed


def twins() -> list[list[User]]:
    """Accounts that are of one address, each spelled otherwise. Nothing merges them; a person may decide."""
    odd = db.session.scalars(
        select(User).where(User.email.op("~")(_LETTERS) | (User.email != func.lower(User.email)))
    ).all()
    found: dict[str, list[User]] = {}
    for address in {addresses.settled(user.email).lower() for user in odd}:
        spelled = addresses.spellings(address)
        same = select(User).where(func.lower(User.email).in_(spelled)).order_by(User.id)
        found[address] = [*db.session.scalars(same)]
    return [users for users in found.values() if len(users) > 1]
