"""Whose an address is."""

from __future__ import annotations

from sqlalchemy import func, select

from domain import addresses
from extensions import db
from models import User


def find(email: str) -> User | None:
    """The user of an address, however it is spelled.

    Where accounts from before there was one normal form are of the same address, the one that is spelled as
    it was typed is meant: each of them keeps working. `twins()` tells an admin of them.
    """
    spelled = addresses.spellings(email)
    found = db.session.scalars(select(User).where(func.lower(User.email).in_(spelled))).all()
    order = {spelling: place for place, spelling in enumerate(spelled)}
    return min(found, key=lambda user: order.get(user.email.lower(), len(order)), default=None)
