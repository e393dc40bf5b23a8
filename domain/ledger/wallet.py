"""A member's wallet: adding, spending, and holds on what is being delivered. Topping up: orders/top_ups.py.

Every change of a balance is one conditional UPDATE beside its ledger transfer, and every operation has a
key that makes it happen once. The functions that change something commit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select, union_all, update
from sqlalchemy.dialects.postgresql import insert

import config
from domain import clock, locks, money
from domain.errors import DomainError
from domain.ledger import transfers
from domain.ledger.transfers import InsufficientFunds
from extensions import db
from models import HoldState, Transfer, User, Wallet, WalletHold

PAGE_SIZE = 25
_EXPIRE_BATCH = 100
_EXPIRE_BATCHES = 100

# --- Adding and taking ----------------------------------------------------------------------------------


def add_balance(
    user: User,
    amount_minor: int,
    description: str,
    provider_reference: str = "",
    *,
    key: str,
    currency: str | None = None,
    actor_id: int | None = None,
) -> bool:
    """Credit a wallet from the platform's own account. Commits. False when `key` was used before.

    A `provider_reference` makes it a `top_up`, else it is an `adjustment`. Top-ups that members pay for do
    not come this way: settling their payment credits them. `currency` is the wallet's by default.
    """
    _check_positive(amount_minor)
    return locks.in_one_transaction(
        lambda: transfers.post(
            key=f"add:{key}",
            debit=transfers.PLATFORM,
            credit=transfers.wallet_account(user.id),
            amount_minor=amount_minor,
            currency=currency or config.get().wallet_currency,
            kind="top_up" if provider_reference else "adjustment",
            description=description,
            provider_reference=provider_reference,
            actor_id=actor_id,
        )
    )


def deduct_balance(
    user: User,
    amount_minor: int,
    description: str,
    agent_slug: str,
    *,
    key: str,
    currency: str | None = None,
    actor_id: int | None = None,
) -> bool:
    """Take money for the use of an agent, at once. Commits. False when `key` was used before.

    Without an agent it is an `adjustment`, by the admin `actor_id`.
    Raises InsufficientFunds, and changes nothing, when the wallet has less than that free.
    """
    _check_positive(amount_minor)
    return locks.in_one_transaction(
        lambda: transfers.post(
            key=f"deduct:{key}",
            debit=transfers.wallet_account(user.id),
            credit=transfers.PLATFORM,
            amount_minor=amount_minor,
            currency=currency or config.get().wallet_currency,
            kind="agent_usage" if agent_slug else "adjustment",
            description=description,
            agent_slug=agent_slug,
            actor_id=actor_id,
        )
    )


def _check_positive(amount_minor: int) -> None:
    if amount_minor <= 0:
        raise DomainError("amount_not_positive", "The amount must be more than zero.")


# --- Holds ----------------------------------------------------------------------------------------------


def hold(
    user: User,
    amount_minor: int,
    *,
    key: str,
    description: str,
    agent_slug: str,
    minutes: int = 10,
    currency: str | None = None,
) -> WalletHold:
    """Keep part of a wallet for something that is about to be delivered. Commits.

    The same `key` gives the same hold again, in whatever state it is by then. A hold that is neither captured
    nor voided within `minutes` is expired by the sweep. Raises InsufficientFunds, and changes nothing.
    """
    _check_positive(amount_minor)
    code = currency or config.get().wallet_currency

    def work() -> WalletHold:
        wallet = transfers.wallet_of(user.id, code)
        now = clock.now()
        # The key goes first: whoever loses the race for it waits here, and then changes nothing.
        added = db.session.scalar(
            insert(WalletHold)
            .values(
                wallet_id=wallet.id,
                key=key,
                amount_minor=amount_minor,
                state=HoldState.HELD,
                description=description[:255],
                agent_slug=agent_slug,
                created_at=now,
                expires_at=now + timedelta(minutes=minutes),
            )
            .on_conflict_do_nothing()
            .returning(WalletHold.id)
        )
        if added is not None:
            _raise_held(wallet, amount_minor)
        found = db.session.scalars(select(WalletHold).filter_by(key=key)).one()
        if (found.wallet_id, found.amount_minor) != (wallet.id, amount_minor):
            raise DomainError("key_reused", "This form was used for something else. Reload the page.")
        return found

    return locks.in_one_transaction(work)


def captured(key: str) -> WalletHold | None:
    """The hold that was kept by this key, where it was spent."""
    return db.session.scalar(select(WalletHold).filter_by(key=key, state=HoldState.CAPTURED))


def _raise_held(wallet: Wallet, amount_minor: int) -> None:
    """Take from what is free, where there is enough, in one conditional UPDATE."""
    raised = db.session.scalar(
        update(Wallet)
        .where(Wallet.id == wallet.id, Wallet.balance_minor - Wallet.held_minor >= amount_minor)
        .values(held_minor=Wallet.held_minor + amount_minor)
        .returning(Wallet.id)
        .execution_options(synchronize_session=False)
    )
    db.session.expire(wallet)
    if raised is None:
        raise InsufficientFunds(
            "insufficient_funds",
            f"Your wallet has {money.show(max(wallet.available_minor, 0), wallet.currency)} free, and this "
            f"costs {money.show(amount_minor, wallet.currency)}. Top up and try again; nothing was taken.",
        )


def capture(held: WalletHold) -> WalletHold:
    """Turn a hold into a spending, once. Commits. The hold as it is now: it may have ended otherwise before.

    Raises InsufficientFunds, and leaves the hold as it was, when a dispute or refund at the provider has
    meanwhile taken the wallet's money back.
    """
    hold_id = held.id

    def work() -> WalletHold:
        if _end(hold_id, HoldState.CAPTURED):
            ended = db.session.get_one(WalletHold, hold_id, populate_existing=True)
            wallet = ended.wallet
            _lower_held(wallet.id, ended.amount_minor)
            transfers.post(
                key=f"hold:{hold_id}",
                debit=wallet.account,
                credit=transfers.PLATFORM,
                amount_minor=ended.amount_minor,
                currency=wallet.currency,
                kind="agent_usage",
                description=ended.description,
                agent_slug=ended.agent_slug,
            )
        return db.session.get_one(WalletHold, hold_id, populate_existing=True)

    return locks.in_one_transaction(work)


def void(held: WalletHold) -> WalletHold:
    """Give a hold's money back, once. Commits. The hold as it is now: it may have ended otherwise before."""
    hold_id = held.id

    def work() -> WalletHold:
        ended = _end(hold_id, HoldState.VOIDED)
        found = db.session.get_one(WalletHold, hold_id, populate_existing=True)
        if ended:
            _lower_held(found.wallet_id, found.amount_minor)
        return found

    return locks.in_one_transaction(work)


