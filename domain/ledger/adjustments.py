"""An admin puts money into a member's wallet, or takes some out, and says why.

Both are rows of the ledger against the platform's own account, with the reason as the member reads it and
with who did it. Nothing goes to or from a payment provider, and no wallet goes below zero by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, or_, select

import config
from domain import addresses, clock, money
from domain.errors import DomainError, NotFound
from domain.ledger import transfers, wallet
from domain.people import accounts
from extensions import db
from models import Transfer, User

SHOWN = 20
LONGEST_REASON = 200
_LATELY = timedelta(hours=12)


@dataclass(frozen=True)
class Adjustment:
    """What an adjustment came to. `repeated`: the same one was made before, and nothing was done now."""

    words: str
    repeated: bool


def member(email: str) -> User:
    """The member with this address. NotFound in words."""
    user = accounts.find(email)
    if user is None:
        raise NotFound("no_member", f"There is no member with the address “{addresses.shown(email)[:80]}”.")
    return user


def by_id(user_id: int) -> User:
    """The member of a page's address."""
    user = db.session.get(User, user_id)
    if user is None:
        raise NotFound("no_member", "There is no such member.")
    return user


def made_to(user: User) -> list[Transfer]:
    """The newest adjustments of a member's wallets."""
    account = transfers.wallet_account(user.id)
    query = select(Transfer).where(or_(Transfer.debit == account, Transfer.credit == account))
    query = query.where(Transfer.kind == "adjustment").order_by(Transfer.id.desc())
    return list(db.session.scalars(query.limit(SHOWN)))


def lately_minor(user: User) -> int:
    """How much was put in and taken out of a member's wallet in the last twelve hours, in its currency."""
    account = transfers.wallet_account(user.id)
    query = select(func.coalesce(func.sum(Transfer.amount_minor), 0)).where(
        or_(Transfer.debit == account, Transfer.credit == account),
        Transfer.kind == "adjustment",
        Transfer.currency == config.get().wallet_currency,
        Transfer.created_at > clock.now() - _LATELY,
    )
    return int(db.session.scalar(query) or 0)


def adjust(
    user: User, typed: str, reason: str, *, takes: bool, key: str, actor_id: int | None = None
) -> Adjustment:
    """Add the amount that was typed to the wallet, or take it out where `takes`. Commits; once for a `key`.

    Raises DomainError in words: no reason, no amount, InsufficientFunds when less than that is free.
    """
    said = " ".join(reason.split())
    if not said:
        raise DomainError("reason_missing", "Say why: the member reads it beside the amount.")
    if len(said) > LONGEST_REASON:
        raise DomainError("reason_too_long", f"The reason may have {LONGEST_REASON} characters.")
    if not key:
        raise DomainError("form_expired", "Reload the page, and try again.")
    currency = config.get().wallet_currency
    amount_minor = money.parse(typed, currency)
    # Read before the commit, which makes the row be read again.
    whom, key = addresses.shown(user.email), f"adjustment:{user.id}:{key[:80]}"
    if takes:
        new = wallet.deduct_balance(user, amount_minor, said, "", key=key, actor_id=actor_id)
    else:
        new = wallet.add_balance(user, amount_minor, said, key=key, actor_id=actor_id)
    amount = money.show(amount_minor, currency)
    did = f"taken from the wallet of {whom}" if takes else f"put into the wallet of {whom}"
    return Adjustment(f"{amount} was {'before' if not new else 'now'} {did}.", repeated=not new)
