"""Double entry: a transfer moves minor units from one account to another, once per key.

Accounts are names: `provider:<provider>:<account>`, `wallet:<user id>`, `sales:<organiser id>` (or
`sales:house`), `owed:<organiser id>` (sold for them into the house's account), `platform`, `suspense`. Rows
are only ever added. Only wallets store a balance, because a balance that all sales share would make them
queue for one row. Nothing here commits.
"""

from __future__ import annotations

from sqlalchemy import case, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from domain import clock, money
from domain.errors import DomainError
from extensions import db
from models import Transfer, Wallet

PLATFORM = "platform"
SUSPENSE = "suspense"


class InsufficientFunds(DomainError):
    """The wallet has less than is asked for; nothing was changed."""


def wallet_account(user_id: int) -> str:
    return f"wallet:{user_id}"


def sales_account(organiser_id: int | None) -> str:
    return f"sales:{organiser_id}" if organiser_id is not None else "sales:house"


def owed_account(organiser_id: int) -> str:
    return f"owed:{organiser_id}"


def provider_account(provider: str, account: str) -> str:
    return f"provider:{provider}:{account}"


def wallet_of(user_id: int, currency: str, *, lock: bool = False) -> Wallet:
    """The user's wallet in `currency`, made when there is none; with its row locked if asked."""
    query = select(Wallet).filter_by(user_id=user_id, currency=currency)
    if lock:
        query = query.with_for_update(key_share=True).execution_options(populate_existing=True)
    found = db.session.scalar(query)
    if found is not None:
        return found
    values = {"user_id": user_id, "currency": currency, "created_at": clock.now()}
    values |= {"balance_minor": 0, "held_minor": 0, "overdrawn": False}
    db.session.execute(insert(Wallet).values(values).on_conflict_do_nothing())
    return db.session.scalars(query).one()


# Made once: making a statement costs more than PostgreSQL's part of it.
_ADD = (
    insert(Transfer.__table__)  # type: ignore[arg-type]
    .on_conflict_do_nothing()
    .returning(Transfer.__table__.c.id)
)


def post(
    *,
    key: str,
    debit: str,
    credit: str,
    amount_minor: int,
    currency: str,
    kind: str,
    description: str = "",
    order_id: int | None = None,
    payment_id: int | None = None,
    agent_slug: str = "",
    provider_reference: str = "",
    may_overdraw: bool = False,
    actor_id: int | None = None,
) -> bool:
    """Move `amount_minor` from `debit` to `credit`. False, and nothing changes, when `key` was posted before.

    `actor_id` is who decided it, where a person did. `may_overdraw` is for money that a provider has already
    taken back. Raises InsufficientFunds when a wallet lacks the money.
    """
    row = {
        "key": key,
        "debit": debit,
        "credit": credit,
        "amount_minor": amount_minor,
        "currency": currency,
        "kind": kind,
        "description": description[:255],
        "order_id": order_id,
        "payment_id": payment_id,
        "agent_slug": agent_slug,
        "provider_reference": provider_reference,
        "actor_id": actor_id,
        "created_at": clock.now(),
    }
    # The key goes first: whoever loses the race for it waits here, and then changes nothing.
    added = db.session.scalar(_ADD, row)
    if added is None:
        return False
    moves = {debit: -amount_minor, credit: amount_minor}
    wallets = sorted(name for name in moves if name.startswith("wallet:"))
    for name in wallets:
        _move(int(name.removeprefix("wallet:")), currency, moves[name], may_overdraw)
    return True


def _move(user_id: int, currency: str, change_minor: int, may_overdraw: bool) -> None:
    """Change a stored balance in one conditional UPDATE, so that no two spenders see the same money."""
    wallet = wallet_of(user_id, currency, lock=True)
    after = Wallet.balance_minor + change_minor
    change = update(Wallet).where(Wallet.id == wallet.id)
    if change_minor < 0 and not may_overdraw:
        change = change.where(after >= Wallet.held_minor)
    changed = db.session.scalar(
        change.values(balance_minor=after, overdrawn=after < Wallet.held_minor).returning(Wallet.id)
    )
    if changed is None:
        raise InsufficientFunds(
            "insufficient_funds",
            f"Your wallet has {money.show(wallet.available_minor, currency)}, and this costs "
            f"{money.show(-change_minor, currency)}. Top up and try again; nothing was taken.",
        )
    db.session.expire(wallet)


def balance(account: str, currency: str) -> int:
    """What an account holds, in minor units, summed from its transfers."""
    moved = func.sum(Transfer.amount_minor)
    credit, debit = (
        select(func.coalesce(moved, 0))
        .where(side == account, Transfer.currency == currency)
        .scalar_subquery()
        for side in (Transfer.credit, Transfer.debit)
    )
    return int(db.session.scalars(select(credit - debit)).one())


def held_for(organiser_id: int) -> dict[str, int]:
    """What the house holds for an organiser (a user's id), in minor units by currency."""
    account = owed_account(organiser_id)
    signed = case((Transfer.credit == account, Transfer.amount_minor), else_=-Transfer.amount_minor)
    query = (
        select(Transfer.currency, func.sum(signed))
        .where(or_(Transfer.credit == account, Transfer.debit == account))
        .group_by(Transfer.currency)
        .order_by(Transfer.currency)
    )
    return {currency: int(minor) for currency, minor in db.session.execute(query) if minor}


def transfers(account: str, currency: str, *, limit: int, before_id: int | None = None) -> list[Transfer]:
    """The newest transfers of an account, newest first."""
    query = select(Transfer).where(
        or_(Transfer.credit == account, Transfer.debit == account), Transfer.currency == currency
    )
    if before_id is not None:
        query = query.where(Transfer.id < before_id)
    return list(db.session.scalars(query.order_by(Transfer.id.desc()).limit(limit)))