def expire_holds(now: datetime) -> int:
    """End the holds whose time is over, a batch a transaction; any number of sweeps share the work.

    Commits. Returns how many were ended.
    """
    ended = 0
    for _ in range(_EXPIRE_BATCHES):
        count = locks.in_one_transaction(lambda: _expire_batch(now))
        ended += count
        if count < _EXPIRE_BATCH:
            break
    return ended


def _expire_batch(now: datetime) -> int:
    # A wallet that somebody holds keeps no other one waiting: its holds end in the next sweep.
    due = (
        select(WalletHold.id)
        .join(Wallet, Wallet.id == WalletHold.wallet_id)
        .where(WalletHold.state == HoldState.HELD, WalletHold.expires_at <= now)
        .order_by(WalletHold.expires_at)
        .limit(_EXPIRE_BATCH)
        .with_for_update(skip_locked=True, key_share=True)
    )
    rows = db.session.execute(
        update(WalletHold)
        .where(WalletHold.id.in_(due.scalar_subquery()), WalletHold.state == HoldState.HELD)
        .values(state=HoldState.EXPIRED, ended_at=now)
        .returning(WalletHold.wallet_id, WalletHold.amount_minor)
        .execution_options(synchronize_session=False)
    ).all()
    totals: Counter[int] = Counter()
    for wallet_id, amount_minor in rows:
        totals[wallet_id] += amount_minor
    for wallet_id, amount_minor in sorted(totals.items()):
        _lower_held(wallet_id, amount_minor)
    return len(rows)


def _end(hold_id: int, state: HoldState) -> bool:
    """Take a hold out of HELD. Only one of capture, void and expiry ever sees True for it."""
    ended = db.session.scalar(
        update(WalletHold)
        .where(WalletHold.id == hold_id, WalletHold.state == HoldState.HELD)
        .values(state=state, ended_at=clock.now())
        .returning(WalletHold.id)
        .execution_options(synchronize_session=False)
    )
    return ended is not None


def _lower_held(wallet_id: int, amount_minor: int) -> None:
    held = Wallet.held_minor - amount_minor
    db.session.execute(
        update(Wallet)
        .where(Wallet.id == wallet_id)
        .values(held_minor=held, overdrawn=Wallet.balance_minor < held)
        .execution_options(synchronize_session=False)
    )


# --- What a member sees ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Purse:
    """A member's money in one currency, in minor units."""

    currency: str
    balance_minor: int
    held_minor: int
    overdrawn: bool

    @property
    def available_minor(self) -> int:
        return self.balance_minor - self.held_minor


@dataclass(frozen=True)
class Entry:
    """A transfer as its wallet's owner sees it: positive came in, negative went out."""

    id: int
    at: datetime
    kind: str
    description: str
    amount_minor: int
    currency: str
    agent_slug: str
    provider_reference: str


@dataclass(frozen=True)
class History:
    """Some of a member's entries, newest first. `older_than` is the id to ask the next page with, if any."""

    entries: Sequence[Entry]
    older_than: int | None


def purses(user: User) -> list[Purse]:
    """The member's wallets, the one that is topped up first, which is there even before it has money."""
    found = db.session.scalars(select(Wallet).filter_by(user_id=user.id).order_by(Wallet.currency)).all()
    main = config.get().wallet_currency
    all_of_them = [Purse(w.currency, w.balance_minor, w.held_minor, w.overdrawn) for w in found]
    if not any(purse.currency == main for purse in all_of_them):
        all_of_them.append(Purse(main, 0, 0, False))
    return sorted(all_of_them, key=lambda purse: (purse.currency != main, purse.currency))


def available_minor(user: User, currency: str) -> int:
    """What the member can spend in a currency."""
    wallet = db.session.scalar(select(Wallet).filter_by(user_id=user.id, currency=currency))
    return wallet.available_minor if wallet is not None else 0


def history(user: User, *, before_id: int | None = None, limit: int = PAGE_SIZE) -> History:
    """The member's transfers in every currency, newest first."""
    account = transfers.wallet_account(user.id)
    # Each side has an index that ends in the id; an OR over both would have to sort them all.
    sides = []
    for side in (Transfer.credit, Transfer.debit):
        query = select(Transfer.id).where(side == account)
        if before_id is not None:
            query = query.where(Transfer.id < before_id)
        sides.append(query.order_by(Transfer.id.desc()).limit(limit + 1).subquery().select())
    rows = db.session.scalars(
        select(Transfer)
        .where(Transfer.id.in_(union_all(*sides)))
        .order_by(Transfer.id.desc())
        .limit(limit + 1)
    ).all()
    shown = rows[:limit]
    return History([_entry(row, account) for row in shown], shown[-1].id if len(rows) > limit else None)


def _entry(row: Transfer, account: str) -> Entry:
    return Entry(
        id=row.id,
        at=row.created_at,
        kind=row.kind,
        description=row.description,
        amount_minor=row.amount_minor if row.credit == account else -row.amount_minor,
        currency=row.currency,
        agent_slug=row.agent_slug,
        provider_reference=row.provider_reference,
    )
